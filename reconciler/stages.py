"""The stages that a loop joins to its engine, supervised.

Stages flow in, stages flow out: whatever an adapter or a listener raises, the loop gets an answer.
A failure becomes the answer that proves nothing: no look, no listing, no word of containerd, a
guard that refuses, a cleanup that failed. It never becomes a *no* (principle 1) and never ends the
loop (principle 13).
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, TypeVar

import anyio
from msgspec.structs import replace as with_fields
from typing_extensions import override

from reconciler.model.containerd import ShimGroup
from reconciler.model.debris import WHOLE_BATCH, DebrisResult, Inventory, Place, results_of
from reconciler.model.decisions import Decision, Verdict
from reconciler.model.evidence import UNSEEN, Containerd, Look, Node, PartialLook, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    Guard,
    Listed,
    Observation,
    Refusal,
    Resync,
    ResyncKind,
    Stamp,
)
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies
from reconciler.ports import (
    BatchInspector,
    Cleaner,
    Emit,
    Exits,
    Guards,
    Inspector,
    NodeSource,
    Permit,
    RemoteInspector,
    Source,
    Stages,
    Watcher,
)
from reconciler.supervision import Supervisor

T = TypeVar("T")

Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""

_INTERNAL: Final = "internal error; see the log"


def supervised(stages: Stages) -> Stages:
    """Give the same stages, none of which can fail the loop."""
    watch, clock = stages.supervisor, stages.clock

    async def pause(seconds: float) -> None:
        await clock.wait(anyio.Event(), clock.monotonic() + seconds)

    watcher, far = stages.watcher, stages.far
    return replace(
        stages,
        inspector=SupervisedInspector(stages.inspector, watch),
        far=None if far is None else _RemoteInspector(far, watch),
        node_source=SupervisedNodeSource(stages.node_source, watch),
        cleaner=SupervisedCleaner(stages.cleaner, watch),
        guards=SupervisedGuards(stages.guards, watch),
        exits=SupervisedExits(stages.exits, watch, pause),
        watcher=None if watcher is None else SupervisedWatcher(watcher, watch, pause),
        sources=[_Restarted(source, watch, pause) for source in stages.sources],
    )


def name_of(part: object) -> str:
    """Name a part after its module, as the log and the metric show it: ``logs``, ``metrics``."""
    return type(part).__module__.rpartition(".")[2]


class Listeners:
    """Sends everybody what goes through the loop, whatever becomes of one of them.

    A recorder that failed has a hole in its journal from then on, and learns of it.
    """

    def __init__(self, stages: Stages) -> None:
        receivers = (*stages.listeners, *stages.recorders)
        named = [(f"listener {name_of(one)}", one) for one in receivers]
        self._watch = watch = stages.supervisor
        self._essential = stages.essential
        self._recorders = [(f"listener {name_of(one)}", one) for one in stages.recorders]
        self._missed = {where: one.missed for where, one in self._recorders}
        self._observed = [(where, one.observed) for where, one in named]
        self._decided = [(where, one.decided) for where, one in named]
        watch.know(*(where for where, _ in named))

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Report an observation, before the engine receives it."""
        for listener in self._essential:
            listener.observed(stamp, observation)
        for where, receive in self._observed:
            if not self._watch.call(where, receive, stamp, observation):
                self._has_missed(where)

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Report what the engine concluded or asked for."""
        for listener in self._essential:
            listener.decided(stamp, decision)
        for where, receive in self._decided:
            if not self._watch.call(where, receive, stamp, decision):
                self._has_missed(where)

    def advanced(self, stamp: Stamp) -> None:
        """Inform recorders that the engine is about to be given nothing but the time."""
        for where, recorder in self._recorders:
            if not self._watch.call(where, recorder.advanced, stamp):
                self._has_missed(where)

    def configured(self, stamp: Stamp, policies: Policies) -> None:
        """Inform recorders that other policies are about to be put into force."""
        for where, recorder in self._recorders:
            if not self._watch.call(where, recorder.configured, stamp, policies):
                self._has_missed(where)

    def _has_missed(self, where: str) -> None:
        if where in self._missed:
            self._watch.call(where, self._missed[where])


class _BatchInspector(BatchInspector):
    def __init__(self, lookers: BatchInspector, watch: Supervisor) -> None:
        self.many = lookers.many
        self._lookers = lookers
        self._watch = watch

    @override
    async def look(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None] | None:
        return await _answer(self._watch, "looks", self._lookers.look(keys), lambda: None)


class _RemoteInspector(RemoteInspector):
    def __init__(self, lookers: RemoteInspector, watch: Supervisor) -> None:
        self._lookers = lookers
        self._watch = watch

    @override
    async def look(
        self, keys: Sequence[BundleKey], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        return await _answer(self._watch, "looks", self._lookers.look(keys, places), lambda: None)


class SupervisedInspector(Inspector):
    """An inspector whose failure is a look or a listing that gave no answer."""

    def __init__(self, inspector: Inspector, watch: Supervisor) -> None:
        self._inspector = inspector
        self._watch = watch

    @property
    @override
    def others(self) -> BatchInspector | None:
        others = self._inspector.others
        return None if others is None else _BatchInspector(others, self._watch)

    @override
    def list(self, namespace: str | None = None) -> Listed:
        with self._watch.part("listing"):
            return self._inspector.list(namespace)
        return Listed(answered=False, present=True, namespace=namespace)

    @override
    def look(self, key: BundleKey) -> Look | PartialLook | None:
        with self._watch.part("looks"):
            return self._inspector.look(key)
        return UNSEEN

    @override
    def moment(self) -> AbstractContextManager[object]:
        return self._inspector.moment()


class SupervisedNodeSource(NodeSource):
    """A source whose failure is no answer."""

    def __init__(self, node_source: NodeSource, watch: Supervisor) -> None:
        self._node_source = node_source
        self._watch = watch

    @override
    async def scan(self) -> ProcessScan:
        return await _answer(
            self._watch,
            "process scan",
            self._node_source.scan(),
            lambda: ProcessScan(answered=False),
        )

    @override
    async def inventory(self) -> Inventory:
        taken = self._node_source.inventory()
        return await _answer(
            self._watch, "inventory", taken, lambda: Inventory(0.0, troubles=(_INTERNAL,))
        )

    @override
    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        return await self._answer(self._node_source.containerd(about, shims))

    @override
    async def task(self, key: BundleKey, shim: ShimGroup = ()) -> Containerd:
        return await self._answer(self._node_source.task(key, shim))

    async def _answer(self, work: Awaitable[Containerd]) -> Containerd:
        none = Containerd(detail=_INTERNAL)
        return await _answer(self._watch, "containerd", work, lambda: none)


class SupervisedGuards(Guards):
    """Guards whose failure refuses."""

    def __init__(self, guards: Guards, watch: Supervisor) -> None:
        self._guards = guards
        self._watch = watch

    @property
    @override
    def slow(self) -> tuple[str, ...]:
        return self._guards.slow

    @override
    async def check(self) -> tuple[Refusal, ...]:
        why = f"the guards could not be checked: {_INTERNAL}"
        refusal = Refusal(Guard.WORKER, why, unsure=True)
        return await _answer(self._watch, "guards", self._guards.check(), lambda: (refusal,))


class SupervisedCleaner(Cleaner):
    """A cleaner whose failure is a cleanup that failed, and is tried again."""

    def __init__(self, cleaner: Cleaner, watch: Supervisor) -> None:
        self._cleaner = cleaner
        self._watch = watch

    @override
    async def clean(
        self,
        key: BundleKey,
        identity: Identity,
        node: Node,
        permit: Permit,
        *,
        wanted: Verdict = Verdict.LEFTOVER,
    ) -> Outcome:
        failed = Outcome(key, identity, Result.FAILED, detail=_INTERNAL)
        work = self._cleaner.clean(key, identity, node, permit, wanted=wanted)
        return await _answer(self._watch, "cleaner", work, lambda: failed)

    @override
    async def finish(self, key: BundleKey, identity: Identity, permit: Permit) -> Outcome:
        failed = Outcome(key, identity, Result.FAILED, detail=_INTERNAL)
        work = self._cleaner.finish(key, identity, permit)
        return await _answer(self._watch, "cleaner", work, lambda: failed)

    @override
    async def clean_debris(
        self, places: tuple[Place, ...], containerd: Containerd, permit: Permit
    ) -> tuple[DebrisResult, ...]:
        failed = results_of(places, with_fields(WHOLE_BATCH, detail=_INTERNAL))
        work = self._cleaner.clean_debris(places, containerd, permit)
        return await _answer(self._watch, "cleaner", work, lambda: failed)


class _Restarted(Source):
    def __init__(self, source: Source, watch: Supervisor, pause: Pause) -> None:
        self._source = source
        self._watch = watch
        self._pause = pause

    @override
    async def run(self, emit: Emit) -> None:
        async def pause(seconds: float) -> None:
            # Until it runs again nothing comes from it: only a listing makes up for that.
            emit(Resync(ResyncKind.WATCH_LOST))
            await self._pause(seconds)

        await self._watch.keep_running(
            f"source {name_of(self._source)}", lambda: self._source.run(emit), pause
        )


class SupervisedExits(_Restarted, Exits):
    """Exits that may miss the end of a process: the next listing makes up for it."""

    def __init__(self, exits: Exits, watch: Supervisor, pause: Pause) -> None:
        super().__init__(exits, watch, pause)
        self._exits = exits

    @override
    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        self._watch.call("exits", self._exits.expect, key, init=init, shim=shim)

    @override
    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        self._watch.call("exits", self._exits.expect_holders, key, pids)

    @override
    def expect_containerd(self, pid: int | None) -> None:
        self._watch.call("exits", self._exits.expect_containerd, pid)

    @override
    def forget(self, key: BundleKey) -> None:
        self._watch.call("exits", self._exits.forget, key)


class SupervisedWatcher(_Restarted, Watcher):
    """A watcher that may lose watches: the next listing makes up for it."""

    def __init__(self, watcher: Watcher, watch: Supervisor, pause: Pause) -> None:
        super().__init__(watcher, watch, pause)
        self._watcher = watcher

    @override
    def follow(self, bundles: Collection[BundleKey]) -> None:
        self._watch.call("watcher", self._watcher.follow, bundles)

    @property
    @override
    def backend(self) -> str:
        return self._watcher.backend

    @property
    @override
    def reason(self) -> str:
        return self._watcher.reason

    @property
    @override
    def relist_hint(self) -> float | None:
        with self._watch.part("watcher"):
            return self._watcher.relist_hint
        return None


async def _answer(watch: Supervisor, where: str, work: Awaitable[T], none: Callable[[], T]) -> T:
    """Wait for an answer; ``none`` gives the one that proves nothing."""
    with watch.part(where):
        return await work
    return none()
