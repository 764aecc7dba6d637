"""Running job: one job with one worker, from its sending to its end.

A job ends in one of three ways: an answer, a worker that died (:class:`DiedError`), or a deadline;
then the worker is killed and not waited for, because the kernel may not let it die. What is left
of it in each case becomes an Outcome here.
"""

from collections.abc import Awaitable, Callable
from typing import Final, assert_never

import anyio
import msgspec
from msgspec.structs import replace

from reconciler.model.debris import DebrisResult, Place, results_of
from reconciler.model.outcome import BlockReason, Outcome, Result, Step, StepResult
from reconciler.worker.channel import LostError, MessageError
from reconciler.worker.client import WorkerHandle
from reconciler.worker.messages import (
    VERSION,
    Answered,
    AskDelete,
    Counted,
    DebrisDone,
    Deleted,
    Done,
    FromWorker,
    Hello,
    Job,
    Locked,
    Looks,
    Pinged,
    PreflightReport,
    Progress,
    Scanned,
)

_WHY_SECONDS: Final = 0.5

AskContainerd = Callable[[Job], Awaitable[str | None]]
"""Asks containerd to delete the task of a job's bundle. Gives what went wrong, empty if nothing
did; None if there was no answer. Never raises."""


class DiedError(Exception):
    """The worker is gone, or none could be made; the message says why."""


class Limits(msgspec.Struct, frozen=True):
    """How long things may take, in seconds, and how many may hang.

    Attributes:
        job: One cleanup, all steps, hooks included.
        processes: One pass over /proc, or another question about the node.
        look: A look at one bundle where looking may hang.
        further_look: Each further one of the same job, where the place answers, but slowly.
        stop: From the request to stop until it is ended.
        delete: containerd's answer when asked to delete a task.
        dying: Killed processes that the kernel does not let die (D state); no job begins while
            there are more.
    """

    job: float = 60.0
    processes: float = 10.0
    look: float = 5.0
    further_look: float = 0.05
    stop: float = 3.0
    delete: float = 10.0
    dying: int = 32


class Attempt(msgspec.Struct, eq=False):
    """One job under way, and what was learnt of it so far.

    Attributes:
        job: What is to be done.
        progress: How far it had come when it was given up.
        worker: Who does it, once it was sent.
        scope: Cancel it and the job is not waited for any longer.
        stopped: A stop of it was requested.
        brief: Its deadline is so short that missing it says nothing about the fork server.
    """

    job: Job
    progress: Progress = msgspec.field(default_factory=Progress)
    worker: WorkerHandle | None = None
    scope: anyio.CancelScope = msgspec.field(default_factory=anyio.CancelScope)
    stopped: bool = False
    brief: bool = False

    def stop(self) -> None:
        """Have it end at the next entry boundary."""
        self.stopped = True
        if self.worker is not None:
            self.worker.interrupt()

    def is_dying(self) -> bool:
        """Return whether its worker was killed and is still there."""
        return self.worker is not None and self.worker.is_dying()

    async def finish(
        self, worker: WorkerHandle, seconds: float, delete: AskContainerd
    ) -> Answered | None:
        """Wait for a worker that was sent the job; None if it is not waited for any longer.

        A worker that gave no answer is ended.

        Raises:
            DiedError: The worker is gone.
        """
        self.worker = worker
        if self.stopped:  # while it was being sent
            worker.interrupt()
        self.scope.deadline = anyio.current_time() + seconds
        answer: Answered | None = None
        try:
            with self.scope:
                answer = await self._converse(worker, delete)
        finally:  # also when we are cancelled: nobody would learn what it does from now on
            if answer is None:
                self.progress = worker.progress.read()
                worker.end()
        if answer is None and worker.pid is None and not (self.stopped or self.brief):
            worker.server.abandon()  # in all that time it has made no worker
        return answer

    async def _converse(self, worker: WorkerHandle, delete: AskContainerd) -> Answered:
        try:
            while (message := await worker.receive()) is not None:
                answer = await self._take(message, worker, delete)
                if answer is not None:
                    return answer
        except (LostError, MessageError) as error:
            raise DiedError(str(error)) from error
        raise DiedError(await worker.why_ended(_WHY_SECONDS))

    async def _take(
        self, message: FromWorker, worker: WorkerHandle, delete: AskContainerd
    ) -> Answered | None:
        match message:
            case Hello(version=version, pid=pid):
                worker.pid = pid
                if version != VERSION:
                    raise DiedError("the program was replaced on disk while it ran; restart it")
            case AskDelete():
                worker.send(Deleted(await delete(self.job)))
            case (
                Done()
                | DebrisDone()
                | Scanned()
                | Counted()
                | PreflightReport()
                | Looks()
                | Locked()
                | Pinged()
            ):
                return message
            case _:
                assert_never(message)
        return None

    def failed(self, blank: Outcome, why: str, seconds: float) -> Outcome:
        """Give the outcome of a worker that died under the job: loud, retried."""
        began = self.progress.began
        where = f" during {began}" if began else ""
        detail = f"the worker ended before its job{where}: {why}"
        return replace(blank, detail=detail, steps=self.progress.steps, seconds=seconds)

    def cut_short(self, blank: Outcome, seconds: float) -> Outcome:
        """Give the outcome of a job that is not waited for: it hung, or a stop was requested."""
        reason = BlockReason.INTERRUPTED if self.stopped else BlockReason.HUNG
        began, done = self.progress.began, self.progress.steps
        where = began or "the start of the job"
        detail = f"{where} had not ended after {seconds:.1f} s and the worker was killed"
        steps = (*done, Step(began, StepResult.BLOCKED, reason.value)) if began else done
        return replace(
            blank, result=Result.BLOCKED, reason=reason, detail=detail, steps=steps, seconds=seconds
        )

    def results(self, places: tuple[Place, ...], whole: Outcome) -> tuple[DebrisResult, ...]:
        """Give each place of a batch without an answer its own result, as far as one was noted."""
        return results_of(places, whole, self.progress.places, self.progress.place)
