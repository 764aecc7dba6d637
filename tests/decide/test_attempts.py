"""What follows an attempt: blocked, skipped, ended; and what becomes of orphans."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import (
    Clean,
    LookAt,
    Phase,
)
from reconciler.model.observations import (
    Hint,
    HintKind,
    Listed,
)
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import Orphans, Policies, Policy
from tests.decide.world import (
    ENFORCE,
    World,
    dead,
    key,
    leftover,
    orphaned,
    outcome,
    running,
)

DAY = 86400.0


# ---------------------------------------------------------------------------- blocked, skipped


def test_blocked_is_tried_again_with_growing_pauses() -> None:
    world = leftover()
    world.wait(11)
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.MOUNT_BUSY))
    assert (world.phase(), world.view().cause) == (Phase.BLOCKED, "mount busy")
    world.wait(4.9)
    assert len(world.cleans()) == 1
    world.wait(0.2)
    assert len(world.cleans()) == 2
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.MOUNT_BUSY))
    world.wait(9.9)
    assert len(world.cleans()) == 2
    world.wait(0.2)
    assert len(world.cleans()) == 3


@pytest.mark.parametrize("kind", [HintKind.HOLDER_EXIT, HintKind.MOUNT])
def test_blocked_is_tried_at_once_when_the_obstacle_went_away(kind: HintKind) -> None:
    world = leftover()
    world.wait(11)
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.MOUNT_BUSY))
    assert LookAt(key(), kind) in world.observe(Hint(key(), kind))
    world.look(dead())
    assert len(world.cleans()) == 2


def test_our_own_half_done_work_does_not_make_it_look_young() -> None:
    world = leftover(replace(ENFORCE, threshold=3000.0))
    world.wait(11)
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.IO))
    world.look(dead(age=-world.now))  # its newest mtime is now
    world.wait(6)
    assert len(world.cleans()) == 2


def test_a_second_look_that_disagrees_restarts_the_grace() -> None:
    world = leftover()
    world.wait(11)
    world.observe(outcome(Result.SKIPPED, look=dead()))
    world.wait(9.9)
    assert len(world.cleans()) == 1
    world.wait(0.2)
    assert len(world.cleans()) == 2


def test_disagreement_with_no_grace_does_not_spin() -> None:
    world = leftover(replace(ENFORCE, grace=0.0))
    for attempt in range(5):
        assert len(world.cleans()) == attempt + 1
        world.observe(outcome(Result.SKIPPED, look=dead()))
        assert len(world.cleans()) == attempt + 1
        world.wait(300)


def test_looks_while_hands_are_on_it_change_nothing() -> None:
    world = leftover()
    world.wait(11)
    world.look(running())
    world.look(None)
    world.observe(Listed(answered=True, present=True))
    assert world.phase() is Phase.CLEANING


# ---------------------------------------------------------------------------- orphans


KILLING = replace(ENFORCE, orphans=Orphans.KILL)


def orphan_world(policy: Policy = KILLING) -> World:
    world = World(Policies(default=policy))
    world.listed(a=1)
    world.look(orphaned())
    world.node()
    return world


def kills(world: World) -> list[bool]:
    return [d.kill for d in world.said if isinstance(d, Clean)]


def test_an_orphan_is_ended_only_where_the_operator_said_so_and_after_the_grace() -> None:
    world = orphan_world()
    world.wait(9.9)
    assert kills(world) == []
    world.wait(0.2)
    assert kills(world) == [True]
    for harmless in (
        replace(KILLING, orphans=Orphans.REPORT),
        replace(KILLING, enforce=False),
        replace(KILLING, protect=True),
        replace(KILLING, threshold=2 * DAY, max_age=None),
    ):
        world = orphan_world(harmless)
        world.wait(DAY)
        assert kills(world) == []


def test_what_is_left_of_an_ended_orphan_waits_a_grace_of_its_own() -> None:
    world = orphan_world()
    world.wait(11)
    world.observe(outcome(Result.KILLED))
    world.look(dead())
    world.node()
    world.wait(9)
    assert kills(world) == [True]
    world.wait(2)
    assert kills(world) == [True, False]


def test_a_budget_never_ends_a_workload() -> None:
    world = orphan_world(replace(KILLING, grace=DAY, max_size=1, max_age=1.0))
    world.wait(100)
    assert kills(world) == []
