"""Worker pool: gives jobs to worker processes and never waits for one that hangs.

What the engine asked for goes in, an Outcome comes back, always: a worker that dies or hangs is an
outcome too. Nothing here touches a file, and nothing runs while there is no job. It must never give
a job to a worker that has one, never work twice at a time on one bundle, and never let one bundle
that hangs hold up another.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self, TypeVar

import anyio
from msgspec.structs import replace

from reconciler.clock import SystemClock
from reconciler.errors import InvariantError
from reconciler.model.debris import WHOLE_BATCH, DebrisResult, Inventory, Place
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Containerd, Look, Node, PartialLook, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.ports import Permit
from reconciler.probe.locks import Lock, LockState
from reconciler.probe.owner import Vouchers
from reconciler.worker.channel import LostError
from reconciler.worker.client import ForkServerClient, WorkerHandle, serving
from reconciler.worker.limiter import JobLimiter
from reconciler.worker.messages import (
    Answered,
    CleanJob,
    CleanupOptions,
    Counted,
    DebrisDone,
    DebrisJob,
    Done,
    EndShimJob,
    EndWedgedJob,
    FinishJob,
    InventoryJob,
    Job,
    JudgedJob,
    KillJob,
    Locked,
    LockJob,
    LookJob,
    Looks,
    Ping,
    Pinged,
    PingJob,
    PreflightJob,
    PreflightReport,
    ScanJob,
    Scanned,
    WorkerScope,
)
from reconciler.worker.running_job import Attempt, DiedError
from reconciler.worker.running_job import Limits as Limits

LOOKERS: Final = 3
"""How many workers look at a pile at the same time, at most."""

Delete = Callable[[BundleKey], Awaitable[str | None]]
"""Asks containerd to delete a task. Gives what went wrong, empty if nothing did; None if there was
no answer. Never raises."""

_USUAL: Final = CleanupOptions()

_T = TypeVar("_T", Counted, Scanned, PreflightReport, Looks, Locked, Pinged)
_Done = TypeVar("_Done", Done, DebrisDone)
_BundleJob = CleanJob | KillJob | EndShimJob | EndWedgedJob | FinishJob
_JOBS: Final[dict[Verdict, type[CleanJob | KillJob | EndShimJob]]] = {
    Verdict.LEFTOVER: CleanJob,
    Verdict.ORPHANED: KillJob,
    Verdict.ABANDONED: EndShimJob,
}
"""What is done about a bundle of each verdict about which anything is."""


def _always() -> None:
    """Permit whatever is asked for: for callers without an engine."""


class WorkerPool:
    """Implements `ports.Cleaner`, and what the node source and the guards ask of a worker.

    No more bundles are worked on at a time than ``parallel``; ``delete`` asks containerd to delete
    a task that it still lists; ``server`` was started already, with the same scope.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        scope: WorkerScope,
        options: CleanupOptions = _USUAL,
        *,
        parallel: int = 8,
        limits: Limits | None = None,
        delete: Delete | None = None,
        server: ForkServerClient | None = None,
    ) -> None:
        self._scope = scope
        self._options = options
        self._limits = limits or Limits()
        self._delete = delete
        self._server = server
        self._is_replaceable = True
        self._idle: list[WorkerHandle] = []
        self._jobs = JobLimiter(parallel)
        self._witness = anyio.CapacityLimiter(1)  # evidence does not queue behind cleanups
        self._vouchers = Vouchers()
        self._inventory = anyio.CapacityLimiter(1)
        self._counting: Attempt | None = None
        self._lookers = anyio.CapacityLimiter(LOOKERS)
        self._far_lookers = anyio.CapacityLimiter(LOOKERS)
        self._hung: dict[frozenset[str], Attempt] = {}
        self._clock = SystemClock()
        self._under_way: dict[BundleKey, Attempt] = {}
        self._all_done = anyio.Event()
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Start the fork server, unless one was; the workers come with the jobs."""
        self._server = serving(self._scope, self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every process that was started."""
        self._stopping = True
        for worker in self._idle:
            worker.release()
        self._idle.clear()
        if self._server is not None:
            await self._server.close()

    @property
    def fork_server(self) -> int | None:
        """Pid of the process that makes the workers, None before it was started."""
        return None if self._server is None else self._server.pid

    def configure(self, options: CleanupOptions, *, parallel: int) -> None:
        """Take over new settings; they hold from the next job on."""
        self._jobs.total_tokens = parallel
        self._options = options

    def keep_fork_server(self) -> None:
        """Start no other fork server from now on: we are about to give up what it needs."""
        self._is_replaceable = False

    async def fork_server_ended(self) -> None:
        """Wait until the fork server has ended, however; without one nothing can be done."""
        if self._server is not None:
            await self._server.ended()

    async def stop(self) -> None:
        """Stop at entry boundaries: nothing new begins, what is under way ends soon or is ended.

        Every call that waits gets its outcome, ``blocked: stopped`` if it was cut short.
        """
        self._stopping = True
        for attempt in self._under_way.values():
            attempt.stop()
        if self._under_way:
            with anyio.move_on_after(self._limits.stop):
                await self._all_done.wait()
        for attempt in self._under_way.values():
            attempt.scope.cancel()

    # ------------------------------------------------------------------ one bundle

    async def clean(  # noqa: PLR0913 - as the port has it
        self,
        key: BundleKey,
        identity: Identity,
        node: Node,
        permit: Permit = _always,
        *,
        wanted: Verdict = Verdict.LEFTOVER,
        patient: bool = False,
    ) -> Outcome:
        """Judge the bundle once more and act if it is still the same, and what it must be."""
        job = _JOBS[wanted](key, identity, node.containerd.about(key))
        if isinstance(job, CleanJob):
            job = replace(job, patient=patient)
        return await self._act(job, permit)

    async def end_wedged(
        self, key: BundleKey, identity: Identity, node: Node, permit: Permit
    ) -> Outcome:
        """Judge the bundle once more and end its shim if that is wedged and nobody of it lives."""
        return await self._act(EndWedgedJob(key, identity, node.containerd.about(key)), permit)

    async def ping(self, keys: Sequence[BundleKey]) -> tuple[Ping, ...] | str:
        """Ask the shims of these bundles whether they answer; or say why nobody knows."""
        answer = await self._ask(PingJob(tuple(keys)), Pinged, self._witness)
        return answer.pings if isinstance(answer, Pinged) else answer

    async def finish(self, key: BundleKey, identity: Identity, permit: Permit = _always) -> Outcome:
        """Finish a removal of ours that was cut short; ``key`` holds the hidden name."""
        return await self._act(FinishJob(key, identity), permit)

    async def clean_debris(
        self, places: tuple[Place, ...], containerd: Containerd, permit: Permit = _always
    ) -> tuple[DebrisResult, ...]:
        """Judge places of one kind once more and remove those that are still debris."""
        named = (BundleKey(one.namespace, one.id) for one in places if one.id)
        attempt = Attempt(DebrisJob(places, containerd.about(*named)))
        done = await self._begin(attempt, WHOLE_BATCH, DebrisDone, permit)
        return done.results if isinstance(done, DebrisDone) else attempt.results(places, done)

    async def _act(self, job: _BundleJob, permit: Permit) -> Outcome:
        blank = Outcome(job.key, job.identity, Result.FAILED)
        done = await self._begin(Attempt(job), blank, Done, permit)
        return done.outcome if isinstance(done, Done) else done

    async def _begin(
        self, attempt: Attempt, blank: Outcome, kind: type[_Done], permit: Permit
    ) -> _Done | Outcome:
        """Wait for a free worker; whether it gets the job, and with which options, is settled then.

        Raises:
            InvariantError: Somebody is at this bundle already: a bug in the caller.
        """
        key = blank.key
        if key in self._under_way:
            raise InvariantError(f"{key} is being cleaned already")
        self._under_way[key] = attempt
        began = 0.0
        try:
            async with self._jobs.job():
                began = self._clock.monotonic()
                await self._living_server()
                # Nothing waits from here on until the job is sent.
                if self._stopping:
                    return replace(blank, result=Result.BLOCKED, reason=BlockReason.INTERRUPTED)
                if (refusal := permit()) is not None:
                    return refusal
                if isinstance(attempt.job, JudgedJob):  # with the options that hold now
                    attempt.job = replace(attempt.job, options=self._options)
                answer = await self._run(attempt, self._limits.job)
        except DiedError as died:
            return attempt.failed(blank, str(died), self._clock.monotonic() - began)
        finally:
            del self._under_way[key]
            if not self._under_way:
                self._all_done.set()
                self._all_done = anyio.Event()
        if isinstance(answer, kind):
            return answer
        return attempt.cut_short(blank, self._clock.monotonic() - began)

    # ------------------------------------------------------------------ the node, and looks

    async def scan(self) -> ProcessScan:
        """Pass over /proc in a worker; not answered if it takes too long or the worker dies."""
        answer = await self._ask(ScanJob(), Scanned, self._witness)
        return answer.processes if isinstance(answer, Scanned) else ProcessScan()

    async def inventory(self) -> Inventory:
        """Have a worker find what lies outside of bundles; nothing is looked for if it cannot.

        While a worker that looked there cannot be ended nobody follows it.
        """
        former = self._counting
        if former is not None and former.is_dying():
            return Inventory(0.0, troubles=("an earlier inventory hangs in the kernel",))
        self._counting = attempt = Attempt(InventoryJob())
        async with self._inventory:
            answer = await self._answer(attempt, Counted, self._limits.processes)
        return (
            answer.inventory if isinstance(answer, Counted) else Inventory(0.0, troubles=(answer,))
        )

    async def preflight(self) -> PreflightReport | str:
        """Run the preflight in a worker: is acting safe from here? Or say why nobody knows."""
        return await self._ask(PreflightJob(), PreflightReport, self._witness)

    async def lock(self, *, owner: bool = False) -> Lock:
        """Have a worker tell who holds containerd's metadata lock; no answer if it cannot.

        Of a free one, too, if ``owner``, whether it is that of the tree's own containerd.
        """
        answer = await self._ask(LockJob(owner, self._vouchers), Locked, self._witness)
        if not isinstance(answer, Locked):
            return Lock(LockState.NONE, detail=answer)
        self._vouchers = answer.vouchers
        return answer.lock

    async def look(
        self, keys: Sequence[BundleKey], annotation_keys: frozenset[str]
    ) -> Sequence[Look | PartialLook | None] | None:
        """Have a worker look at bundles as we would; None if it takes too long or dies."""
        job = LookJob(tuple(keys), annotation_keys, near=True)
        looks = await self._ask(job, Looks, self._lookers)
        return looks.looks if isinstance(looks, Looks) else None

    async def look_far(
        self, keys: Sequence[BundleKey], annotation_keys: frozenset[str], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        """Have a worker look at bundles where that may hang; None if it takes too long or dies.

        What is named by ``places`` has hung together: while a worker that looked there cannot be
        ended nobody follows it.
        """
        former = self._hung.get(places)
        if former is not None and former.is_dying():
            return None
        job = LookJob(tuple(keys), annotation_keys, near=False)
        attempt = Attempt(job, brief=True)
        async with self._far_lookers:
            seconds = self._limits.look + self._limits.further_look * len(keys)
            looks = await self._answer(attempt, Looks, seconds)
        self._hung = {at: one for at, one in self._hung.items() if one.is_dying()}
        if isinstance(looks, Looks):
            whole = (one.look if isinstance(one, PartialLook) else one for one in looks.looks)
            return tuple(whole)
        self._hung[places] = attempt
        return None

    async def _ask(self, job: Job, kind: type[_T], slots: anyio.CapacityLimiter) -> _T | str:
        async with slots:
            return await self._answer(Attempt(job), kind, self._limits.processes)

    async def _answer(self, attempt: Attempt, kind: type[_T], seconds: float) -> _T | str:
        """Have a worker answer, or say why there is no answer."""
        try:
            answer = await self._run(attempt, seconds)
        except DiedError as died:
            return str(died)
        if isinstance(answer, kind):
            return answer
        began = attempt.progress.began
        return (
            f"{began} did not end within {seconds:g} s" if began else f"no answer in {seconds:g} s"
        )

    # ------------------------------------------------------------------ one job

    async def _run(self, attempt: Attempt, seconds: float) -> Answered | None:
        """Give a job to a worker and wait for its end; None if it is not waited for any longer.

        Raises:
            DiedError: The worker is gone, or none could be made.
        """
        worker = await self._employ(attempt.job)
        answer = await attempt.finish(worker, seconds, self._ask_containerd)
        if answer is not None:
            self._idle.append(worker)
        return answer

    async def _employ(self, job: Job) -> WorkerHandle:
        """Send the job to an idle worker, or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.progress.wipe()
                worker.send(job)
            except LostError:
                worker.release()  # idle for so long that it ended
                continue
            return worker
        server = await self._living_server()
        server.refresh()
        if len(server.dying) > self._limits.dying:
            raise DiedError(f"{len(server.dying)} workers hang in the kernel and cannot be ended")
        try:
            return server.spawn(job)
        except LostError as error:
            raise DiedError("the fork server died") from error
        except OSError as error:
            raise DiedError(f"cannot make a worker: {error.strerror}") from error

    async def _living_server(self) -> ForkServerClient:
        """Give a fork server that lives; it waits only where the former one has to be replaced.

        Raises:
            DiedError: There is none, and none can be started.
        """
        former = self._server
        if former is not None:
            former.refresh()
            if not former.lost:
                return former
        if not self._is_replaceable:
            raise DiedError("the fork server died, and one made now could not do its work")
        try:
            self._server = living = ForkServerClient(self._scope)
        except OSError as error:
            raise DiedError(f"cannot make a fork server: {error.strerror}") from error
        if former is not None:
            await former.close()
        return living

    async def _ask_containerd(self, job: Job) -> str | None:
        if self._delete is None or not isinstance(job, CleanJob):
            return "there is no connection to containerd"
        with anyio.move_on_after(self._limits.delete):
            return await self._delete(job.key)
        return None
