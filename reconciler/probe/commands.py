"""Command lines of shims, read by a child that can be given up: the kernel may never answer.

Reading /proc/PID/cmdline waits for a lock of that process, and for the memory its words lie in. A
process stuck in the kernel holds the one for ever, a dead filesystem keeps back the other; neither
read can be called off from within. So a child reads; whoever does not answer within its own
deadline costs that and no more, and is remembered for a while. What a running shim said is kept: a
pass over a node where nothing changed makes no child, and so gives out no pid. Reads only.
"""

import os
import select
import signal
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ENOENT, ESRCH
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.probe.process import read_stat

LIMIT: Final = 1 << 16
"""Bytes of a command line; a shim's has some hundred."""

PATIENCE: Final = 2.0
"""Seconds that one command line may take."""

_MOST_SILENT: Final = 3  # that are waited for in one pass; then the others are not asked any more
_REMEMBERED: Final = 30.0  # seconds for which one that was silent is not asked again
_MOST_LOST: Final = 8  # children that the kernel does not let die; then no other is made
_CHUNK: Final = 1 << 16
_HEAD: Final = struct.Struct("ii")
_GONE: Final = -1
_UNREADABLE: Final = -2
_SILENT: Final = -3
_MOST_STARVED: Final = 5  # deadlines that a child may get for one line while it is not let run


class Asked(NamedTuple):
    """A process and the program it runs: what comes after it under its pid is another.

    Attributes:
        pid, start: Its pid and its start time in ticks since boot.
        words: Where the kernel keeps its command line, first and last address (proc_pid_stat(5)).
            Another program's are elsewhere. None if the kernel does not tell.
    """

    pid: int
    start: int
    words: tuple[int, int] | None = None


class CommandLines:
    """Asks for command lines; knows for a while who did not answer, and for good what to keep."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._silent: dict[Asked, float] = {}
        self._kept: dict[Asked, bytes] = {}
        self._lost: set[int] = set()

    def read(
        self, proc_fd: int, wanted: Iterable[Asked], *, all_of_them: bool = True
    ) -> dict[Asked, bytes | None]:
        """Read command lines.

        Gives each that did not end meanwhile; None for one that gives no answer, or no sane one.
        What was kept of others is forgotten, unless these are not ``all_of_them``.
        """
        now = self._clock.monotonic()
        self._silent = {who: until for who, until in self._silent.items() if until > now}
        known: dict[Asked, bytes | None] = {**self._kept, **dict.fromkeys(self._silent)}
        found: dict[Asked, bytes | None] = {}
        waiting = []
        for one in wanted:
            if one in known:
                found[one] = known[one]
            else:
                waiting.append(one)
        if all_of_them:
            self._kept = {who: words for who, words in self._kept.items() if who in found}
        for _ in range(_MOST_SILENT):
            if not waiting:
                return found
            waiting = self._ask(proc_fd, waiting, found)
        return found | dict.fromkeys(waiting)

    def keep(self, who: Asked, command: bytes) -> None:
        """Keep a command line for as long as each pass asks for it and its program is the same."""
        if who.words is not None:
            self._kept[who] = command

    def _ask(
        self, proc_fd: int, waiting: list[Asked], found: dict[Asked, bytes | None]
    ) -> list[Asked]:
        """Have one child read; give those that it did not come to."""
        self._reap()
        if len(self._lost) >= _MOST_LOST:
            return waiting
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            child = os.fork()
        except OSError:  # no more processes are allowed
            os.close(ours)
            return waiting
        else:
            if child == 0:
                _serve(proc_fd, theirs, waiting)
        finally:
            os.close(theirs)
        try:
            answers = _answers(ours, child)
            rest = iter(waiting)
            for one in rest:
                answer = next(answers, None)
                if answer is None:  # the child ended or was not let run: that is nobody's fault
                    found[one] = None
                    break
                size, data = answer
                if size != _GONE:
                    found[one] = data if size >= 0 else None
                if size == _SILENT:
                    self._silent[one] = self._clock.monotonic() + _REMEMBERED
                    break
            return list(rest)
        finally:
            os.close(ours)
            self._end(child)

    def _end(self, child: int) -> None:
        with suppress(OSError):
            pidfd = os.pidfd_open(child)  # ours and not reaped: it is there
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ended = select.poll()
                ended.register(pidfd, select.POLLIN)
                ended.poll(PATIENCE * 100)
            finally:
                os.close(pidfd)
        self._lost.add(child)
        self._reap()

    def _reap(self) -> None:
        for child in tuple(self._lost):
            with suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG)[0] == 0:
                    continue
            self._lost.discard(child)


def _answers(pipe: int, child: int) -> Iterator[tuple[int, bytes]]:
    """Give answers in the order of the questions, silence if one does not come in time.

    A child that waits for a processor is not kept waiting by the one it asks: on a node with too
    much to do every shim would look stuck. It gets more time, and then nobody is blamed.
    """
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    buffer = bytearray()
    starved = 0
    while True:
        size = _HEAD.unpack_from(buffer)[1] if len(buffer) >= _HEAD.size else None
        end = _HEAD.size + max(size or 0, 0)
        if size is not None and len(buffer) >= end:
            yield size, bytes(buffer[_HEAD.size : end])
            del buffer[:end]
            continue
        if not ready.poll(PATIENCE * 1000):
            stat = read_stat(child)  # ours and not reaped: it is there
            if stat is None or stat.state != b"R":
                yield _SILENT, b""
                return
            starved += 1
            if starved >= _MOST_STARVED:
                return
            continue
        data = os.read(pipe, _CHUNK)
        if not data:
            return
        buffer += data
        starved = 0


def _serve(proc_fd: int, pipe: int, wanted: list[Asked]) -> None:
    """Be the child: read, answer, end. Holds nothing else of its parent's."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        low, high = sorted((proc_fd, pipe))
        for begin, end in ((0, low), (low + 1, high), (high + 1, 1 << 30)):
            os.closerange(begin, end)
        for one in wanted:
            size, data = _read(proc_fd, one.pid)
            os.write(pipe, _HEAD.pack(one.pid, size) + data)
    finally:
        os._exit(0)


def _read(proc_fd: int, pid: int) -> tuple[int, bytes]:
    try:
        fd = os.open(f"{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
        data = os.read(fd, LIMIT)
        os.close(fd)
    except OSError as error:
        return (_GONE if error.errno in {ENOENT, ESRCH} else _UNREADABLE), b""
    return (len(data), data) if len(data) < LIMIT else (_UNREADABLE, b"")
