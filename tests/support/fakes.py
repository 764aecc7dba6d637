"""Doubles for every side effect, typed against `ports.py`: a node that lives in a dictionary."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import anyio
from msgspec import structs
from msgspec.structs import replace

from reconciler.errors import InvariantError
from reconciler.model.containerd import ShimGroup
from reconciler.model.debris import (
    WHOLE_BATCH,
    DebrisKind,
    DebrisResult,
    Inventory,
    Place,
    results_of,
)
from reconciler.model.decisions import Decision, Verdict
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Look,
    Node,
    PartialLook,
    ProcessScan,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, Listed, Observation, Refusal, Seen, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.ports import BatchInspector, Emit, Permit
from tests.support.clock import VirtualClock


@dataclass
class FakeInspector:
    """A state tree as a dictionary of looks. Implements `ports.Inspector`."""

    tree: dict[BundleKey, Look] = field(default_factory=dict)
    looked: list[BundleKey] = field(default_factory=list)
    listings: int = 0
    others: BatchInspector | None = None
    annotation_keys: frozenset[str] = frozenset()

    def list(self, namespace: str | None = None) -> Listed:
        self.listings += 1
        seen = tuple(
            Seen(key, look.identity)
            for key, look in self.tree.items()
            if namespace in (None, key.namespace)
        )
        return Listed(answered=True, present=True, bundles=seen, namespace=namespace)

    def look(self, key: BundleKey) -> Look | PartialLook | None:
        self.looked.append(key)
        look = self.tree.get(key)
        if look is None or not look.labels.annotations:
            return look
        kept = tuple(one for one in look.labels.annotations if one[0] in self.annotation_keys)
        return replace(look, labels=structs.replace(look.labels, annotations=kept))

    def look_each(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None]:
        return [self.look(key) for key in keys]

    def moment(self) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass
class FakeNodeSource:
    """Implements `ports.Witnesses`."""

    clock: VirtualClock
    node: Node = field(
        default_factory=lambda: Node(ProcessScan(answered=True), Containerd(ContainerdState.UP))
    )
    takes: float = 0.0
    asked: int = 0
    debris: list[Place] = field(default_factory=list)
    inventories: int = 0
    left_out: Callable[[int], Collection[DebrisKind]] = lambda _number: ()
    asked_alone: list[BundleKey] = field(default_factory=list)

    async def scan(self) -> ProcessScan:
        return self.node.processes

    async def inventory(self) -> Inventory:
        self.inventories += 1
        out = self.left_out(self.inventories)
        looked = tuple(kind for kind in DebrisKind if kind not in out)
        places = tuple(one for one in self.debris if one.key.kind in looked)
        troubles = tuple(f"{kind.value}: it cannot be read" for kind in out)
        return Inventory(self.clock.now, looked, places, troubles)

    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        self.asked += 1
        if self.takes:
            await self.clock.take(self.takes)
        return self.node.containerd

    async def task(self, key: BundleKey, shim: ShimGroup = ()) -> Containerd:
        self.asked_alone.append(key)
        return self.node.containerd.about(key)


@dataclass
class FakeCleaner:
    """Removes from the inspector's tree. Implements `ports.Cleaner`."""

    clock: VirtualClock
    inspector: FakeInspector
    takes: float = 0.0
    waits: float = 0.0
    answer: Callable[[BundleKey, Identity], Outcome | None] | None = None
    under_way: set[BundleKey] = field(default_factory=set)
    most_at_once: int = 0
    begun: list[tuple[float, BundleKey]] = field(default_factory=list)
    cleaned: list[tuple[float, BundleKey]] = field(default_factory=list)
    finished: list[BundleKey] = field(default_factory=list)
    batches: list[tuple[Place, ...]] = field(default_factory=list)
    debris: list[Place] = field(default_factory=list)
    debris_result: Result = Result.CLEANED
    killed: list[BundleKey] = field(default_factory=list)
    ended: list[BundleKey] = field(default_factory=list)
    patient: list[bool] = field(default_factory=list)

    async def _refused(self, key: BundleKey, permit: Permit) -> Outcome | None:
        """Wait for a free worker, and ask whether it is still wanted."""
        if self.waits:
            await self.clock.take(self.waits)
        refusal = permit()
        if refusal is None:
            self.begun.append((self.clock.now, key))
        return refusal

    async def clean(
        self,
        key: BundleKey,
        identity: Identity,
        node: Node,
        permit: Permit,
        *,
        wanted: Verdict = Verdict.LEFTOVER,
        patient: bool = False,
    ) -> Outcome:
        self.patient.append(patient)
        if wanted is not Verdict.LEFTOVER:
            return await self._end(key, identity, permit, wanted)
        if key in self.under_way:
            raise InvariantError("two cleanups of one bundle")
        self.under_way.add(key)
        self.most_at_once = max(self.most_at_once, len(self.under_way))
        try:
            refusal = await self._refused(key, permit)
            if refusal is not None:
                return refusal
            if self.takes:
                await self.clock.take(self.takes)
            outcome = self.answer(key, identity) if self.answer else None
            if outcome is None:
                del self.inspector.tree[key]
                self.cleaned.append((self.clock.now, key))
                outcome = Outcome(key, identity, Result.CLEANED)
            return outcome
        finally:
            self.under_way.discard(key)

    async def _end(
        self, key: BundleKey, identity: Identity, permit: Permit, wanted: Verdict
    ) -> Outcome:
        refusal = await self._refused(key, permit)
        if refusal is not None:
            return refusal
        (self.killed if wanted is Verdict.ORPHANED else self.ended).append(key)
        return Outcome(key, identity, Result.KILLED)

    async def finish(self, key: BundleKey, identity: Identity, permit: Permit) -> Outcome:
        refusal = await self._refused(key, permit)
        if refusal is not None:
            return refusal
        self.finished.append(key)
        return Outcome(key, identity, Result.CLEANED)

    async def clean_debris(
        self, places: tuple[Place, ...], containerd: Containerd, permit: Permit
    ) -> tuple[DebrisResult, ...]:
        if self.waits:
            await self.clock.take(self.waits)
        refusal = permit()
        if refusal is None:
            self.batches.append(places)
            if self.debris_result is Result.CLEANED:
                self.debris[:] = [one for one in self.debris if one not in places]
        return results_of(places, refusal or replace(WHOLE_BATCH, result=self.debris_result))


@dataclass
class FakeGuards:
    """Implements `ports.Guards`."""

    refused: tuple[Refusal, ...] = ()
    refused_from: float = float("inf")
    checks: int = 0
    slow: tuple[str, ...] = ()

    async def check(self) -> tuple[Refusal, ...]:
        self.checks += 1
        if self.checks >= self.refused_from:
            return (Refusal(Guard.MOUNT_NAMESPACE, "refused"),)
        return self.refused


@dataclass
class FakeExits:
    """Implements `ports.Exits`; says nothing by itself."""

    expected: dict[BundleKey, tuple[int | None, int | None]] = field(default_factory=dict)
    holders: dict[BundleKey, Collection[int]] = field(default_factory=dict)
    containerd: int | None = None

    async def run(self, emit: Emit) -> None:
        await anyio.sleep_forever()

    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        self.expected[key] = (init, shim)

    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        self.holders[key] = pids

    def expect_containerd(self, pid: int | None) -> None:
        self.containerd = pid

    def forget(self, key: BundleKey) -> None:
        self.expected.pop(key, None)


@dataclass
class FakeWatcher:
    """Implements `ports.Watcher`; emits only what a test tells it to."""

    backend: str = "fake"
    reason: str = ""
    relist_hint: float | None = None
    followed: list[BundleKey] = field(default_factory=list)

    async def run(self, emit: Emit) -> None:
        await anyio.sleep_forever()

    def follow(self, bundles: Collection[BundleKey]) -> None:
        self.followed = [*bundles]


@dataclass
class Memory:
    """Remembers everything that went through the loop. Implements `ports.Listener`."""

    observations: list[tuple[Stamp, Observation]] = field(default_factory=list)
    decisions: list[tuple[Stamp, Decision]] = field(default_factory=list)

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        self.observations.append((stamp, observation))

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        self.decisions.append((stamp, decision))
