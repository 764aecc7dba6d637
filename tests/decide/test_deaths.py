"""Each death of an init or a shim is counted once, and only if nobody ordered it."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import (
    Died,
)
from reconciler.model.evidence import (
    Look,
    ProcessScan,
    ShimProcess,
)
from reconciler.model.policy import Policies
from tests.decide.world import (
    ENFORCE,
    World,
    dead,
    key,
    orphaned,
    running,
    stopped,
)

DAY = 86400.0


def deaths(world: World) -> list[str]:
    return [d.cause.value for d in world.said if isinstance(d, Died)]


def test_an_orderly_exit_is_no_abnormal_termination() -> None:
    world = World()
    world.listed(a=1)
    for look in (running(), stopped(), dead(), None):
        world.look(look)
        world.wait(0.1)
    world.wait(60)
    assert deaths(world) == []


@pytest.mark.parametrize(
    ("looks", "causes"),
    [
        ([running(), dead()], ["both"]),
        ([running(), orphaned()], ["shim"]),
        ([running(), orphaned(), None], ["shim"]),
        ([stopped(), dead()], ["shim"]),
        ([dead()], []),
    ],
    ids=["both", "shim", "shim, then swept by containerd", "shim of a stopped task", "found dead"],
)
def test_a_death_is_counted_once_with_its_cause(
    looks: list[Look | None], causes: list[str]
) -> None:
    world = World()
    world.listed(a=1)
    world.node()
    for look in looks:
        world.look(look)
    world.wait(100)
    world.node()
    world.wait(100)
    assert deaths(world) == causes


def test_the_two_deaths_of_a_bundle_are_counted_one_after_the_other() -> None:
    world = World()
    world.listed(a=1)
    world.node()
    world.look(running())
    world.look(orphaned())
    world.wait(8)
    world.look(dead())
    world.node()
    world.wait(8)
    assert deaths(world) == ["shim", "init"]


def test_a_shim_that_only_an_older_sweep_shows_did_not_outlive_its_init() -> None:
    world = World()
    world.listed(a=1)
    old = ProcessScan(answered=True, shims=(ShimProcess(key(), 7),))
    world.node(scan=old)
    world.look(running())
    world.look(dead())
    world.node(scan=old)
    world.wait(1)
    world.node()
    world.wait(60)
    assert deaths(world) == ["both"]


def test_a_cleanup_counts_the_deaths_it_ends() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=0.0)))
    world.listed(a=1)
    world.node()
    world.look(running())
    world.look(dead())
    assert deaths(world) == ["both"]
