"""Brakes hold everything, and release it again."""

from collections.abc import Callable

from msgspec.structs import replace

from reconciler.decide.brakes import PATIENCE, RENEWED, Patience
from reconciler.model.decisions import Judged, Phase
from reconciler.model.evidence import Look
from reconciler.model.outcome import BlockReason, Outcome, Result, Step, StepResult
from reconciler.model.policy import Brakes, Policies
from tests.decide.world import (
    ENFORCE,
    SILENT,
    World,
    dead,
    key,
    outcome,
    running,
)

DAY = 86400.0


def many(world: World, count: int, look: Callable[[int], Look] = dead) -> None:
    world.listed(**{f"b{n:04}": n + 1 for n in range(count)})
    for n in range(count):
        world.look(look(n + 1), f"ns/b{n:04}")
    world.node()


def test_no_more_cleanups_are_under_way_than_allowed() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=0.0), parallel=3))
    many(world, 10)
    assert len(world.cleans()) == 3
    world.observe(outcome(Result.CLEANED, 1, "ns/b0000"))
    assert len(world.cleans()) == 4


def test_no_more_cleanups_begin_in_a_minute_than_allowed() -> None:
    policies = Policies(
        default=replace(ENFORCE, grace=0.0), parallel=1000, brakes=Brakes(max_per_minute=5)
    )
    world = World(policies)
    many(world, 12)
    assert len(world.cleans()) == 5
    assert world.phase("ns/b0011") is Phase.HELD
    world.wait(59)
    assert len(world.cleans()) == 5
    world.wait(2)
    assert len(world.cleans()) == 10
    world.wait(60)
    assert len(world.cleans()) == 12


def test_sudden_mass_death_is_held_and_believed_only_if_it_lasts() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for n in range(20):
        world.look(dead(n + 1), f"ns/b{n:04}")
    world.wait(599)
    assert world.cleans() == []
    assert world.phase("ns/b0000") is Phase.HELD
    world.wait(10)
    assert len(world.cleans()) == 8


def test_what_becomes_due_under_a_brake_is_told_as_held() -> None:
    """Who listens is told what a table, the page and the metrics show."""
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for n in range(20):
        world.look(dead(n + 1), f"ns/b{n:04}")
    world.wait(599)

    def told() -> list[tuple[Phase, str]]:
        mine = (d for d in world.said if isinstance(d, Judged) and d.key == key("ns/b0000"))
        return [(one.phase, one.cause) for one in mine]

    assert told()[-1] == (Phase.HELD, "mass death")
    assert world.engine.summary(world.stamp.mono).phases == {Phase.HELD: 20}
    assert world.view("ns/b0000").cause == "mass death: 20 bundles died at once"
    world.wait(10)
    assert told()[-1] == (Phase.CLEANING, "")


def test_mass_death_is_not_believed_while_containerd_is_silent() -> None:
    world = World(
        Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0), recheck=60.0)
    )
    many(world, 20, running)
    for n in range(20):
        world.look(dead(n + 1), f"ns/b{n:04}")
    world.node(SILENT)
    world.wait(DAY)
    assert world.cleans() == []


def test_mass_death_that_was_a_mistake_is_forgotten() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for look in (dead, running):
        for n in range(20):
            world.look(look(n + 1), f"ns/b{n:04}")
    world.wait(700)
    assert world.cleans() == []
    world.look(dead(1), "ns/b0000")
    world.wait(2)
    assert world.cleans() == ["ns/b0000"]


def test_a_pile_found_dead_is_no_mass_death() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), parallel=100))
    many(world, 50)
    world.wait(2)
    assert len(world.cleans()) == 50


UNANSWERED = (Step("guards", StepResult.BLOCKED),)
ANSWERED = (Step("guards", StepResult.NOTHING), Step("hooks", StepResult.NOTHING))


def waits(name: str) -> Outcome:
    blocked = outcome(Result.BLOCKED, 1, name)
    return replace(blocked, reason=BlockReason.OWNER, steps=UNANSWERED)


def test_nobody_waits_for_an_answer_for_ever() -> None:
    """However many wait, and whoever else is cleaned meanwhile: there is one time for all."""
    patience = Patience()
    for n in range(int(PATIENCE)):
        assert patience.lasts(n)
        patience.ended(waits(f"ns/b{n % 7}"), n)
        patience.ended(replace(outcome(Result.CLEANED, 1, "ns/other"), steps=ANSWERED), n)
        held = replace(outcome(Result.HELD, 1, "ns/b0"), reason=BlockReason.POLICY)
        for unasked in (held, replace(held, result=Result.SKIPPED, steps=UNANSWERED)):
            patience.ended(unasked, n)
    for n in range(7):  # sent before that time was over, or answered after it
        patience.ended(waits(f"ns/b{n}"), PATIENCE)
        assert not patience.lasts(PATIENCE)
        patience.ended(replace(outcome(Result.CLEANED, 1, f"ns/b{n}"), steps=ANSWERED), PATIENCE)
    assert not patience.lasts(RENEWED - 1)
    assert patience.lasts(RENEWED)
    patience.ended(waits("ns/b0"), RENEWED)
    assert not patience.lasts(RENEWED + PATIENCE)


def test_who_was_answered_in_time_leaves_the_next_all_of_it() -> None:
    patience = Patience()
    for now in range(0, 2 * int(PATIENCE), 10):
        for name in ("ns/a", "ns/b"):
            patience.ended(waits(name), now)
        for name in ("ns/a", "ns/b"):
            assert patience.lasts(now + 5)
            busy = replace(waits(name), reason=BlockReason.MOUNT_BUSY, steps=ANSWERED)
            patience.ended(busy, now + 5)
