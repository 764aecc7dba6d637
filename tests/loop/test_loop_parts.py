"""Everything beside the engine fails now and then, or always: it costs time, and no life."""

import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

from reconciler.loop import Loop
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, dead, key, running
from tests.support.rig import Rig

P = ParamSpec("P")
T = TypeVar("T")

HOURS = 2 * 3600


def failing(chance: random.Random, share: float, work: Callable[P, T]) -> Callable[P, T]:
    def call(*args: P.args, **more: P.kwargs) -> T:
        if chance.random() < share:
            raise RuntimeError("a part of ours is broken")
        return work(*args, **more)

    return call


@pytest.mark.safety
@pytest.mark.breaks_parts
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
async def test_parts_that_fail_cost_time_and_no_life(share: float) -> None:
    rig, chance = Rig(Policies(default=ENFORCE)), random.Random(2)  # noqa: S311 - the same each time
    alive, fallen = {key(f"ns/r{n}") for n in range(6)}, {key(f"ns/d{n}") for n in range(6)}
    rig.inspector.tree |= {one: running(50 + n) for n, one in enumerate(sorted(alive))}
    rig.inspector.tree |= {one: dead(n + 1) for n, one in enumerate(sorted(fallen))}
    for part, names in (
        (rig.inspector, "list look look_each"),
        (rig.node_source, "scan containerd task inventory"),
        (rig.cleaner, "clean finish clean_debris"),
        (rig.guards, "check"),
        (rig.exits, "expect expect_holders expect_containerd forget run"),
        (rig.watcher, "follow run"),
        (rig.memory, "observed decided"),
    ):
        for name in names.split():
            setattr(part, name, failing(chance, share, getattr(part, name)))
    rig.loop = Loop(rig.engine, rig.stages, relist=rig.relist)
    end = rig.clock.now + HOURS
    await rig.run_until(lambda: rig.clock.now >= end)
    assert {one for _, one in rig.cleaner.begun} <= fallen
    assert rig.inspector.tree.keys() - fallen == alive
    assert rig.inspector.tree.keys() & fallen == (fallen if share == 1.0 else set())
    assert rig.stages.supervisor.counts["listener fakes"] > 0
