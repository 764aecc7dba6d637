"""Client: the pool's handles on the fork server and its workers. It does no file work.

Everything it sends is small and never waited for; everything it receives is read when somebody
waits for an answer. So it needs no task of its own, and nothing wakes without a job.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec

import reconciler
from reconciler.errors import InvariantError
from reconciler.worker.channel import OF_THE_PARENT, Channel, LostError, ProgressFile
from reconciler.worker.messages import (
    Exited,
    FromWorker,
    Interrupt,
    Job,
    Kill,
    Spawn,
    ToForkServer,
    ToWorker,
    WorkerScope,
)

_END_SECONDS: Final = 0.8  # twice at most: with the time for a stop, less than five seconds

FROM_FORK_SERVER: Final[msgspec.msgpack.Decoder[Exited]] = msgspec.msgpack.Decoder(Exited)
FROM_WORKER: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)


class WorkerHandle:
    """One worker: give it a message, wait for its answers, end it.

    Attributes:
        number: Its number with the fork server that made it, never used twice.
        pid: Known once it has said hello.
        exited: How it ended, once the fork server has said so.
        send: Sends without waiting; raises LostError if the worker has ended.
    """

    def __init__(
        self, server: "ForkServerClient", number: int, sock: socket.socket, progress: ProgressFile
    ) -> None:
        self.server = server
        self.number = number
        self.progress = progress
        self.pid: int | None = None
        self.exited: Exited | None = None
        self._channel = Channel(sock, FROM_WORKER)
        self.send: Callable[[ToWorker], None] = self._channel.send

    async def receive(self) -> FromWorker | None:
        """Wait for its next message; None if it has ended."""
        while (message := self._channel.pending()) is None:
            await anyio.wait_readable(self._channel.socket)
            if self._channel.fill() is False:
                return None
        return message

    def interrupt(self) -> None:
        """Ask it to stop at the next entry boundary."""
        self.server.send(Interrupt(self.number))

    def end(self) -> None:
        """End it at once, whatever it does, and forget it; no matter if it has ended."""
        self.server.refresh()
        if not self.server.lost and self.exited is None:
            self.server.dying.add(self.number)
            self.server.send(Kill(self.number))
        self.release()

    def is_dying(self) -> bool:
        """Return whether it was ended and is still there, for the kernel does not let it die."""
        self.server.refresh()
        return not self.server.lost and self.number in self.server.dying

    async def why_ended(self, seconds: float) -> str:
        """Say in words why it has ended; waits a moment for the fork server's word."""
        with anyio.move_on_after(seconds):
            await self.server.wait_for_end(self)
        if self.exited is not None:
            return _in_words(self.exited)
        return "the fork server died" if self.server.lost else "it closed its channel"

    def release(self) -> None:
        """Let it go: it ends when it next waits for a job."""
        self._channel.socket.close()
        self.progress.close()
        self.server.workers.pop(self.number, None)


class ForkServerClient:
    """The fork server and what it said about its workers.

    Attributes:
        scope: Where its workers may work.
        lost: It is gone; start another.
        workers: Those that were not released, by number.
        dying: Numbers of workers that were ended and whose end was not reported yet: a process in
            D state stays here until its system call returns.
    """

    def __init__(self, scope: WorkerScope) -> None:
        ours, theirs = _socketpair()
        with theirs:
            self._process = _launch(theirs)
        self._channel = Channel(ours, FROM_FORK_SERVER)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._made = 0
        self.scope = scope
        self.pid = self._process.pid
        self.lost = False
        self.workers: dict[int, WorkerHandle] = {}
        self.dying: set[int] = set()
        self.send(scope)

    def spawn(self, job: Job) -> WorkerHandle:
        """Have a worker made, and send it its first job at once.

        Raises:
            LostError: The fork server is gone.
            OSError: No more descriptors are allowed.
        """
        progress = ProgressFile(os.memfd_create("progress"))
        self._made += 1
        try:
            ours, theirs = _socketpair()
        except OSError:
            progress.close()
            raise
        worker = self.workers[self._made] = WorkerHandle(self, self._made, ours, progress)
        with theirs, ExitStack() as undo:
            undo.callback(worker.release)
            self._send(Spawn(worker.number), [theirs.fileno(), progress.fd])
            worker.send(job)
            undo.pop_all()
        return worker

    def send(self, message: WorkerScope | Interrupt | Kill) -> None:
        """Send an order; if the fork server is gone its workers die with it."""
        with suppress(LostError):
            self._send(message)

    def _send(self, message: ToForkServer, fds: Sequence[int] = ()) -> None:
        try:
            self._channel.send(message, fds)
        except LostError:
            self.lost = True
            raise

    def refresh(self) -> None:
        """Take in what it has said so far."""
        while not self.lost:
            got = self._channel.fill()
            if got is None:
                return
            self.lost = not got
            while (message := self._channel.pending()) is not None:
                self.dying.discard(message.worker)
                if message.worker in self.workers:
                    self.workers[message.worker].exited = message

    async def wait_for_end(self, worker: WorkerHandle) -> None:
        """Wait until it has said how this worker ended, or is gone itself."""
        while not self.lost and worker.exited is None:
            await anyio.wait_readable(self._channel.socket)
            self.refresh()

    def abandon(self) -> None:
        """End a fork server that does not answer; its workers die with it."""
        self.lost = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # ours and not reaped: it is there

    async def ended(self) -> None:
        """Wait until it has ended."""
        handle = os.dup(self._pidfd)  # another may wait for the first one
        try:
            await anyio.wait_readable(handle)
        finally:
            os.close(handle)

    async def close(self) -> None:
        """End it and with it every worker; waits a moment for that."""
        self.lost = True
        self._channel.socket.close()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_END_SECONDS) as waited:
                await anyio.wait_readable(self._pidfd)
            if waited.cancelled_caught:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                with anyio.move_on_after(_END_SECONDS):
                    await anyio.wait_readable(self._pidfd)
        self._process.poll()
        os.close(self._pidfd)


def serving(scope: WorkerScope, early: ForkServerClient | None) -> ForkServerClient:
    """Give the fork server that was started early, or start one.

    Raises:
        InvariantError: The early one was started for another tree.
    """
    if early is None:
        return ForkServerClient(scope)
    if early.scope != scope:
        raise InvariantError("the fork server was started for another tree")
    return early


def _socketpair() -> tuple[socket.socket, socket.socket]:
    """Make a connected pair: ours never waits, theirs does."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.0)
    return ours, theirs


def _launch(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the fork server: nothing of ours but the socket, no terminal, no directory kept busy.

    ``-P`` keeps the working directory out of the import path; the very package that runs here is
    what it imports. A service manager's SIGTERM is for all processes of the service: until it
    ignores that, which is after its imports, it is to wait.
    """
    home = str(Path(reconciler.__file__).parent.parent)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "reconciler.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": home, "HOME": "/"},
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_words(exited: Exited) -> str:
    if exited.trouble:
        return exited.trouble
    if exited.code < 0:
        return f"killed by {signal.Signals(-exited.code).name}"
    return f"exited with code {exited.code}"
