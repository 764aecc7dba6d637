"""The loop on doubles and in virtual time: nothing is lost, nothing is done twice."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

import anyio
import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.loop import Loop
from reconciler.loop.looks import SLICE, TOGETHER
from reconciler.model.decisions import Judged, Verdict
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Look,
    Node,
    PartialLook,
    ProcessScan,
    ShimProcess,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hint, NodeLooked, Resync, ResyncKind
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result, Step, StepResult
from reconciler.model.policy import Brakes, Policies
from reconciler.probe.tree import FilteredInspector
from tests.decide.world import ENFORCE, dead, key, running, stopped
from tests.support.fakes import FakeInspector
from tests.support.rig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig(Policies(default=ENFORCE))


async def test_a_dead_bundle_found_at_start_is_cleaned_after_its_grace(rig: Rig) -> None:
    rig.inspector.tree[key()] = dead()
    start = rig.clock.now
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.cleaner.cleaned[0][0] - start == pytest.approx(10.0, abs=0.1)
    assert rig.inspector.tree == {}


async def test_a_pile_is_cleaned_several_at_a_time_and_each_once() -> None:
    rig = Rig(Policies(default=replace(ENFORCE, grace=0.0), parallel=8, brakes=_no_brakes()))
    for n in range(100):
        rig.inspector.tree[key(f"ns/b{n}")] = dead(n + 1)
    rig.cleaner.takes = 0.05
    await rig.run_until(lambda: not rig.inspector.tree)
    assert len(rig.cleaner.cleaned) == 100
    assert rig.cleaner.most_at_once == 8


class Others:
    """Eyes of other processes: they see the same tree."""

    many = 2

    def __init__(self, inspector: FakeInspector) -> None:
        self.inspector = inspector
        self.looked: list[BundleKey] = []

    async def look(self, keys: Sequence[BundleKey]) -> Sequence[Look | None] | None:
        self.looked += keys
        await anyio.lowlevel.checkpoint()
        return [self.inspector.tree.get(one) for one in keys]


async def test_what_may_not_be_seen_is_not_seen_by_others_either(rig: Rig) -> None:
    wanted, hidden = key("ns/b"), {key(f"other/b{n}"): dead(n + 2) for n in range(1500)}
    rig.inspector.tree |= {wanted: dead(1), **hidden}
    rig.inspector.others = others = Others(rig.inspector)

    def may_see(one: BundleKey) -> bool:
        rig.clock.now += 0.001  # or all of them are looked at before anybody can help
        return one.namespace == "ns"

    narrow = FilteredInspector(rig.inspector, may_see)
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, inspector=narrow), relist=300.0)
    for one in hidden:
        rig.loop.emit(Hint(one))  # a shim of its lives, say
    await rig.run_for(400)
    assert others.looked == []
    assert {one for _, one in rig.cleaner.cleaned} == {wanted}
    assert rig.inspector.tree.keys() == hidden.keys()


PILE = {key(f"ns/b{n}"): dead(n + 1) for n in range(1500)}


async def look_at_a_pile(rig: Rig, kind: type[Others]) -> Others:
    """Run until all of a pile was looked at, so slowly that others can help."""

    class Slow(FakeInspector):
        @override
        def look(self, key: BundleKey) -> Look | PartialLook | None:
            rig.clock.now += 0.001
            return super().look(key)

    rig.inspector = Slow(dict(PILE))
    rig.inspector.others = others = kind(rig.inspector)
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, inspector=rig.inspector))
    await rig.run_until(lambda: len(list(rig.engine.views(rig.clock.now))) == len(PILE))
    return others


async def test_the_loop_turns_among_looks_that_take_long(rig: Rig) -> None:
    """Not only after all of those that would be made together if they were quick."""
    turned: list[int] = []

    class Slow(FakeInspector):
        @override
        def look(self, key: BundleKey) -> Look | PartialLook | None:
            rig.clock.now += SLICE
            return super().look(key)

        @override
        def moment(self) -> AbstractContextManager[object]:
            turned.append(len(self.looked))
            return super().moment()

    rig.inspector = Slow({one: PILE[one] for one in list(PILE)[:200]})
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, inspector=rig.inspector))
    await rig.run_until(lambda: len(rig.inspector.looked) == 200)
    assert [after - before for before, after in pairwise(turned)][1:] == [1] * (200 - TOGETHER - 1)


async def test_others_help_with_a_pile_and_everything_is_looked_at_once(rig: Rig) -> None:
    others = await look_at_a_pile(rig, Others)
    assert rig.inspector.looked
    assert others.looked
    assert sorted([*rig.inspector.looked, *others.looked]) == sorted(PILE)
    assert {view.key: view.look for view in rig.engine.views(rig.clock.now)} == PILE


class Silent(Others):
    """Others who give no answer, and that only once nothing else waits to be looked at."""

    @override
    async def look(self, keys: Sequence[BundleKey]) -> None:
        self.looked += keys
        while len(self.inspector.looked) + len(self.looked) < len(self.inspector.tree):
            await anyio.lowlevel.checkpoint()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()


async def test_what_others_did_not_answer_at_the_end_of_a_pile_is_looked_at_by_ourselves() -> None:
    rig = Rig(Policies())
    others = await look_at_a_pile(rig, Silent)
    assert others.looked
    assert sorted(rig.inspector.looked) == sorted(PILE)


async def test_living_bundles_are_left_alone_for_a_day(rig: Rig) -> None:
    rig.inspector.tree[key()] = running()
    await rig.run_for(80_000)
    assert rig.cleaner.cleaned == []
    assert rig.inspector.listings == pytest.approx(80_000 / 300, abs=2)


async def test_lost_events_cost_only_time_until_the_next_listing(rig: Rig) -> None:
    rig.inspector.tree[key()] = running()

    async def die_unheard() -> None:
        await rig.clock.take(10)
        rig.inspector.tree[key()] = dead()

    start = rig.clock.now
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(die_unheard)
        await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.cleaner.cleaned[0][0] - start == pytest.approx(310, abs=1)


async def test_an_event_leads_to_a_look_at_once(rig: Rig) -> None:
    await rig.run_for(1)
    rig.inspector.tree[key()] = running()
    rig.loop.emit(Hint(key()))
    await rig.run_for(0.0)
    assert rig.engine.view(key(), rig.clock.now) is not None


async def test_many_hints_of_one_bundle_are_one_look(rig: Rig) -> None:
    rig.inspector.tree[key()] = running()
    await rig.run_for(1)
    rig.inspector.looked.clear()
    for _ in range(1000):
        rig.loop.emit(Hint(key()))
    await rig.run_for(1)
    assert (
        len(rig.inspector.looked) <= 2
    )  # one for the hints, one for the listing at the start of run


async def test_doubt_relists(rig: Rig) -> None:
    await rig.run_for(1)
    before = rig.inspector.listings
    rig.loop.emit(Resync(ResyncKind.OVERFLOW))
    await rig.run_for(1)
    assert rig.inspector.listings >= before + 1


async def test_the_witnesses_are_asked_again_just_before_hands_are_sent(rig: Rig) -> None:
    rig.inspector.tree[key()] = dead()
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    asked = [o.since for _, o in rig.memory.observations if isinstance(o, NodeLooked)]
    assert rig.cleaner.cleaned[0][0] - asked[-1] <= 1.0


async def test_a_slow_containerd_delays_nobody_else(rig: Rig) -> None:
    rig.node_source.takes = 30.0
    rig.inspector.tree[key()] = running()
    start = rig.clock.now
    seen_at: list[float] = []

    def seen() -> bool:
        view = rig.engine.view(key(), rig.clock.now)
        if view is not None and not seen_at:
            seen_at.append(rig.clock.now)
        return rig.clock.now > start + 40

    await rig.run_until(seen)
    assert rig.cleaner.cleaned == []
    judged = [(s, d) for s, d in rig.memory.decisions if isinstance(d, Judged)]
    assert judged[0][0].mono - start < 1.0
    assert judged[0][1].judgement.verdict is Verdict.RUNNING


async def test_silence_of_containerd_is_waited_out(rig: Rig) -> None:
    rig.node_source.node = Node(ProcessScan(answered=True), Containerd(ContainerdState.NONE))
    rig.inspector.tree[key()] = dead()
    await rig.run_for(7200)
    assert rig.cleaner.cleaned == []
    rig.node_source.node = Node(ProcessScan(answered=True), Containerd(ContainerdState.UP))
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))


async def test_the_holders_of_a_blocked_bundle_are_watched_and_their_end_frees_it(rig: Rig) -> None:
    rig.inspector.tree[key()] = dead()
    held = True

    def blocked(bundle: BundleKey, identity: Identity) -> Outcome | None:
        if not held:
            return None
        holder = Holder(4711, "tail", "cwd")
        return Outcome(
            bundle, identity, Result.BLOCKED, BlockReason.MOUNT_BUSY, "busy", holders=(holder,)
        )

    rig.cleaner.answer = blocked
    await rig.run_until(lambda: bool(rig.exits.holders))
    assert list(rig.exits.holders[key()]) == [4711]
    held = False
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))


async def test_init_and_shim_of_what_lives_are_watched_and_forgotten_when_gone(rig: Rig) -> None:
    look = running()
    rig.inspector.tree[key()] = replace(look, shim=replace(look.shim, pid=99))
    await rig.run_for(1)
    assert rig.exits.expected[key()] == (look.init.pid, 99)
    rig.inspector.tree.clear()
    rig.loop.emit(Hint(key()))
    await rig.run_for(1)
    assert rig.exits.expected == {}


async def test_the_shim_of_a_stopped_task_stays_watched(rig: Rig) -> None:
    look = running()
    rig.inspector.tree[key()] = replace(look, shim=replace(look.shim, pid=99))
    await rig.run_for(1)
    rig.inspector.tree[key()] = stopped()
    rig.loop.emit(Hint(key()))
    await rig.run_for(1)
    assert rig.exits.expected[key()] == (None, 99)


async def test_the_shim_of_a_task_found_stopped_is_known_from_the_process_table(rig: Rig) -> None:
    scan = ProcessScan(answered=True, shims=(ShimProcess(key(), 77),))
    rig.node_source.node = Node(scan, Containerd(ContainerdState.UP))
    rig.inspector.tree[key()] = stopped()
    await rig.run_for(1)
    assert rig.exits.expected[key()] == (None, 77)


async def test_watches_are_set_before_the_looks_of_a_listing(rig: Rig) -> None:
    rig.inspector.tree[key()] = running()
    await rig.run_for(1)
    assert rig.watcher.followed == [key()]


async def test_a_backend_that_may_lose_events_is_listed_more_often(rig: Rig) -> None:
    rig.watcher.relist_hint = 10.0
    await rig.run_for(1000)
    assert rig.inspector.listings == pytest.approx(100, abs=2)


async def test_stop_ends_the_run(rig: Rig) -> None:
    rig.inspector.tree[key()] = running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.loop.run)
        rig.loop.stop()
    assert rig.cleaner.under_way == set()


async def test_what_came_in_before_the_end_is_heard_and_no_more_is_begun(rig: Rig) -> None:
    """Cleanups that were stopped say what they did; without it a removal would go untold."""
    rig.inspector.tree[key()] = dead()
    done = Outcome(key(), dead().identity, Result.CLEANED)

    def end() -> bool:
        rig.loop.emit(done)
        rig.loop.emit(Resync(ResyncKind.TIMER))
        rig.loop.stop()
        return False

    await rig.run_until(end)
    assert done in [said for _, said in rig.memory.observations]
    assert rig.inspector.listings == 1


@pytest.mark.safety
@pytest.mark.parametrize("relist", [300.0, None], ids=["daemon", "one pass"])
async def test_a_cleanup_waits_for_an_answer_for_some_attempts(relist: float | None) -> None:
    """Only so long may one shim that is stuck hold up a node; one pass has no second attempt."""
    rig = Rig(Policies(default=ENFORCE), relist=relist)
    rig.inspector.tree[key()] = dead()
    waits = Step("guards", StepResult.BLOCKED)

    def unanswered(key: BundleKey, identity: Identity) -> Outcome | None:
        if not rig.cleaner.patient[-1]:
            return None
        return Outcome(key, identity, Result.BLOCKED, BlockReason.OWNER, steps=(waits,))

    rig.cleaner.answer = unanswered
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.cleaner.patient == [*([True] * 6 if relist else []), False]


async def test_a_one_shot_run_ends_when_all_is_done() -> None:
    rig = Rig(Policies(default=replace(ENFORCE, grace=5.0)), relist=None)
    rig.inspector.tree[key()] = dead()
    rig.inspector.tree[key("ns/b")] = running(2)
    with anyio.fail_after(5):
        await rig.loop.run(rig.engine.is_settled)
    assert [k for _, k in rig.cleaner.cleaned] == [key()]


def _no_brakes() -> Brakes:
    return replace(Policies().brakes, max_per_minute=None)
