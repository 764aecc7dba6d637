"""Zygote: the one process that makes, ends and reaps the children that do file work.

It forks them from an interpreter that has loaded everything, so a child costs a millisecond and
shares its memory. It touches no file itself and so cannot hang. Being their parent it can end a
child without any race about pids. When the daemon is gone, however it went, its control socket
ends, and then the zygote ends its children and itself.
"""

import os
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, assert_never

from reconciler.act.channel import (
    Bounds,
    Exited,
    Interrupt,
    Kill,
    Link,
    MessageError,
    Slate,
    Spawn,
    ToZygote,
    zygote_hears,
)

_REAP_SECONDS: Final = 0.5
"""How long the end waits for killed children; one in D state dies when the kernel lets it."""


@dataclass(frozen=True, slots=True)
class _Child:
    slot: int
    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class Given:
    """What a child is given: where jobs come from, where it notes its progress, and its bounds."""

    socket: socket.socket
    slate: Slate
    bounds: Bounds | None


class Zygote:
    """The zygote's loop. It ends when the control socket does."""

    def __init__(self, control: socket.socket) -> None:
        self._link: Link[ToZygote] = Link(control, zygote_hears())
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, _Child] = {}  # by pidfd
        self._bounds: Bounds | None = None

    def run(self) -> Given | None:
        """Serve until the parent is gone.

        Returns:
            None at the end; in a child, which returns from here at once, what it was given.
        """
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(self._children[fd])
                elif not self._link.fill():
                    self._end()
                    return None
            for message in self._messages():
                job = self._obey(message)
                if job is not None:
                    return job

    def _messages(self) -> Iterator[ToZygote]:
        while (message := self._link.pending()) is not None:
            yield message

    def _obey(self, message: ToZygote) -> Given | None:
        match message:
            case Bounds():
                self._bind(message)
            case Spawn(slot=slot):
                return self._spawn(slot, self._link.fds.pop(0), self._link.fds.pop(0))
            case Interrupt(slot=slot):
                self._signal(slot, signal.SIGTERM)
            case Kill(slot=slot):
                self._signal(slot, signal.SIGKILL)
            case _:
                assert_never(message)
        return None

    def _bind(self, bounds: Bounds) -> None:
        """Take the bounds of all children to come; there is no other word on that later."""
        if self._bounds is not None:
            raise MessageError("told a second time where to work")
        self._bounds = bounds

    def _spawn(self, slot: int, job: int, slate: int) -> Given | None:
        """Fork a child; only the child gets something back."""
        try:
            pid = os.fork()
        except OSError as error:  # no more processes are allowed
            self._say(Exited(slot, 0, f"cannot make a worker: {error.strerror}"))
            pid = -1
        if pid == 0:
            self._forget_everything()
            return Given(socket.socket(fileno=job), Slate(slate), self._bounds)
        os.close(job)  # before the next call, which needs a descriptor
        os.close(slate)
        if pid > 0:
            child = _Child(slot, pid, os.pidfd_open(pid))
            self._children[child.pidfd] = child
            self._poll.register(child.pidfd, select.POLLIN)
        return None

    def _forget_everything(self) -> None:
        """Drop what a child must not hold: the control socket and handles on its siblings."""
        self._link.socket.close()
        for fd in (*self._children, *self._link.fds):
            os.close(fd)
        self._children.clear()

    def _signal(self, slot: int, number: signal.Signals) -> None:
        for child in self._children.values():
            if child.slot == slot:
                signal.pidfd_send_signal(child.pidfd, number)  # not reaped yet: it is there

    def _reap(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.pidfd]
        self._say(Exited(child.slot, os.waitstatus_to_exitcode(status)))

    def _say(self, message: Exited) -> None:
        try:
            self._link.send(message)
        except OSError:
            return  # the parent is going; the loop hears of it next

    def _end(self) -> None:
        """Kill every child and reap those that die at once."""
        self._poll.unregister(self._link.socket)
        for child in self._children.values():
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        while self._children:
            ready = self._poll.poll(_REAP_SECONDS * 1000)
            if not ready:
                return
            for fd, _ in ready:
                self._reap(self._children[fd])
