"""A sink for log lines that never waits: a reader that stalls costs records, not time.

Lines flow in, bytes leave on a file descriptor. A pipe nobody reads, a terminal stopped with
Ctrl-S or a journal that is not keeping up must not hold up a cleanup, so a line that cannot be
written now is dropped and counted, and the count is told with the next line that gets through.
The descriptor's flags are left alone: ``O_NONBLOCK`` would be shared with whoever else has it.

A service's standard error is a socket of journald's, and ``JOURNAL_STREAM`` names it by device and
inode. A line that begins with ``<N>`` has the level N of syslog(3) then, for `journalctl -p`
(systemd.exec(5)). Anywhere else the prefix would only be in the way.
"""

import os
import select
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from typing_extensions import override

_PIECE: Final = 4096
"""PIPE_BUF: after POLLOUT a write of this size to a pipe does not block (pipe(7))."""


class Sink(Protocol):
    """Takes finished lines."""

    def write(self, line: str) -> None:
        """Write one line without its newline, or drop it."""
        ...


class DescriptorSink(Sink):
    """Writes lines to a file descriptor, standard error by default.

    Attributes:
        dropped: Lines dropped since the last one that got through.
    """

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        """Set up.

        Args:
            descriptor: Where to write.
            lost: Makes the line that tells how many were dropped.
        """
        self._descriptor = descriptor
        self._lost = lost
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.dropped = 0

    @override
    def write(self, line: str) -> None:
        """Write one line, or count it as dropped if it would have to wait."""
        if not self._finish() or not self._ready():
            self.dropped += 1
            return
        notice = _encode(self._lost(self.dropped)) if self.dropped else b""
        self.dropped = 0
        self._rest = notice + _encode(line)
        self._finish(is_ready=True)

    def _ready(self) -> bool:
        return any(event & select.POLLOUT for _, event in self._poll.poll(0))

    def _finish(self, *, is_ready: bool = False) -> bool:
        """Write what is left of a line begun earlier; True if nothing is left.

        ``is_ready``: the descriptor has just said that a piece can be written.
        """
        while self._rest:
            if not (is_ready or self._ready()):
                return False
            is_ready = False
            try:
                written = os.write(self._descriptor, self._rest[:_PIECE])
            except BlockingIOError:  # somebody else made the descriptor non-blocking
                return False
            except OSError:  # the reader is gone: nobody can be told
                self._rest = b""
                return True
            self._rest = self._rest[written:]
        return True


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7
"""Levels as syslog(3) numbers them."""


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a descriptor is the journal's own and was not redirected elsewhere."""
    said = environ.get("JOURNAL_STREAM")
    if not said:
        return False
    try:
        there = os.fstat(descriptor)
    except OSError:
        return False
    return said == f"{there.st_dev}:{there.st_ino}"


def prefix(level: int, descriptor: int = 2) -> str:
    """Give what a line of this level begins with on this descriptor."""
    return f"<{level}>" if is_journal(descriptor) else ""
