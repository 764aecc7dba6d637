"""A process whose cgroup cannot be known makes unknown only those whose own is not known."""

import pytest
from msgspec.structs import replace

from reconciler.model.cgroups import CgroupSource
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import CgroupState, ProcessScan
from tests.decide.world import DOWN, World, dead

pytestmark = [pytest.mark.safety, pytest.mark.fault("megabytes of cgroup paths")]

TOLD = ProcessScan(answered=True)
UNTOLD = replace(TOLD, unplaced=7)


@pytest.mark.parametrize(
    ("source", "cgroup", "expected"),
    [
        (CgroupSource.RUNTIME, CgroupState.EMPTY, Verdict.LEFTOVER),
        (CgroupSource.RUNTIME, CgroupState.GONE, Verdict.LEFTOVER),
        (CgroupSource.CONFIG, CgroupState.EMPTY, Verdict.LEFTOVER),
        (CgroupSource.CONFIG, CgroupState.GONE, Verdict.UNKNOWN),
        (CgroupSource.NONE, CgroupState.EMPTY, Verdict.UNKNOWN),
        (CgroupSource.NONE, CgroupState.UNNAMED, Verdict.UNKNOWN),
    ],
)
def test_it_may_live_where_nobody_can_look(
    source: CgroupSource, cgroup: CgroupState, expected: Verdict
) -> None:
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), cgroup=cgroup, cgroup_source=source))
    world.node(DOWN, TOLD)
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    world.node(DOWN, UNTOLD)
    assert world.view().judgement.verdict is expected
    world.node(DOWN, replace(UNTOLD, unplaced=8))
    assert world.view().judgement.verdict is expected
    world.node(DOWN, TOLD)
    assert world.view().judgement.verdict is Verdict.LEFTOVER
