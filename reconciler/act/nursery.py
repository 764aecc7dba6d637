"""Nursery: the parent's handle on the zygote and its children. It does no file work.

Everything it sends is small and never waited for; everything it hears is read when somebody waits
for an answer. So it needs no task of its own and nothing wakes while there is nothing to do.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

import reconciler
from reconciler.act.channel import (
    Bounds,
    Exited,
    FromChild,
    Interrupt,
    Kill,
    Message,
    Slate,
    Spawn,
    ToChild,
    ToZygote,
    Unpacker,
    pack,
    parent_hears_child,
    parent_hears_zygote,
)

_CHUNK: Final = 1 << 16
_END_SECONDS: Final = 0.8  # twice at most: with the time for a stop, less than five seconds


class LostError(Exception):
    """The other process is gone or does not listen any more."""


class Child:
    """One worker process: give it a message, wait for its answers.

    Attributes:
        slot: Its number, never used twice.
        pid: Known once it has said hello.
        slate: Where it notes its progress.
    """

    def __init__(self, slot: int, sock: socket.socket, slate: Slate) -> None:
        self.slot = slot
        self.slate = slate
        self.pid: int | None = None
        self._socket = sock
        self._unpacker: Unpacker[FromChild] = parent_hears_child()

    def send(self, message: ToChild) -> None:
        """Send without waiting; raises LostError if the child has ended."""
        _send(self._socket, message)

    async def receive(self) -> FromChild | None:
        """Wait for its next message; None if it has ended."""
        while (message := self._unpacker.next()) is None:
            await anyio.wait_readable(self._socket)
            data = _read(self._socket)
            if data is None:
                continue
            if not data:
                return None
            self._unpacker.feed(data)
        return message

    def close(self) -> None:
        """Let it go: it ends when it next waits for a job."""
        self._socket.close()
        self.slate.close()


class Nursery:
    """The zygote and what it said about its children.

    Args:
        bounds: Where its children may work.

    Attributes:
        pid: The zygote's pid.
        lost: The zygote is gone; make another nursery.
        dying: Slots that were killed and whose end was not reported yet: a process in D state
            stays here until its system call returns.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._control, theirs = _socketpair()
        with theirs:
            self._process = _launch(theirs)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._unpacker: Unpacker[Exited] = parent_hears_zygote()
        self._exits: dict[int, Exited] = {}
        self._slots = 0
        self._known: set[int] = set()
        self.pid = self._process.pid
        self.lost = False
        self.dying: set[int] = set()
        self._tell_if_there(bounds)

    def spawn(self) -> Child:
        """Have a child made. It can be talked to at once.

        Raises:
            LostError: The zygote is gone.
            OSError: No more descriptors are allowed.
        """
        slate = Slate(os.memfd_create("slate"))
        self._slots += 1
        try:
            ours, theirs = _socketpair()
        except OSError:
            slate.close()
            raise
        child = Child(self._slots, ours, slate)
        with theirs:
            try:
                self._tell(Spawn(child.slot), [theirs.fileno(), slate.fd])
            except LostError:
                child.close()
                raise
        self._known.add(child.slot)
        return child

    def interrupt(self, child: Child) -> None:
        """Ask a child to stop at the next entry boundary."""
        self._tell_if_there(Interrupt(child.slot))

    def kill(self, child: Child) -> None:
        """End a child at once, whatever it does, and forget it; no matter if it has ended."""
        self.refresh()
        if not self.lost and child.slot not in self._exits:
            self.dying.add(child.slot)
            self._tell_if_there(Kill(child.slot))
        self.forget(child)

    def is_dying(self, slot: int) -> bool:
        """Tell whether a child that was killed is still there, for the kernel lets it not die."""
        self.refresh()
        return not self.lost and slot in self.dying

    def refresh(self) -> None:
        """Take in what the zygote has said so far."""
        while not self.lost:
            data = _read(self._control)
            if data is None:
                return
            if not data:
                self.lost = True
            self._unpacker.feed(data)
            while (message := self._unpacker.next()) is not None:
                self.dying.discard(message.slot)
                if message.slot in self._known:
                    self._exits[message.slot] = message

    async def why_ended(self, child: Child, seconds: float) -> str:
        """Say in words why a child has ended; waits a moment for the zygote's word."""
        with anyio.move_on_after(seconds):
            while not self.lost and child.slot not in self._exits:
                await anyio.wait_readable(self._control)
                self.refresh()
        exited = self._exits.get(child.slot)
        if exited is not None:
            return _in_words(exited)
        return "the zygote died" if self.lost else "it closed its channel"

    def forget(self, child: Child) -> None:
        """Let a child go: an idle one ends by itself."""
        child.close()
        self._known.discard(child.slot)
        self._exits.pop(child.slot, None)

    def abandon(self) -> None:
        """End a zygote that does not answer; its children die with it."""
        self.lost = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # ours and not reaped: it is there

    async def ended(self) -> None:
        """Wait until the zygote has ended."""
        handle = os.dup(self._pidfd)  # another may wait for the first one
        try:
            await anyio.wait_readable(handle)
        finally:
            os.close(handle)

    async def close(self) -> None:
        """End the zygote and with it every child; waits a moment for that."""
        self.lost = True
        self._control.close()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_END_SECONDS) as waited:
                await anyio.wait_readable(self._pidfd)
            if waited.cancelled_caught:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                with anyio.move_on_after(_END_SECONDS):
                    await anyio.wait_readable(self._pidfd)
        self._process.poll()
        os.close(self._pidfd)

    def _tell(self, message: ToZygote, fds: Sequence[int] = ()) -> None:
        try:
            _send(self._control, message, fds)
        except LostError:
            self.lost = True
            raise

    def _tell_if_there(self, message: Bounds | Interrupt | Kill) -> None:
        try:
            self._tell(message)
        except LostError:
            return  # its children die with it


def _socketpair() -> tuple[socket.socket, socket.socket]:
    """Make a connected pair: ours never waits, theirs does."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.0)
    return ours, theirs


def _launch(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the zygote: nothing of ours but the socket, no terminal, no directory kept busy.

    ``-P`` keeps the working directory out of the import path; the very package that runs here is
    what it imports.
    """
    home = str(Path(reconciler.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reconciler.act.worker", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": home, "HOME": "/"},
        start_new_session=True,
    )


def _send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a small message whole or not at all: whoever does not read it is lost."""
    data = pack(message)
    try:
        sent = socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
        raise LostError(str(error)) from error
    if sent != len(data):
        raise LostError("its channel is full")


def _read(sock: socket.socket) -> bytes | None:
    """Read what is there; None if nothing is, empty at the end."""
    try:
        return sock.recv(_CHUNK)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _in_words(exited: Exited) -> str:
    if exited.trouble:
        return exited.trouble
    if exited.code < 0:
        return f"killed by {signal.Signals(-exited.code).name}"
    return f"exited with code {exited.code}"
