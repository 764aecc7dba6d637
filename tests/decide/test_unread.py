"""A process that does not answer makes unknown whom it could belong to, and nobody else."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Containerd, Look, ProcessScan, Shim, ShimProcess, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.processes import UnreadProcess
from tests.decide.world import DOWN, UP, World, dead, key, running, stopped

pytestmark = pytest.mark.safety

UNNAMED = replace(dead(), shim=Shim(ShimState.UNNAMED, None, None))
MEMBER = replace(dead(), shim=Shim(ShimState.DEAD, "/s", "pod"))


def verdict(look: Look, unread: BundleKey | None, containerd: Containerd = DOWN) -> Verdict:
    world = World()
    world.listed(a=1)
    world.look(look)
    world.node(containerd, ProcessScan(answered=True, unread=(UnreadProcess(7, unread),)))
    return world.view().judgement.verdict


@pytest.mark.parametrize(
    ("look", "unread", "expected"),
    [
        (dead(), key("ns/a"), Verdict.UNKNOWN),
        (dead(), None, Verdict.UNKNOWN),
        (dead(), key("ns/b"), Verdict.LEFTOVER),
        (dead(), key("other/a"), Verdict.LEFTOVER),
        (MEMBER, key("ns/pod"), Verdict.UNKNOWN),
        (MEMBER, key("ns/b"), Verdict.LEFTOVER),
        (UNNAMED, key("ns/b"), Verdict.UNKNOWN),
        (UNNAMED, key("other/b"), Verdict.LEFTOVER),
        (running(), key("ns/a"), Verdict.RUNNING),
        (stopped(), key("ns/b"), Verdict.STOPPED),
    ],
)
def test_only_whom_it_could_belong_to_is_unknown(
    look: Look, unread: BundleKey | None, expected: Verdict
) -> None:
    assert verdict(look, unread) is expected


def test_containerd_that_does_not_list_a_task_says_that_no_shim_of_others_serves_it() -> None:
    assert verdict(UNNAMED, key("ns/b"), UP) is Verdict.LEFTOVER
    assert verdict(UNNAMED, key("ns/a"), UP) is Verdict.UNKNOWN


@pytest.mark.parametrize("whose", [None, key("ns/a")])
def test_once_it_answers_or_ends_everything_is_judged_again(whose: BundleKey | None) -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(DOWN, ProcessScan(answered=True))
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    world.node(DOWN, ProcessScan(answered=True, unread=(UnreadProcess(7, whose),)))
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    world.node(DOWN, ProcessScan(answered=True, shims=(ShimProcess(key("ns/a"), 7),)))
    assert world.view().judgement.verdict is Verdict.STOPPED
    world.node(DOWN, ProcessScan(answered=True))
    assert world.view().judgement.verdict is Verdict.LEFTOVER
