"""Worker: the privileged half of the program, ``python -m reconciler.act.worker FD``.

The module's process is the zygote; what it forks serves jobs, one at a time, until its socket
closes or it has been idle for a while. It decides nothing by itself: it judges again what the
parent judged, by the same rules, and does less than it was asked for, never more. It works in the
tree it was bound to at the start, and runs no other runc, whatever it is told later.

It gives up every capability that no cleanup needs. The bounding set stays what the service manager
made it, because poststop hooks run below it and may need more: a unit that grants that
(contrib/systemd/poststop-hooks.conf) grants it to runc and its hooks, not to the worker's calls.

It imports only what file work needs (no event loop, no logging, no gRPC), because a daemon and a
test pay its start; the parent is never imported from here.
"""

import gc
import os
import select
import signal
import socket
import sys
from typing import Final, assert_never

from reconciler import kernel
from reconciler.act.channel import (
    VERSION,
    AskDelete,
    Bounds,
    CleanJob,
    Deleted,
    Done,
    FinishJob,
    Hello,
    Job,
    KillJob,
    Link,
    Locked,
    LockJob,
    LookJob,
    Manner,
    MessageError,
    Slate,
    StandJob,
    SweepJob,
    Swept,
    ToChild,
    child_hears,
)
from reconciler.act.orphans import end_orphan
from reconciler.act.reference import metadata_lock
from reconciler.act.standing import measure
from reconciler.act.steps import clean, finish
from reconciler.act.workplace import Workplace
from reconciler.act.zygote import Given, Zygote
from reconciler.clock import SystemClock
from reconciler.kernel import confine
from reconciler.probe.privileges import WORKER, numbers

IDLE_SECONDS: Final = 20.0
"""A child without a job ends after this long; the zygote stays."""


class Flag:
    """Whether we were told to stop. Set by a signal, asked at every entry boundary."""

    def __init__(self) -> None:
        self._is_set = False

    def raised(self, number: int = 0, frame: object = None) -> None:  # noqa: ARG002 -- a handler
        """Set it; can be installed as a signal handler."""
        self._is_set = True

    def lower(self) -> None:
        """Forget about it: it was meant for an earlier job."""
        self._is_set = False

    def __call__(self) -> bool:
        """Tell whether it is set."""
        return self._is_set


class Server:
    """One child: serves jobs from its socket.

    Args:
        job: The socket.
        slate: Where progress is noted.
        bounds: Where it may work; None lets it do nothing but sweep.
    """

    def __init__(self, job: socket.socket, slate: Slate, bounds: Bounds | None) -> None:
        self._socket = job
        self._link: Link[ToChild] = Link(job, child_hears())
        self._bounds = bounds
        self._stop = Flag()
        state = bounds.layout.state if bounds is not None else None
        self._place = Workplace(SystemClock(), slate.write, self._ask_delete, self._stop, state)

    def run(self) -> None:
        """Serve until nobody wants anything any more."""
        signal.signal(signal.SIGTERM, self._stop.raised)
        self._link.send(Hello(VERSION, os.getpid()))
        while (message := self._next()) is not None:
            match message:
                case Deleted():
                    raise MessageError("an answer without a question")
                case _:
                    self._stop.lower()
                    self._serve(message)

    def _next(self) -> ToChild | None:
        """Wait for a job. When idle too long, refuse further ones first, then look once more."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(IDLE_SECONDS * 1000):
            self._socket.shutdown(socket.SHUT_RD)
        return self._link.receive()

    def _serve(self, job: Job) -> None:
        if not isinstance(job, SweepJob):
            self._check(job.manner)
        match job:
            case CleanJob():
                self._link.send(Done(clean(self._place, job)))
            case KillJob():
                self._link.send(Done(end_orphan(self._place, job)))
            case FinishJob():
                self._link.send(Done(finish(self._place, job)))
            case SweepJob():
                self._link.send(Swept(self._place.sweep(anew=True)))
            case StandJob():
                swept = self._place.sweep_for_shims(anew=True)
                self._link.send(measure(job.manner.layout, swept.shims))
            case LockJob():
                self._link.send(Locked(metadata_lock(job.manner.layout, owner=job.owner)))
            case LookJob():
                self._link.send(self._place.look(job))
            case _:
                assert_never(job)

    def _check(self, manner: Manner) -> None:
        """Work nowhere but where the parent said when it had heard nothing from outside yet."""
        if self._bounds is None or not self._bounds.hold(manner):
            raise MessageError("a job out of bounds")

    def _ask_delete(self) -> str | None:
        self._link.send(AskDelete())
        match self._link.receive():
            case Deleted(trouble=trouble):
                return trouble
            case None:
                sys.exit(0)  # the parent is gone
            case other:
                raise MessageError(f"no answer but {type(other).__name__}")


def _serve_child(given: Given, zygote: int) -> None:
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != zygote:
        return  # it was gone before the kernel was told
    try:
        Server(given.socket, given.slate, given.bounds).run()
    except (BrokenPipeError, ConnectionResetError):
        return  # nobody listens any more: stop where we are, the next run goes on


def main() -> None:
    """Be the zygote; return when the parent is gone or, in a child, when its jobs are done."""
    control = socket.socket(fileno=int(sys.argv[1]))
    confine.drop_capabilities(numbers(WORKER), bounding=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them, and closes our sockets
    gc.collect()
    gc.freeze()  # what is loaded stays shared with every child
    zygote = os.getpid()
    given = Zygote(control).run()
    if given is not None:
        _serve_child(given, zygote)


if __name__ == "__main__":
    main()
