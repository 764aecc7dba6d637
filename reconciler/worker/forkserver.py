"""Fork server: makes, ends and reaps the workers, ``python -m reconciler.worker FD``.

It forks them from an interpreter that has loaded everything, so a worker costs a millisecond and
shares its memory. It touches no file itself and so cannot hang. Being their parent it can end a
worker without any race about pids. When the daemon is gone, however it went, its control socket
ends, and then the fork server ends its workers and itself.

It gives up every capability that no cleanup needs. The bounding set stays what the service manager
made it, because poststop hooks run below it and may need more: a unit that grants that
(contrib/systemd/poststop-hooks.conf) grants it to runc and its hooks, not to the worker's calls.
"""

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

import msgspec

from reconciler.kernel import confine
from reconciler.probe.privileges import WORKER, numbers
from reconciler.worker.channel import (
    OF_THE_PARENT,
    Channel,
    LostError,
    MessageError,
    ProgressFile,
)
from reconciler.worker.messages import Exited, Interrupt, Kill, Spawn, ToForkServer, WorkerScope
from reconciler.worker.serve import serve

_MOST_FDS: Final = 8
_REAP_SECONDS: Final = 0.5
"""How long the end waits for killed workers; one in D state dies when the kernel lets it."""

_DECODER: Final[msgspec.msgpack.Decoder[ToForkServer]] = msgspec.msgpack.Decoder(ToForkServer)

Work = Callable[[], None]


class _Child(msgspec.Struct, frozen=True):
    number: int
    pid: int
    pidfd: int


class ForkServer:
    """The fork server's loop. It ends when the control socket does."""

    def __init__(self, control: socket.socket) -> None:
        self._channel = Channel(control, _DECODER, most_fds=_MOST_FDS)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, _Child] = {}  # by pidfd
        self._scope: WorkerScope | None = None

    def run(self) -> Work | None:
        """Serve until the parent is gone.

        Returns:
            None at the end; in a worker, which returns from here at once, what it is to do.
        """
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(self._children[fd])
                elif not self._channel.fill():
                    self._end()
                    return None
            while (message := self._channel.pending()) is not None:
                work = self._obey(message)
                if work is not None:
                    return work

    def _obey(self, message: ToForkServer) -> Work | None:
        match message:
            case WorkerScope():
                self._bind(message)
            case Spawn(worker=number):
                return self._spawn(number, self._channel.fds.pop(0), self._channel.fds.pop(0))
            case Interrupt(worker=number):
                self._signal(number, signal.SIGTERM)
            case Kill(worker=number):
                self._signal(number, signal.SIGKILL)
            case _:
                assert_never(message)
        return None

    def _bind(self, scope: WorkerScope) -> None:
        """Take the scope of all workers to come; there is no other word on that later."""
        if self._scope is not None:
            raise MessageError("told a second time where to work")
        self._scope = scope

    def _spawn(self, number: int, job: int, progress: int) -> Work | None:
        """Fork a worker; only the worker gets something back."""
        if self._scope is None:
            raise MessageError("not told where to work")
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no more processes are allowed
            self._say(Exited(number, 0, f"cannot make a worker: {error.strerror}"))
            pid = -1
        if pid == 0:
            self._forget_everything()
            sock, file = socket.socket(fileno=job), ProgressFile(progress)
            return partial(serve, sock, file, self._scope, parent=server)
        os.close(job)  # before the next call, which needs a descriptor
        os.close(progress)
        if pid > 0:
            child = _Child(number, pid, os.pidfd_open(pid))
            self._children[child.pidfd] = child
            self._poll.register(child.pidfd, select.POLLIN)
        return None

    def _forget_everything(self) -> None:
        """Drop what a worker must not hold: the control socket and handles on its siblings."""
        self._channel.socket.close()
        for fd in (*self._children, *self._channel.fds):
            os.close(fd)
        self._children.clear()

    def _signal(self, number: int, signal_: signal.Signals) -> None:
        for child in self._children.values():
            if child.number == number:
                signal.pidfd_send_signal(child.pidfd, signal_)  # not reaped yet: it is there

    def _reap(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.pidfd]
        self._say(Exited(child.number, os.waitstatus_to_exitcode(status)))

    def _say(self, message: Exited) -> None:
        try:
            self._channel.send(message)
        except (LostError, OSError):
            return  # the parent is going; the loop learns of it next

    def _end(self) -> None:
        """Kill every worker and reap those that die at once."""
        self._poll.unregister(self._channel.socket)
        for child in self._children.values():
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        while self._children:
            ready = self._poll.poll(_REAP_SECONDS * 1000)
            if not ready:
                return
            for fd, _ in ready:
                self._reap(self._children[fd])


def main() -> None:
    """Be the fork server until the parent is gone or, in a worker, until its jobs are done."""
    control = socket.socket(fileno=int(sys.argv[1]))
    confine.drop_capabilities(numbers(WORKER), bounding=False)
    for number in OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_THE_PARENT)  # blocked by who started us
    gc.collect()
    gc.freeze()  # what is loaded stays shared with every worker
    gc.enable()
    work = ForkServer(control).run()
    if work is not None:
        work()


if __name__ == "__main__":
    main()
