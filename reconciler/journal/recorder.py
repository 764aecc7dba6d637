"""The recorder: hands the journal listener's lines to the writer process, and never waits for it.

Nothing here may delay the loop: a line goes into a bounded buffer, a task sends what the writer
takes, and what does not fit is dropped and counted; a line in the journal says how much. A thread
would not do: one that is stuck in the kernel on a dead disk keeps the whole process from ending.
A writer that hangs is left behind.
"""

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
from typing_extensions import override

from reconciler.errors import UsageError
from reconciler.journal import writer
from reconciler.journal.listener import JournalListener, origin_here
from reconciler.journal.redact import Redactor
from reconciler.journal.writer import ROTATE
from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Clock, Recorder
from reconciler.supervision import Supervisor

_BUFFER: Final = 8 << 20
"""Bytes kept for a slow writer: a relist of 100,000 bundles, or seconds of a storm."""

_PATIENCE: Final = 2.0
"""Seconds the end of a run waits for the disk."""

_FAREWELL: Final = 0.5
_PART: Final = "journal"


@dataclass(frozen=True, slots=True)
class Options:
    """Where and how to record.

    Attributes:
        path: The file; an earlier journal there is kept as ``FILE.1`` and so on.
        max_size: Bytes after which a new file is begun; None for no limit.
        keep: How many earlier files are kept.
        compress: Whether earlier files are compressed.
        redact: Whether names are replaced.
    """

    path: Path
    max_size: int | None = 64 * 1000**2
    keep: int = 4
    compress: bool = True
    redact: bool = False


class FileRecorder(Recorder):
    """Records a run into a file. Use as an asynchronous context manager around the loop.

    Attributes:
        trouble: Why the last lines could not be written; empty if all is well.
    """

    def __init__(
        self, options: Options, clock: Clock, policies: Policies, watch: Supervisor | None = None
    ) -> None:
        self._options = options
        self._watch = watch or Supervisor()
        self._clock = clock
        self._buffer = deque[bytes]()
        self._buffered = 0
        self._sent = 0  # bytes of the first line in the buffer
        self._dropped = 0
        self._missing = 0
        self._unwritten = 0
        self._reports_loss = False
        self._part_size = 0
        self._bell = anyio.Event()
        self._broken = self._ending = False
        self._received_all = anyio.Event()
        self._writer: subprocess.Popen[bytes] | None = None
        self.trouble = ""
        redactor = Redactor() if options.redact else None
        self._listener = JournalListener(origin_here(self._now(), policies), self._take, redactor)

    @property
    def lost(self) -> int:
        """How many records are missing in the journal."""
        return self._listener.lost + self._dropped + self._unwritten

    def _now(self) -> Stamp:
        return Stamp(self._clock.monotonic(), self._clock.wall())

    # ------------------------------------------------------------------ listening

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        self._listener.observed(stamp, observation)
        self._bell.set()

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        self._listener.decided(stamp, decision)

    @override
    def advanced(self, stamp: Stamp) -> None:
        self._listener.advanced(stamp)
        self._bell.set()

    @override
    def configured(self, stamp: Stamp, policies: Policies) -> None:
        self._listener.configured(stamp, policies)
        self._bell.set()

    @override
    def missed(self) -> None:
        self._listener.missed()
        self.trouble = "the recorder failed"
        self._bell.set()

    # ------------------------------------------------------------------ the buffer

    def _take(self, line: bytes) -> None:
        """Keep a line for the writer; called by the journal listener."""
        if self._buffered + len(line) > _BUFFER or self._broken:
            self._drop(line, "the disk did not keep up")
            return
        if self._missing or self._reports_loss:
            lost, self._missing, self._reports_loss = self._missing, 0, False
            line = self._listener.missing(lost, self.trouble or "the writer lost lines") + line
        limit = self._options.max_size
        if limit is not None and self._part_size > limit:
            self._part_size = 0
            self._push(line)
            line = ROTATE + self._listener.header(self._now())
        self._push(line)

    def _push(self, line: bytes) -> None:
        self._buffer.append(line)
        self._buffered += len(line)
        self._part_size += len(line)

    def _drop(self, lines: bytes, why: str) -> None:
        self._dropped += writer.records(lines)
        self._missing += writer.missing(lines)
        self.trouble = why
        self._listener.begin_anew()

    # ------------------------------------------------------------------ the writer

    async def __aenter__(self) -> Self:
        """Start the writer."""
        self._start_writer()
        self._tasks = await anyio.create_task_group().__aenter__()
        if not self._broken:
            self._tasks.start_soon(self._until_it_fails, self._send)
            self._tasks.start_soon(self._until_it_fails, self._receive)
        self._bell.set()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left, for a moment; a writer that hangs is left behind."""
        with anyio.move_on_after(_PATIENCE, shield=True):
            await self._drain()
        self._tasks.cancel_scope.cancel()
        try:
            # The run's own error is none of the tasks': it must come out as it is, in no group.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._link.close()
            with anyio.CancelScope(shield=True):
                await self._bury()

    def _start_writer(self) -> None:
        self._link, theirs = socket.socketpair()
        self._link.setblocking(False)  # noqa: FBT003 - the standard library's
        options = self._options
        words = [os.fsdecode(options.path), str(options.keep), "1" if options.compress else "0"]
        with theirs:
            try:
                self._writer = subprocess.Popen(
                    [sys.executable, "-I", "-S", writer.__file__, *words],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                self._break(f"no writer: {error.strerror}")

    async def _drain(self) -> None:
        """Send all, close our end, and wait until the writer has closed its own."""
        self._flush()
        self._ending = True
        self._bell.set()
        if not self._broken:
            await self._received_all.wait()

    async def _bury(self) -> None:
        """Take the writer's exit status; one that is stuck in the kernel is left to init."""
        if self._writer is None or self._writer.poll() is not None:
            return
        handle = os.pidfd_open(self._writer.pid)
        try:
            with anyio.move_on_after(_FAREWELL):
                await anyio.wait_readable(handle)
                self._writer.poll()
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            with anyio.move_on_after(_FAREWELL):
                await anyio.wait_readable(handle)
            if self._writer.poll() is None:
                self._writer.returncode = -signal.SIGKILL
        finally:
            os.close(handle)

    async def _until_it_fails(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do one half of the talk with the writer; neither half is worth the run."""
        with self._watch.part(_PART):
            await work()
            return
        self._break("the recorder failed")
        self._received_all.set()

    def _flush(self) -> None:
        if not self._watch.call(_PART, self._listener.flush):
            self.missed()
            self._watch.call(_PART, self._listener.flush)  # the loss, if nothing follows

    async def _send(self) -> None:
        """Send what the writer takes; sleeps while there is nothing."""
        while not self._broken:
            await self._bell.wait()
            self._bell = anyio.Event()
            self._flush()
            await self._empty_buffer()
            if self._ending and not self._broken:
                self._link.shutdown(socket.SHUT_WR)
                return

    async def _empty_buffer(self) -> None:
        while self._buffer:
            line = self._buffer[0]
            try:
                sent = self._link.send(memoryview(line)[self._sent :])
            except BlockingIOError:
                await anyio.wait_writable(self._link)
                continue
            except OSError as error:
                self._break(error.strerror or "the writer is gone")
                return
            self._buffered -= sent
            self._sent += sent
            if self._sent == len(line):
                self._buffer.popleft()
                self._sent = 0

    def _break(self, why: str) -> None:
        """Give up: the writer is gone. The run goes on without a journal, and counts."""
        self._broken = True
        self._drop(b"".join(self._buffer), why)
        self._buffer.clear()
        self._buffered = 0

    async def _receive(self) -> None:
        """Receive what the writer reports about its file, until it is gone."""
        rest = b""
        while True:
            await anyio.wait_readable(self._link)
            try:
                said = self._link.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                said = b""
            if not said:
                if not self._ending:
                    self._break("the writer is gone")
                self._received_all.set()
                return
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                if line.startswith(b"why "):
                    self.trouble = line[4:].decode("utf-8", "replace")
                elif line.startswith(b"lost "):
                    self._unwritten += int(line[5:])
                    self._reports_loss = True  # the writer cannot say which policies are in force
                    self._listener.begin_anew()


@asynccontextmanager
async def recording(
    options: Options | None, clock: Clock, policies: Policies, watch: Supervisor | None = None
) -> AsyncIterator[tuple[FileRecorder, ...]]:
    """Record for as long as it is open, if that is wanted; gives the recorders for the loop."""
    if options is None:
        yield ()
        return
    async with FileRecorder(options, clock, policies, watch) as recorder:
        yield (recorder,)


def is_being_written(path: Path) -> bool:
    """Return whether another process writes a journal there now: a daemon, or another `record`."""
    try:
        with path.open("rb") as file:
            return not writer.take_lock(file.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def check_target(path: Path, begin: bytes = writer.MAGIC, what: str = "journal") -> None:
    """Make sure that a file of one kind may be written there, before a run begins.

    Args:
        path: The file.
        begin: How each of its kind begins.
        what: What its kind is called.

    Raises:
        UsageError: Something else is in the way, or there is no directory.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        there = _first_bytes(path, len(begin)) if is_file else b"?"
    except FileNotFoundError:
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: no such directory", "make it first") from None
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be a {what}: {error.strerror or error}") from error
    if there and there != begin:
        raise UsageError(f"{path} is there and is no {what}", "name another file")


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
