"""The life cycle is one table: complete, obeyed by the engine, and read alike by everybody."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

import reconciler.decide
from reconciler.decide.lifecycle import OUTCOMES, TABLE, Event
from reconciler.model.decisions import Clean, Phase
from reconciler.model.ids import Identity
from reconciler.model.observations import Guard, GuardsChecked, Refusal
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Orphans
from tests.decide.world import ENFORCE, World, dead, key, leftover, orphaned, outcome

OF_OUTCOMES = frozenset(OUTCOMES.values())
REFUSED = GuardsChecked((Refusal(Guard.KERNEL, "no openat2"),))


def leading_to(phase: Phase) -> set[tuple[Event, Phase]]:
    """Every way into a phase from another one."""
    return {
        (event, before)
        for event, row in TABLE.items()
        for before, after in row.items()
        if after is phase is not before
    }


# ---------------------------------------------------------------------------- the table


@pytest.mark.safety
def test_every_event_has_a_next_phase_in_every_phase() -> None:
    assert set(TABLE) == set(Event)
    for event, row in TABLE.items():
        assert set(row) == set(Phase), event
        assert set(row.values()) <= set(Phase), event
    assert set(OUTCOMES) == set(Result)


def test_every_phase_can_be_reached() -> None:
    reached, before = {Phase.NONE}, set[Phase]()
    while reached != before:
        before = set(reached)
        reached |= {row[phase] for row in TABLE.values() for phase in before}
    assert reached == set(Phase)


@pytest.mark.safety
def test_only_what_is_due_and_not_held_is_cleaned() -> None:
    assert leading_to(Phase.CLEANING) == {(Event.BEGUN, Phase.DUE)}


@pytest.mark.safety
def test_only_an_outcome_ends_a_cleanup() -> None:
    for event in set(Event) - OF_OUTCOMES:
        assert TABLE[event][Phase.CLEANING] is Phase.CLEANING, event
    for event in OF_OUTCOMES:
        assert TABLE[event][Phase.CLEANING] is not Phase.CLEANING, event


@pytest.mark.safety
def test_a_brake_only_takes_away() -> None:
    assert leading_to(Phase.HELD) == {(Event.BRAKED, Phase.DUE)}
    for phase in set(Phase) - {Phase.DUE}:
        assert TABLE[Event.BRAKED][phase] is phase
    assert TABLE[Event.RELEASED][Phase.HELD] is Phase.DUE
    assert TABLE[Event.BEGUN][Phase.HELD] is Phase.HELD


def test_what_was_cleaned_stays_so() -> None:
    assert {row[Phase.CLEANED] for row in TABLE.values()} == {Phase.CLEANED}
    assert {event for event, _ in leading_to(Phase.CLEANED)} == {Event.CLEANED}


# ---------------------------------------------------------------------------- the engine


def test_nothing_but_the_table_changes_a_phase() -> None:
    writes = [
        path.name
        for path in Path(reconciler.decide.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "phase"
        and isinstance(node.ctx, ast.Store)
    ]
    assert sorted(writes) == ["debris_track.py", "track.py"]  # their move()


def test_view_and_summary_agree_on_what_a_brake_holds() -> None:
    world = leftover()
    world.observe(REFUSED)
    world.wait(11)
    assert (world.phase(), world.view().cause) == (Phase.HELD, "guards: no openat2")
    views = Counter(view.phase for view in world.engine.views(world.stamp.mono))
    assert world.engine.summary(world.stamp.mono).phases == views
    world.observe(GuardsChecked())
    views = Counter(view.phase for view in world.engine.views(world.stamp.mono))
    assert world.engine.summary(world.stamp.mono).phases == views == Counter({Phase.CLEANING: 1})


def test_what_may_only_be_observed_is_due_and_never_held() -> None:
    world = leftover(replace(ENFORCE, enforce=False))
    world.observe(REFUSED)
    world.wait(11)
    assert world.phase() is Phase.DUE


def test_a_failure_that_nobody_asked_for_takes_it_out_of_the_queue() -> None:
    # A journal whose beginning is lost tells of attempts that were never begun here.
    world = leftover()
    world.observe(REFUSED)
    world.wait(11)
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.MOUNT_BUSY))
    assert world.phase() is Phase.BLOCKED
    assert not [one for one in world.observe(GuardsChecked()) if isinstance(one, Clean)]
    world.wait(5.1)
    assert world.cleans() == ["ns/a"]


def test_an_orphan_that_was_ended_is_not_being_cleaned_any_more() -> None:
    world = World(replace(World().policies, default=replace(ENFORCE, orphans=Orphans.KILL)))
    world.listed(a=1)
    world.look(orphaned())
    world.node()
    world.wait(11)
    assert world.phase() is Phase.CLEANING
    world.observe(outcome(Result.KILLED))
    assert world.phase() is Phase.NONE
    world.look(orphaned())  # what dies takes a moment to leave its cgroup
    assert world.phase() is Phase.WAITING


def test_the_outcome_of_another_object_lets_it_be_judged_again() -> None:
    world = leftover()
    world.wait(11)
    world.observe(Outcome(key(), Identity(9, 9, 9), Result.CLEANED))
    world.look(dead())
    assert world.cleans() == ["ns/a", "ns/a"]
