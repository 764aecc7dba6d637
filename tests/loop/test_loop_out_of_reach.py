"""Looks that others must make: waited for by nobody else, given up in time, asked again rarely."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.loop import Loop
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Init, InitState, Look, PartialLook, Shim, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint
from reconciler.model.outcome import BlockReason, Outcome
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, dead, key
from tests.support.clock import VirtualClock
from tests.support.fakes import FakeInspector
from tests.support.rig import Rig

FAR, OTHER = frozenset({"/far"}), frozenset({"/other"})
STUCK, HEALTHY = key("ns/stuck"), key("ns/healthy")


@dataclass
class ShortEyes(FakeInspector):
    """Eyes that do not reach everything that some looks need."""

    missed: dict[BundleKey, frozenset[str]] = field(default_factory=dict)

    @override
    def look(self, key: BundleKey) -> Look | PartialLook | None:
        look = super().look(key)
        places = self.missed.get(key)
        if look is None or places is None:
            return look
        assert isinstance(look, Look)
        return PartialLook(replace(look, init=Init(InitState.NONE)), places)


@dataclass
class Others:
    """Who looks there. Implements `ports.RemoteInspector`."""

    inspector: FakeInspector
    clock: VirtualClock
    hangs: set[frozenset[str]] = field(default_factory=set)
    asked: list[tuple[float, tuple[BundleKey, ...]]] = field(default_factory=list)
    at_work: dict[frozenset[str], int] = field(default_factory=dict)
    takes: float = 5.0

    async def look(
        self, keys: Sequence[BundleKey], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        assert not self.at_work.get(places), "two look there at the same time"
        self.at_work[places] = 1
        self.asked.append((self.clock.now, tuple(keys)))
        seen = [self.inspector.tree.get(one) for one in keys]
        await self.clock.take(self.takes if places in self.hangs else 0.001)
        self.at_work[places] = 0
        return None if places in self.hangs else seen


@dataclass
class Far(Rig):
    """A rig some of whose bundles need what is out of reach."""

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self.cleaner.inspector = self.inspector = inspector = ShortEyes(
            {STUCK: dead(1), HEALTHY: dead(2)}
        )
        self.missed = inspector.missed
        self.missed[STUCK] = FAR
        self.others = Others(self.inspector, self.clock)
        stages = replace(self.loop._stages, inspector=self.inspector, far=self.others)
        self.loop = Loop(self.engine, stages, relist=self.relist)

    def verdict(self, one: BundleKey) -> Verdict | None:
        view = self.engine.view(one, self.clock.now)
        return None if view is None else view.judgement.verdict

    def when(self) -> list[float]:
        """When others were asked."""
        return [at for at, _ in self.others.asked]


@pytest.fixture
def far() -> Far:
    return Far(Policies(default=ENFORCE))


async def test_what_others_see_is_the_look(far: Far) -> None:
    await far.run_until(lambda: not far.inspector.tree)
    assert {one for _, one in far.cleaner.cleaned} == {STUCK, HEALTHY}


async def test_a_place_that_hangs_is_no_answer_and_delays_nobody_else(far: Far) -> None:
    far.others.hangs = {FAR}
    start = far.clock.now
    await far.run_until(lambda: far.verdict(STUCK) is not None)
    assert far.verdict(STUCK) is Verdict.UNKNOWN
    await far.run_until(lambda: HEALTHY not in far.inspector.tree)
    assert far.clock.now - start == pytest.approx(10.0, abs=0.2), "its grace, and no more"
    await far.run_for(3600)
    assert far.verdict(STUCK) is Verdict.UNKNOWN
    assert [one for _, one in far.cleaner.cleaned] == [HEALTHY]


async def test_a_place_that_hangs_is_asked_ever_more_rarely(far: Far) -> None:
    far.others.hangs = {FAR}
    await far.run_for(3600)
    times = far.when()
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] < 60
    assert min(pauses[-5:]) >= 300
    assert len(times) < 25


async def test_a_place_that_answers_again_is_heard_and_cleaned(far: Far) -> None:
    far.others.hangs = {FAR}
    await far.run_for(1000)
    far.others.hangs.clear()
    await far.run_until(lambda: not far.inspector.tree)


async def test_one_place_that_hangs_holds_no_other_up(far: Far) -> None:
    far.missed[HEALTHY] = OTHER
    far.others.hangs = {FAR}
    start = far.clock.now
    await far.run_until(lambda: HEALTHY not in far.inspector.tree)
    assert far.clock.now - start == pytest.approx(10.0, abs=0.2)


async def test_what_changes_while_others_look_is_looked_at_again(far: Far) -> None:
    """The look under way may have passed by what the hint is about."""
    far.others.hangs = set()
    far.others.takes = 1.0
    await far.run_for(0.0)
    far.inspector.tree[STUCK] = replace(dead(1), shim=Shim(ShimState.ALIVE))
    far.loop.emit(Hint(STUCK))
    await far.run_for(1.0)
    view = far.engine.view(STUCK, far.clock.now)
    assert view is not None
    assert view.judgement.verdict is Verdict.STOPPED


async def test_a_look_of_others_does_not_undo_a_later_whole_one_of_ours(far: Far) -> None:
    far.others.hangs = {FAR}
    lookers = far.others

    async def late(keys: Sequence[BundleKey], places: frozenset[str]) -> list[Look | None]:
        seen = [far.inspector.tree.get(one) for one in keys]
        del far.missed[STUCK]
        far.inspector.tree[STUCK] = replace(dead(1), shim=Shim(ShimState.ALIVE))
        far.loop.emit(Hint(STUCK))
        await far.clock.take(2.0)
        return seen

    lookers.look = late  # type: ignore[method-assign]  # answers late
    await far.run_for(5.0)
    assert far.verdict(STUCK) is Verdict.STOPPED


async def test_what_was_gone_when_others_looked_is_gone(far: Far) -> None:
    await far.run_for(1.0)
    del far.inspector.tree[STUCK]
    far.loop.emit(Hint(STUCK))
    await far.run_for(1.0)
    assert far.engine.view(STUCK, far.clock.now) is None
    assert not far.loop._looks._remote._places, "nothing is kept of what is gone"


async def test_nothing_is_cleaned_that_needs_a_place_which_has_come_to_hang(far: Far) -> None:
    """It was seen whole; before a cleanup is sent the place is asked once more."""
    await far.run_for(5.0)
    assert far.verdict(STUCK) is Verdict.LEFTOVER
    far.others.hangs = {FAR}
    await far.run_for(60.0)
    assert [one for _, one in far.cleaner.cleaned] == [HEALTHY]
    outcomes = [one for _, one in far.memory.observations if isinstance(one, Outcome)]
    assert [one.reason for one in outcomes if one.key == STUCK] == [BlockReason.HUNG]
    assert far.verdict(STUCK) is Verdict.UNKNOWN, "the look after that says so"
    far.others.hangs.clear()
    await far.run_until(lambda: not far.inspector.tree)


async def test_many_that_need_a_place_which_hangs_cost_one_deadline() -> None:
    far = Far(Policies(default=ENFORCE, parallel=8))
    many = [key(f"ns/b{n}") for n in range(300)]
    far.inspector.tree |= {one: dead(n + 10) for n, one in enumerate(many)}
    far.missed |= dict.fromkeys(many, FAR)
    far.others.hangs = {FAR}
    await far.run_until(lambda: all(far.verdict(one) is not None for one in many))
    assert len(far.others.asked) == 1
    assert far.others.at_work[FAR] == 0
    with anyio.fail_after(20):
        await far.run_for(60.0)
    assert len(far.others.asked) < 6
