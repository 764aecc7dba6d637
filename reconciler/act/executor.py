"""Executor: the parent's hands. It hands jobs to worker processes and never waits for a hung one.

What the engine asked for goes in, an Outcome comes back, always: a worker that dies or hangs is an
outcome too. Nothing here touches a file. It must never work twice at a time on one bundle, and
never let one bundle that hangs hold up another.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import anyio

from reconciler.act.channel import (
    Bounds,
    CleanJob,
    Done,
    FinishJob,
    KillJob,
    Locked,
    LockJob,
    LookJob,
    Looks,
    Manner,
    StandJob,
    Stood,
    SweepJob,
    Swept,
)
from reconciler.act.crew import Attempt, Crew, Delete, DiedError, Limits
from reconciler.clock import SystemClock
from reconciler.errors import InvariantError
from reconciler.model.evidence import Look, Node, PartialLook, Sweep
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result, Step, StepResult
from reconciler.ports import Permit
from reconciler.probe.locks import Lock, LockState

LOOKERS: Final = 3
"""How many workers look at a pile at the same time, at most."""

_EACH: Final = 0.05
"""Seconds that each further look at a place that answers slowly may take."""


_BundleJob = CleanJob | KillJob | FinishJob


def _always() -> None:
    """Permit whatever is asked for: for callers without an engine."""


class Executor:
    """Implements `ports.Hands`, and ``sweep`` and ``stand`` for the witnesses and the guards.

    An async context manager.

    Args:
        manner: How to clean. Layout and runc hold for good: the workers are bound to them.
        parallel: How many bundles at a time.
        limits: Deadlines.
        delete: Asks containerd to delete a task that it still lists.
    """

    def __init__(
        self,
        manner: Manner,
        *,
        parallel: int = 8,
        limits: Limits | None = None,
        delete: Delete | None = None,
    ) -> None:
        self._manner = manner
        self._limits = limits or Limits()
        self._crew = Crew(Bounds(manner.layout, manner.runc), self._limits, delete)
        self._slots = anyio.CapacityLimiter(parallel)
        self._witness = anyio.CapacityLimiter(1)  # evidence does not queue behind cleanups
        self._lookers = anyio.CapacityLimiter(LOOKERS)
        self._far_lookers = anyio.CapacityLimiter(LOOKERS)
        self._hung: dict[frozenset[str], Attempt] = {}
        self._clock = SystemClock()
        self._under_way: dict[BundleKey, Attempt] = {}
        self._all_done = anyio.Event()
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Start the zygote; the children come with the jobs."""
        self._crew.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every process that was started."""
        self._stopping = True
        await self._crew.close()

    @property
    def zygote(self) -> int | None:
        """Pid of the process that makes the workers, None before it was started."""
        return self._crew.zygote

    def configure(self, manner: Manner, *, parallel: int) -> None:
        """Take over new settings; they hold from the next job on."""
        self._slots.total_tokens = parallel
        self._manner = manner

    async def clean(
        self, key: BundleKey, identity: Identity, node: Node, permit: Permit = _always
    ) -> Outcome:
        """Judge the bundle once more and remove it if it is still the same and still leftover.

        Raises:
            RuntimeError: It is being cleaned already: a bug in the caller.
        """
        said = node.containerd.about(key)

        def make() -> CleanJob:
            return CleanJob(key, identity, said, self._manner)

        return await self._act(make, permit)

    async def kill(
        self, key: BundleKey, identity: Identity, node: Node, permit: Permit = _always
    ) -> Outcome:
        """Judge the bundle once more and end its processes if it is still the same and orphaned.

        Raises:
            RuntimeError: Somebody is at it already: a bug in the caller.
        """
        said = node.containerd.about(key)

        def make() -> KillJob:
            return KillJob(key, identity, said, self._manner)

        return await self._act(make, permit)

    async def finish(self, key: BundleKey, identity: Identity, permit: Permit = _always) -> Outcome:
        """Finish a removal of ours that was cut short; ``key`` holds the hidden name.

        Raises:
            RuntimeError: It is being finished already: a bug in the caller.
        """
        return await self._act(lambda: FinishJob(key, identity, self._manner), permit)

    async def sweep(self) -> Sweep:
        """Pass over /proc in a worker; not answered if it takes too long or the worker dies."""
        async with self._witness:
            attempt = Attempt(SweepJob())
            try:
                answer = await self._crew.run(attempt, self._limits.sweep)
            except DiedError:
                return Sweep()
        return answer.sweep if isinstance(answer, Swept) else Sweep()

    async def stand(self) -> Stood | None:
        """Have a worker measure whether acting is safe from where it stands; None if it cannot."""
        async with self._witness:
            attempt = Attempt(StandJob(self._manner))
            try:
                answer = await self._crew.run(attempt, self._limits.sweep)
            except DiedError:
                return None
        return answer if isinstance(answer, Stood) else None

    async def lock(self, *, owner: bool = False) -> Lock:
        """Have a worker tell who holds containerd's metadata lock; no answer if it cannot.

        Args:
            owner: Find out of a free one, too, whether it is that of the tree's own containerd.
        """
        async with self._witness:
            attempt = Attempt(LockJob(self._manner, owner))
            try:
                answer = await self._crew.run(attempt, self._limits.sweep)
            except DiedError as died:
                return Lock(LockState.NONE, detail=str(died))
        if isinstance(answer, Locked):
            return answer.lock
        return Lock(LockState.NONE, detail=f"it took more than {self._limits.sweep:g} s")

    async def look(
        self, keys: Sequence[BundleKey], annotation_keys: frozenset[str]
    ) -> Sequence[Look | PartialLook | None] | None:
        """Have a worker look at bundles as we would; None if it takes too long or dies."""
        async with self._lookers:
            attempt = Attempt(LookJob(tuple(keys), annotation_keys, self._manner, near=True))
            looks = await self._look(attempt, self._limits.sweep)
        return None if looks is None else _joined(looks)

    async def look_far(
        self, keys: Sequence[BundleKey], annotation_keys: frozenset[str], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        """Have a worker look at bundles where that may hang; None if it takes too long or dies.

        Args:
            keys: The bundles.
            annotation_keys: Annotations that rules match on.
            places: What is named by this has hung together: while a worker that looked there
                cannot be ended nobody follows it.
        """
        former = self._hung.get(places)
        if former is not None and former.is_dying():
            return None
        async with self._far_lookers:
            job = LookJob(tuple(keys), annotation_keys, self._manner, near=False)
            attempt = Attempt(job, brief=True)
            looks = await self._look(attempt, self._limits.look + _EACH * len(keys))
        self._hung = {at: one for at, one in self._hung.items() if one.is_dying()}
        if looks is None:
            self._hung[places] = attempt
        return None if looks is None else looks.looks

    async def _look(self, attempt: Attempt, seconds: float) -> Looks | None:
        try:
            answer = await self._crew.run(attempt, seconds)
        except DiedError:
            return None
        return answer if isinstance(answer, Looks) else None

    def keep_zygote(self) -> None:
        """Make no other zygote from now on: we are about to give up what it needs."""
        self._crew.irreplaceable = True

    async def zygote_ended(self) -> None:
        """Wait until the zygote has ended, however; without one nothing can be done."""
        await self._crew.zygote_ended()

    async def stop(self) -> None:
        """Stop at entry boundaries: nothing new begins, what is under way ends soon or is ended.

        Every call that waits gets its outcome, ``blocked: stopped`` if it was cut short.
        """
        self._stopping = True
        for attempt in self._under_way.values():
            attempt.stopped = True
            if attempt.interrupt is not None:
                attempt.interrupt()
        if self._under_way:
            with anyio.move_on_after(self._limits.stop):
                await self._all_done.wait()
        for attempt in self._under_way.values():
            attempt.scope.cancel()

    async def _act(self, make: Callable[[], _BundleJob], permit: Permit) -> Outcome:
        """Wait for a free worker; what it is told, and whether it is, is settled only then."""
        job = make()
        if job.key in self._under_way:
            raise InvariantError(f"{job.key} is being cleaned already")
        self._under_way[job.key] = attempt = Attempt(job)
        try:
            async with self._slots:
                return await self._attempt(make, attempt, permit)
        finally:
            del self._under_way[job.key]
            if not self._under_way:
                self._all_done.set()
                self._all_done = anyio.Event()

    async def _attempt(
        self, make: Callable[[], _BundleJob], attempt: Attempt, permit: Permit
    ) -> Outcome:
        began = self._clock.monotonic()
        job = make()
        blank = Outcome(job.key, job.identity, Result.FAILED)
        try:
            await self._crew.ready()
            # Nothing waits from here on until the job is sent.
            if self._stopping:
                return replace(blank, result=Result.BLOCKED, reason=BlockReason.STOPPED)
            refusal = permit()
            if refusal is not None:
                return refusal
            attempt.job = make()  # by the settings that hold now
            answer = await self._crew.run(attempt, self._limits.job)
        except DiedError as died:
            return _failed(blank, attempt, str(died), self._clock.monotonic() - began)
        if isinstance(answer, Done):
            return answer.outcome
        return _cut_short(blank, attempt, self._clock.monotonic() - began)


def _joined(looks: Looks) -> tuple[Look | PartialLook | None, ...]:
    """Say of each look whether it is partial."""
    missed = looks.missed
    return tuple(
        PartialLook(look, missed[number]) if look is not None and number in missed else look
        for number, look in enumerate(looks.looks)
    )


def _failed(blank: Outcome, attempt: Attempt, why: str, seconds: float) -> Outcome:
    """A worker died under the job: loud, retried."""
    began = attempt.progress.began
    where = f" during {began}" if began else ""
    detail = f"the worker ended before its job{where}: {why}"
    return replace(blank, detail=detail, steps=attempt.progress.steps, seconds=seconds)


def _cut_short(blank: Outcome, attempt: Attempt, seconds: float) -> Outcome:
    """A job was not waited for any longer: it hung, or we were told to stop."""
    reason = BlockReason.STOPPED if attempt.stopped else BlockReason.HUNG
    began, done = attempt.progress.began, attempt.progress.steps
    where = began or "the start of the job"
    detail = f"{where} had not ended after {seconds:.1f} s and the worker was killed"
    steps = (*done, Step(began, StepResult.BLOCKED, reason.value)) if began else done
    return replace(
        blank, result=Result.BLOCKED, reason=reason, detail=detail, steps=steps, seconds=seconds
    )
