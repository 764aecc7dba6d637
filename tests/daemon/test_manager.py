"""What a service manager hears from a daemon that really runs."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.daemon.running import PATIENCE, Site, enforces, on_disk, running
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel


class Manager:
    """The socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE)

    def receive(self, key: str) -> dict[str, str]:
        """Wait for the next datagram with this key; others are passed over."""
        while True:
            text = self.socket.recv(4096).decode()
            said = dict(line.split("=", 1) for line in text.splitlines())
            if key in said:
                return said

    def drain(self, seconds: float) -> None:
        """Hear everything until nothing has come for so long."""
        self.socket.settimeout(seconds)
        with suppress(TimeoutError):
            while True:
                self.socket.recv(4096)
        self.socket.settimeout(PATIENCE)


@contextmanager
def managing(path: Path) -> Iterator[Manager]:
    manager = Manager(path)
    with manager.socket:
        yield manager


def test_it_hears_of_readiness_reloads_and_the_end(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    with managing(site.base / "notify") as manager:
        began = time.monotonic()
        with running(site, NOTIFY_SOCKET=str(site.base / "notify")) as daemon:
            assert manager.receive("READY")["STATUS"].startswith("observe: ")
            site.write(cleanup__grace="30m")
            sent = time.monotonic()
            daemon.send(signal.SIGHUP)
            reloading = manager.receive("RELOADING")
            # systemd compares it with the time of its own signal (sd_notify(3)).
            assert began < sent <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
            assert manager.receive("READY")["READY"] == "1"
            daemon.send(signal.SIGTERM)
            stopping = manager.receive("STOPPING")
            assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 10_000_000
            assert stopping["STATUS"]
            assert daemon.process.wait(PATIENCE) == 0


def test_a_refused_reload_ends_with_ready_too(site: Site) -> None:
    address = site.base / "notify"
    with managing(address) as manager, running(site, NOTIFY_SOCKET=str(address)) as daemon:
        manager.receive("READY")
        site.write(nonsense=1)
        daemon.send(signal.SIGHUP)
        manager.receive("RELOADING")
        assert manager.receive("READY")["READY"] == "1"


def test_the_watchdog_is_fed_while_the_loop_turns(site: Site) -> None:
    address = site.base / "notify"
    with (
        managing(address) as manager,
        running(site, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="600000") as daemon,
    ):
        for _ in range(3):
            begun = time.monotonic()
            manager.receive("WATCHDOG")
            assert time.monotonic() - begun < 5
        daemon.send(signal.SIGSTOP)
        manager.drain(0.7)
        daemon.send(signal.SIGCONT)
        manager.receive("WATCHDOG")


@enforces
@on_disk
def test_one_that_may_not_act_never_says_ready(site: Site) -> None:
    site.write(mode="enforce", containerd__allow_disk=False)
    with managing(site.base / "notify") as manager:
        with running(site, ready=False, NOTIFY_SOCKET=str(site.base / "notify")) as daemon:
            assert daemon.process.wait(PATIENCE) == 77
        manager.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            manager.receive("READY")


@pytest.mark.parametrize("kind", ["stale", "full"])
@pytest.mark.fault("NOTIFY_SOCKET missing, stale, full")
def test_a_manager_that_does_not_hear_holds_nothing_up(site: Site, kind: str) -> None:
    with managing(site.base / "notify") as manager:
        if kind == "stale":
            manager.socket.close()
        else:
            _fill(site.base / "notify")
        with running(
            site, NOTIFY_SOCKET=str(site.base / "notify"), WATCHDOG_USEC="200000"
        ) as daemon:
            assert daemon.ask("/livez")[0] == 200
            code, seconds = daemon.end()
            assert code == 0
            assert seconds < 5


def _fill(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            while True:
                sender.sendto(b"STATUS=full", str(path))
        except BlockingIOError:
            pass
