"""Worker: serves jobs, one at a time, until its socket closes or it has been idle for a while.

It decides nothing by itself: it judges again what the parent judged, by the same rules, and does
less than it was asked for, never more. It works in the tree it was bound to at the start, and runs
no other runc: no job names either.

It imports only what file work needs (no event loop, no logging, no gRPC), because a daemon and a
test pay its start; the parent is never imported from here.
"""

import os
import select
import signal
import socket
import sys
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState, lock_holder
from reconciler.probe.namespaces import peer_pid
from reconciler.probe.owner import Vouchers, doubt_about_root
from reconciler.worker.channel import Channel, LostError, MessageError, ProgressFile
from reconciler.worker.context import WorkerContext
from reconciler.worker.inventory import take
from reconciler.worker.messages import (
    VERSION,
    AskDelete,
    CleanJob,
    Counted,
    DebrisDone,
    DebrisJob,
    Deleted,
    Done,
    EndShimJob,
    EndWedgedJob,
    FinishJob,
    Hello,
    InventoryJob,
    Job,
    KillJob,
    Locked,
    LockJob,
    LookJob,
    PingJob,
    PreflightJob,
    ScanJob,
    Scanned,
    ToWorker,
    WorkerScope,
)
from reconciler.worker.orphans import end_orphan
from reconciler.worker.preflight import CONNECT_SECONDS, Timed, measure
from reconciler.worker.steps import clean, finish

IDLE_SECONDS: Final = 20.0
"""A worker without a job ends after this long; the fork server stays."""

DECODER: Final[msgspec.msgpack.Decoder[ToWorker]] = msgspec.msgpack.Decoder(ToWorker)


class Worker:
    """One worker: serves jobs from its socket, and notes its progress."""

    def __init__(self, job: socket.socket, progress: ProgressFile, scope: WorkerScope) -> None:
        self._channel = Channel(job, DECODER)
        self._layout = scope.layout
        self._is_stop_requested = False
        self._place = WorkerContext(
            scope, SystemClock(), progress.write, self._ask_delete, lambda: self._is_stop_requested
        )

    def run(self) -> None:
        """Serve until nobody wants anything any more."""
        signal.signal(signal.SIGTERM, self._stop)
        self._channel.send(Hello(VERSION, os.getpid()))
        while (message := self._next()) is not None:
            match message:
                case Deleted():
                    raise MessageError("an answer without a question")
                case _:
                    self._is_stop_requested = False  # that was meant for an earlier job
                    self._serve(message)

    def _stop(self, _number: int, _frame: object) -> None:
        self._is_stop_requested = True

    def _next(self) -> ToWorker | None:
        """Wait for a job. When idle too long, refuse further ones first, then look once more."""
        poll = select.poll()
        poll.register(self._channel.socket, select.POLLIN)
        if not poll.poll(IDLE_SECONDS * 1000):
            self._channel.socket.shutdown(socket.SHUT_RD)
        return self._channel.receive()

    def _serve(self, job: Job) -> None:  # noqa: C901, PLR0912 - one case each
        match job:
            case CleanJob():
                self._channel.send(Done(clean(self._place, job)))
            case KillJob():
                self._channel.send(Done(end_orphan(self._place, job)))
            case EndShimJob():
                from reconciler.worker.abandoned import end_abandoned  # a job of few nodes

                self._channel.send(Done(end_abandoned(self._place, job)))
            case EndWedgedJob():
                from reconciler.worker.wedged import end_wedged  # likewise

                self._channel.send(Done(end_wedged(self._place, job)))
            case PingJob():
                from reconciler.worker.wedged import ask_shims  # likewise

                self._channel.send(ask_shims(self._place, job))
            case FinishJob():
                self._channel.send(Done(finish(self._place, job)))
            case DebrisJob():
                from reconciler.worker import debris  # here: every worker would pay for it

                self._channel.send(DebrisDone(debris.clean(self._place, job)))
            case ScanJob():
                self._channel.send(Scanned(self._place.scan(anew=True)))
            case InventoryJob():
                self._channel.send(Counted(take(self._place)))
            case PreflightJob():
                timed = Timed(self._place.clock, self._place.note)
                with timed.part("the pass over /proc"):
                    scanned = self._place.scan_for_shims(anew=True)
                self._channel.send(measure(self._layout, scanned.shims, timed))
            case LockJob():
                lock = metadata_lock(self._layout, job.vouchers, owner=job.owner)
                self._channel.send(Locked(lock, job.vouchers))
            case LookJob():
                self._channel.send(self._place.look(job))
            case _:
                assert_never(job)

    def _ask_delete(self) -> str | None:
        self._channel.send(AskDelete())
        match self._channel.receive():
            case Deleted(trouble=trouble):
                return trouble
            case None:
                sys.exit(0)  # the parent is gone
            case other:
                raise MessageError(f"no answer but {type(other).__name__}")


def metadata_lock(layout: Layout, vouchers: Vouchers | None = None, *, owner: bool = False) -> Lock:
    """Tell who holds containerd's metadata lock; first of all its socket's owner is asked.

    Of a free one, too, if ``owner``, whether it is that of the tree's own containerd.
    """
    pid = peer_pid(layout.address, CONNECT_SECONDS)
    lock = lock_holder(layout.metadata_lock, likely=(pid,) if pid else ())
    if not owner or lock.state is not LockState.FREE:
        return lock
    doubt = doubt_about_root(layout, vouchers)
    # That took its time, in which containerd may have come.
    lock = lock_holder(layout.metadata_lock, likely=(pid,) if pid else ())
    return replace(lock, doubt=doubt) if lock.state is LockState.FREE else lock


def serve(job: socket.socket, progress: ProgressFile, scope: WorkerScope, parent: int) -> None:
    """Be a worker until nobody wants anything any more, or the fork server, its parent, ends."""
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return  # it was gone before the kernel was told
    try:
        Worker(job, progress, scope).run()
    except LostError:
        return  # nobody listens any more: stop where we are, the next run goes on
