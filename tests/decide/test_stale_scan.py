"""Evidence older than a death must not hide it until the next listing."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import AskNode, LookAt, Verdict
from reconciler.model.evidence import CgroupState, Look, ProcessScan, ShimProcess
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, World, dead, key, orphaned, running


@pytest.mark.parametrize(
    ("look", "verdict"), [(dead(), Verdict.LEFTOVER), (orphaned(), Verdict.ORPHANED)]
)
def test_a_shim_that_only_an_older_sweep_shows_is_asked_for_again(
    look: Look, verdict: Verdict
) -> None:
    world = World()
    world.listed(a=1)
    world.look(running())
    names = frozenset({"a"}) if verdict is Verdict.LEFTOVER else frozenset()
    world.node(scan=ProcessScan(True, shims=(ShimProcess(key(), 7),), cgroup_names=names))
    world.wait(60)
    before = len(world.said)

    world.look(look)
    assert any(isinstance(said, AskNode) for said in world.said[before:])
    world.node(scan=ProcessScan(answered=True))
    assert world.view().judgement.verdict is verdict


def test_a_shim_that_every_sweep_shows_is_not_asked_for_for_ever() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    for _ in range(3):
        world.node(scan=ProcessScan(True, shims=(ShimProcess(key(), 7),)))
    before = len(world.said)
    world.wait(3600)
    assert not any(isinstance(said, AskNode) for said in world.said[before:])


def test_what_is_dying_is_looked_at_again_soon_and_then_ever_more_rarely() -> None:
    world = World(Policies(ENFORCE, recheck=10.0))
    world.listed(a=1)
    world.look(running())
    world.node()
    world.wait(60)
    began = world.now
    world.look(replace(dead(), cgroup=CgroupState.POPULATED))
    assert world.view().judgement.verdict is Verdict.ORPHANED
    looks = []
    for _ in range(400):
        looks += [world.now - began for d in world.wait(0.25) if isinstance(d, LookAt)]
    assert looks[0] <= 0.5
    assert looks[2] <= 1.5
    assert 12 <= len(looks) <= 20


def test_a_one_shot_command_does_not_wait_for_rechecks() -> None:
    world = World()
    world.listed(a=1)
    world.look(orphaned())
    world.node()
    assert world.engine.is_settled(world.stamp.mono)
    world.wait(0.3)
    assert any(isinstance(said, LookAt) for said in world.said[-3:])
    assert world.engine.is_settled(world.stamp.mono)
