"""The node's word is fresh when a cleanup is sent, however long containerd takes to speak."""

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.loop.nodesource import FRESH, NodeWatch
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Node,
    ProcessScan,
    TaskState,
)
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policies
from reconciler.supervision import Supervisor
from tests.decide.world import ENFORCE, dead, key
from tests.support.clock import VirtualClock
from tests.support.fakes import FakeNodeSource
from tests.support.rig import Rig

UP = Containerd(ContainerdState.UP, pid=7)
SLOW = replace(UP, unlisted=frozenset({"ns"}), absent=frozenset({key()}))


class Slowly(FakeNodeSource):
    """Answers after a while, for which nobody has to wait."""

    @override
    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        self.asked += 1
        self.clock.now += self.takes
        return self.node.containerd


class Source:
    """A node source and what it did."""

    def __init__(self, said: Containerd) -> None:
        self.clock = VirtualClock()
        self.node_source = Slowly(self.clock, Node(ProcessScan(answered=True), said))
        self.guarded = 0
        self.source = NodeWatch(
            self.clock,
            self.node_source,
            Supervisor(),
            about=lambda _: [],
            shims=list,
            check_guards=self._guard,
            answered=lambda since, scan, said: None,
        )

    async def _guard(self) -> None:
        self.guarded += 1

    async def task(self, bundle: BundleKey) -> TaskState:
        return task_of(bundle, (await self.source.fresh(bundle)).containerd)


async def test_one_pass_is_fresh_enough_for_many() -> None:
    node = Source(UP)
    for _ in range(3):
        assert await node.task(key()) is TaskState.NOT_LISTED
    assert node.node_source.asked == 1
    node.clock.now += FRESH + 0.1
    await node.task(key())
    assert node.node_source.asked == 2
    assert node.node_source.asked_alone == []


@pytest.mark.safety
async def test_what_no_list_tells_is_asked_for_alone_each_time() -> None:
    node = Source(SLOW)
    assert await node.task(key()) is TaskState.NOT_FOUND
    node.node_source.node = Node(ProcessScan(answered=True), replace(SLOW, absent=frozenset()))
    assert await node.task(key()) is TaskState.NONE, "the earlier answer is not used again"
    node.clock.now += 60
    await node.task(key())
    assert node.node_source.asked_alone == [key(), key(), key()]
    assert node.node_source.asked == 1, "nobody waits for the list once it is known to be slow"
    assert await node.task(key("other/a")) is TaskState.NOT_LISTED
    assert node.node_source.asked == 2


@pytest.mark.safety
@pytest.mark.parametrize("takes", [FRESH - 0.1, FRESH + 0.1, 6.0])
async def test_an_answer_that_is_old_when_it_comes_is_not_acted_upon(takes: float) -> None:
    node = Source(UP)
    node.node_source.takes = takes
    await node.task(key())
    assert node.node_source.asked_alone == ([key()] if takes > FRESH else [])


@pytest.mark.parametrize("state", [ContainerdState.NONE, ContainerdState.DOWN])
async def test_who_does_not_answer_at_all_is_not_asked_alone(state: ContainerdState) -> None:
    node = Source(Containerd(state))
    node.node_source.takes = 6.0
    await node.task(key())
    assert node.node_source.asked_alone == []


@pytest.mark.safety
async def test_guards_are_checked_before_the_single_answer_of_another_containerd_counts() -> None:
    node = Source(SLOW)
    await node.task(key())
    assert node.guarded == 1
    node.node_source.node = Node(ProcessScan(answered=True), replace(SLOW, pid=8))
    await node.task(key())
    assert node.guarded == 2
    await node.task(key())
    assert node.guarded == 2


@pytest.mark.safety
async def test_a_containerd_that_falls_silent_is_heard_of_by_everybody() -> None:
    node = Source(SLOW)
    await node.task(key())
    node.clock.now += 60
    node.node_source.node = Node(ProcessScan(answered=True), Containerd())
    assert await node.task(key()) is TaskState.NONE
    assert node.node_source.asked == 2


async def test_a_removal_of_ours_that_was_cut_short_is_no_task() -> None:
    node = Source(SLOW)
    for _ in range(2):
        await node.source.fresh(key("ns/.reconciler-9-ab"))
    assert node.node_source.asked_alone == []


async def test_a_leftover_is_cleaned_although_no_list_ever_comes() -> None:
    rig = Rig(Policies(default=ENFORCE))
    rig.node_source.node = Node(ProcessScan(answered=True), SLOW)
    rig.node_source.takes = 3.0
    rig.inspector.tree = {key(): dead(), key("ns/b"): dead(2)}
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert rig.node_source.asked_alone == [key()]
    await rig.run_for(3600)
    assert [cleaned for _, cleaned in rig.cleaner.cleaned] == [key()]
