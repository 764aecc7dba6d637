"""Telling how the daemon is: the log, and the service manager (sd_notify(3)).

What the service manager gets never blocks or fails us: one datagram of ``KEY=value`` lines to the
socket in ``NOTIFY_SOCKET``; an address that begins with ``@`` is abstract. A manager that is gone,
stale or slow is not our problem.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

from reconciler.ports import Clock
from reconciler.present.events import LogEvent
from reconciler.present.formatting import iso
from reconciler.telemetry.lazy import FilteringBoundLogger

MICROSECONDS: Final = 1_000_000


class ServiceLog:
    """Writes the daemon's own lines, beside those about bundles and in the same form."""

    def __init__(self, logger: FilteringBoundLogger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock

    def report(self, event: LogEvent, **fields: object) -> None:
        """Say what goes on."""
        self._logger.info(event.value, **fields, timestamp=iso(self._clock.wall()))

    def warn(self, event: LogEvent, **fields: object) -> None:
        """Say what is wrong."""
        self._logger.warning(event.value, **fields, timestamp=iso(self._clock.wall()))


class Notifier:
    """Sends states to the service manager, if ``NOTIFY_SOCKET`` names one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._environment = environment
        self._socket: socket.socket | None = None
        if self._address:
            flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, flags)

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def watchdog(self) -> float | None:
        """Seconds after which a silent service is killed; None if nobody watches this process."""
        microseconds = self._environment.get("WATCHDOG_USEC", "")
        pid = self._environment.get("WATCHDOG_PID", "")
        if not microseconds.isascii() or not microseconds.isdigit() or int(microseconds) == 0:
            return None
        if pid and pid != str(os.getpid()):
            return None
        return int(microseconds) / MICROSECONDS

    def ready(self, status: str) -> None:
        """Say that start-up, or a reload, is complete."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self, mono: float) -> None:
        """Say that the configuration is read anew; ``mono`` in seconds orders it (systemd 253)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(mono * MICROSECONDS)}")

    def stopping(self, status: str, *, within: float) -> None:
        """Say that we are on our way out and may take ``within`` seconds."""
        more = f"EXTEND_TIMEOUT_USEC={int(within * MICROSECONDS)}"
        self._send("STOPPING=1", f"STATUS={_line(status)}", more)

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``."""
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        # Full, gone, or not ours: the next state will tell as well.
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)


def _line(text: str) -> str:
    return " ".join(text.split())
