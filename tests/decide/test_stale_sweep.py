"""A sweep older than a death must not hide it until the next listing."""

import pytest

from reconciler.decide.decisions import AskNode, Verdict
from reconciler.model.evidence import Look, ShimProcess, Sweep
from tests.decide.world import World, dead, key, orphaned, running


@pytest.mark.parametrize(
    ("look", "verdict"), [(dead(), Verdict.LEFTOVER), (orphaned(), Verdict.ORPHANED)]
)
def test_a_shim_that_only_an_older_sweep_shows_is_asked_for_again(
    look: Look, verdict: Verdict
) -> None:
    world = World()
    world.listed(a=1)
    world.look(running())
    names = frozenset({b"a"}) if verdict is Verdict.LEFTOVER else frozenset()
    world.node(sweep=Sweep(True, shims=(ShimProcess(key(), 7),), cgroup_names=names))
    world.wait(60)
    before = len(world.said)

    world.look(look)
    assert any(isinstance(said, AskNode) for said in world.said[before:])
    world.node(sweep=Sweep(answered=True))
    assert world.view().judgement.verdict is verdict


def test_a_shim_that_every_sweep_shows_is_not_asked_for_for_ever() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    for _ in range(3):
        world.node(sweep=Sweep(True, shims=(ShimProcess(key(), 7),)))
    before = len(world.said)
    world.wait(3600)
    assert not any(isinstance(said, AskNode) for said in world.said[before:])
