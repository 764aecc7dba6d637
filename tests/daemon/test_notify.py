"""What the service manager hears, and what happens when nobody listens."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.daemon.notify import Notifier

Manager = tuple[socket.socket, dict[str, str]]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager's socket, and the environment it would give us."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock, {"NOTIFY_SOCKET": address}


def test_each_state_is_one_datagram(manager: Manager) -> None:
    sock, environment = manager
    notifier = Notifier(environment)
    notifier.ready("41 bundles\nfine")
    assert sock.recv(4096) == b"READY=1\nSTATUS=41 bundles fine"
    notifier.reloading(12.5)
    assert sock.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=12500000"
    notifier.stopping("finishing", within=5)
    assert sock.recv(4096) == b"STOPPING=1\nSTATUS=finishing\nEXTEND_TIMEOUT_USEC=5000000"
    notifier.alive()
    assert sock.recv(4096) == b"WATCHDOG=1"
    notifier.close()
    notifier.alive()


def test_an_abstract_address_is_understood() -> None:
    name = f"reconciler-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
        notifier.alive()
        assert sock.recv(100) == b"WATCHDOG=1"
        notifier.close()


@pytest.mark.fault("NOTIFY_SOCKET missing, stale, full")
@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@nobody-listens-here"])
def test_a_missing_manager_is_no_error(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("fine")
    notifier.close()


@pytest.mark.fault("NOTIFY_SOCKET missing, stale, full")
def test_a_full_queue_never_blocks(manager: Manager) -> None:
    _, environment = manager
    notifier = Notifier(environment)
    for _ in range(10_000):
        notifier.status("x" * 1000)
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
    ],
    ids=["none", "any", "ours", "another's", "zero", "text", "foreign digit"],
)
def test_the_watchdog_is_ours_or_nobodys(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environment).watchdog == seconds
