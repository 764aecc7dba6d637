"""Processes by pid and start time, so that a reused pid is never mistaken for the one that was."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

PATIENCE: Final = 20.0
"""Seconds after which what should have happened is taken not to happen any more."""

_STATE, _PARENT, _START = 2, 3, 21  # fields of /proc/PID/stat, counted from 0


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process, for good.

    Attributes:
        pid: Its number.
        start: When it started, in clock ticks since the boot.
    """

    pid: int
    start: int

    @classmethod
    def at(cls, pid: int) -> Self:
        """Take the process that has this pid now; ProcessLookupError if there is none alive."""
        fields = _stat(pid)
        if fields is None or fields[_STATE] == "Z":
            raise ProcessLookupError(f"no living process {pid}")
        return cls(pid, int(fields[_START]))

    @property
    def alive(self) -> bool:
        """Whether it runs. A zombie does not, whoever forgot to reap it."""
        fields = _stat(self.pid)
        return fields is not None and fields[_STATE] != "Z" and int(fields[_START]) == self.start

    @property
    def parent(self) -> "Process":
        """Its parent."""
        fields = _stat(self.pid)
        assert fields is not None, f"{self} is gone"
        return Process.at(int(fields[_PARENT]))

    @property
    def cmdline(self) -> list[str]:
        """Its arguments; none if it is gone."""
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")]

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is dead."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:
                return
            with suppress(ProcessLookupError):  # it was reaped just now
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            ready, _, _ = select.select([pidfd], [], [], PATIENCE)
            assert ready, f"{self} {self.cmdline} did not die"
        finally:
            os.close(pidfd)


def everyone() -> Iterator[Process]:
    """Go through all living processes."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield Process.at(int(name))
            except ProcessLookupError:
                continue


def kill_all(processes: Iterable[Process]) -> None:
    """Send SIGKILL to all of them first, as a crash does, then wait for each."""
    doomed = list(processes)
    for process in doomed:
        if process.alive:
            os.kill(process.pid, signal.SIGKILL)
    for process in doomed:
        process.kill()


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition, and fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        select.select([], [], [], 0.005)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name_begin, name_end = text.index("("), text.rindex(")")
    return [text[:name_begin].strip(), text[name_begin:name_end], *text[name_end + 1 :].split()]
