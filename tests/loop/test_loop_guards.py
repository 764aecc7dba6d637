"""The guards hold whatever the loop is about to do, and are checked again when they must be."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.loop import AGAIN, LONGEST, Loop
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import Containerd, ContainerdState, Node, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, GuardsChecked, Hidden, Listed, Refusal
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, dead, key
from tests.support.clock import VirtualClock
from tests.support.fakes import FakeGuards, FakeInspector, FakeNodeSource
from tests.support.rig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig(Policies(default=ENFORCE))


async def test_a_refusing_guard_holds_everything(rig: Rig) -> None:
    rig.guards.refused = (Refusal(Guard.PID_NAMESPACE, "foreign"),)
    rig.inspector.tree[key()] = dead()
    await rig.run_for(3600)
    assert rig.cleaner.cleaned == []


class Replaced(FakeNodeSource):
    """containerd is started anew whenever it is asked for: each answer is another process's."""

    @override
    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        return replace(await super().containerd(about, shims), pid=self.asked)


async def test_guards_are_checked_again_before_the_word_of_another_containerd_counts(
    rig: Rig,
) -> None:
    """It may run in other namespaces than the one that was compared with."""
    rig.node_source = Replaced(rig.clock)
    rig.guards.refused_from = 3  # with the answer that is asked for before a cleanup is sent
    rig.inspector.tree[key()] = dead()
    stages = replace(rig.loop._stages, node_source=rig.node_source)
    rig.loop = Loop(rig.engine, stages, relist=300.0)
    await rig.run_for(120)
    assert rig.cleaner.cleaned == []
    (outcome,) = (told for _, told in rig.memory.observations if isinstance(told, Outcome))
    assert (outcome.result, outcome.reason) == (Result.HELD, BlockReason.GUARD)
    assert outcome.detail == "refused"


async def test_a_containerd_that_is_starting_is_compared_with_once_it_serves(rig: Rig) -> None:
    starting = Containerd(ContainerdState.NONE, pid=7, detail="it is starting")
    rig.node_source.node = Node(ProcessScan(answered=True), starting)
    rig.inspector.tree[key()] = dead()
    await rig.run_until(lambda: rig.node_source.asked > 2)
    checks = rig.guards.checks
    rig.node_source.node = Node(ProcessScan(answered=True), Containerd(ContainerdState.UP, pid=7))
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.guards.checks == checks + 2  # as that loop begins, and when containerd answers


async def test_guards_are_not_checked_at_each_answer_of_one_containerd(rig: Rig) -> None:
    rig.node_source.node = Node(ProcessScan(answered=True), Containerd(ContainerdState.UP, pid=7))
    rig.inspector.tree[key()] = dead()
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.node_source.asked > 1
    assert rig.guards.checks == 2  # at the start, and for the first answer


class WithHidden(FakeInspector):
    """A tree in which a removal of ours was cut short."""

    hidden = Hidden(key("ns/.reconciler-9-ab"), Identity(1, 9, 1), 0.0, ours=True)

    @override
    def list(self, namespace: str | None = None) -> Listed:
        return replace(super().list(namespace), hidden=(self.hidden,))


async def test_a_removal_that_was_cut_short_is_not_finished_under_another_containerd_either(
    rig: Rig,
) -> None:
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, node_source=Replaced(rig.clock)))
    await rig.run_until(lambda: rig.guards.checks == 2)  # at the start, and for the first answer
    rig.guards.refused_from = 4  # for the answer that is asked for before a cleanup is sent
    inspector = WithHidden()
    stages = replace(rig.loop._stages, inspector=inspector)
    rig.loop = Loop(rig.engine, stages)
    await rig.run_until(lambda: rig.guards.checks == 4)
    assert rig.cleaner.finished == []
    outcomes = [told for _, told in rig.memory.observations if isinstance(told, Outcome)]
    assert [(one.key, one.result) for one in outcomes] == [(inspector.hidden.key, Result.HELD)]


class Slow(FakeGuards):
    """The first check takes long, and what it saw is old by then."""

    clock: VirtualClock

    @override
    async def check(self) -> tuple[Refusal, ...]:
        refused = await super().check()
        if self.checks == 1:
            await self.clock.take(5.0)
        return refused


async def test_an_older_answer_of_the_guards_does_not_replace_a_newer_one(rig: Rig) -> None:
    guards = Slow(refused_from=2)
    guards.clock = rig.clock
    rig.inspector.tree[key()] = dead()
    rig.node_source.node = Node(ProcessScan(answered=True), Containerd(ContainerdState.UP, pid=7))
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, guards=guards), relist=300.0)
    await rig.run_for(120)
    assert rig.cleaner.cleaned == []


class NobodyAtFirst(FakeGuards):
    """No worker could say where we stand, the first few times."""

    @override
    async def check(self) -> tuple[Refusal, ...]:
        await super().check()
        return (Refusal(Guard.WORKER, "nobody"),) if self.checks <= 3 else ()


@pytest.mark.safety
async def test_where_no_worker_could_look_the_guards_are_checked_again_soon(rig: Rig) -> None:
    guards = NobodyAtFirst()
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, guards=guards), relist=36000.0)
    rig.inspector.tree[key()] = dead()
    await rig.run_for(60)
    assert [who for _, who in rig.cleaner.cleaned] == [key()]
    assert guards.checks <= 6


class Unanswered(FakeGuards):
    """Nobody answers one of the questions, the first few times."""

    clock: VirtualClock
    times: list[float]
    until: int

    @override
    async def check(self) -> tuple[Refusal, ...]:
        await super().check()
        self.times.append(self.clock.monotonic())
        self.slow = ("the pass over /proc took 9.0 s",) if self.checks <= self.until else ()
        no_answer = Refusal(Guard.PID_NAMESPACE, "cannot determine", unsure=True)
        return (no_answer,) if self.checks <= self.until else ()


def unanswered(rig: Rig, until: int) -> Unanswered:
    guards = Unanswered()
    guards.clock, guards.times, guards.until = rig.clock, [], until
    stages = replace(rig.loop._stages, guards=guards)
    rig.loop = Loop(rig.engine, stages, relist=36000.0)
    return guards


@pytest.mark.safety
async def test_one_slow_guard_does_not_hold_everything_until_the_next_relist(rig: Rig) -> None:
    guards = unanswered(rig, 1)
    rig.inspector.tree[key()] = dead()
    await rig.run_for(30)
    assert [who for _, who in rig.cleaner.cleaned] == [key()]
    assert guards.times[1] - guards.times[0] == pytest.approx(AGAIN, abs=0.1)
    told = [one for _, one in rig.memory.observations if isinstance(one, GuardsChecked)]
    assert told[0].slow == ("the pass over /proc took 9.0 s",)
    assert told[1] == GuardsChecked()


async def test_guards_that_never_answer_are_asked_ever_more_seldom(rig: Rig) -> None:
    guards = unanswered(rig, 1000)
    await rig.run_for(3600)
    pauses = [later - sooner for sooner, later in itertools.pairwise(guards.times)]
    assert pauses[:4] == pytest.approx([1, 2, 4, 8], abs=0.5)
    assert max(pauses) == pytest.approx(LONGEST, abs=0.5)
    assert len(guards.times) < 25
    assert rig.cleaner.cleaned == []
