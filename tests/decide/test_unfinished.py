"""Removals that were cut short are finished by the next run: once, and not before the guards."""

from msgspec.structs import replace

from reconciler.decide.engine import Engine
from reconciler.model.decisions import FinishRemoval
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, GuardsChecked, Hidden, Listed, Observation, Refusal
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, World, dead

HIDDEN = Hidden(BundleKey("ns", ".reconciler-9-ab"), Identity(1, 9, 1), 0.0, ours=True)
FINISH = FinishRemoval(HIDDEN.key, HIDDEN.identity)
LISTED = Listed(answered=True, present=True, hidden=(HIDDEN,))


def asked(world: World, observation: Observation) -> bool:
    return FINISH in world.observe(observation)


def unchecked() -> World:
    world = World()
    world.engine = Engine(world.policies)
    return world


def test_a_listing_that_comes_before_the_guards_is_not_forgotten() -> None:
    world = unchecked()
    assert not asked(world, LISTED)
    assert asked(world, GuardsChecked())


def test_a_refusing_guard_holds_it() -> None:
    world = unchecked()
    assert not asked(world, GuardsChecked((Refusal(Guard.KERNEL, "no"),)))
    assert not asked(world, LISTED)
    assert asked(world, GuardsChecked())


def test_it_is_never_asked_for_twice_at_a_time() -> None:
    world = World()
    assert asked(world, LISTED)
    assert not asked(world, LISTED)
    assert not asked(world, GuardsChecked())


def test_what_stayed_is_asked_for_again_at_the_next_listing_and_not_before() -> None:
    world = World()
    world.observe(LISTED)
    blocked = Outcome(HIDDEN.key, HIDDEN.identity, Result.BLOCKED, BlockReason.IO)
    assert not asked(world, blocked)
    assert not asked(world, GuardsChecked())
    assert asked(world, LISTED)


def test_what_our_own_hands_are_removing_right_now_is_left_to_them() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=0.0)))
    world.listed(a=9)
    world.look(dead(ino=9))
    world.node()
    assert world.cleans() == ["ns/a"]
    assert not asked(world, replace(LISTED, bundles=()))


def test_a_one_shot_run_waits_for_its_end() -> None:
    world = World()
    world.observe(LISTED)
    world.node()
    assert not world.engine.is_settled(world.stamp.mono)
    world.observe(Outcome(HIDDEN.key, HIDDEN.identity, Result.CLEANED))
    assert world.engine.is_settled(world.stamp.mono)
    assert world.engine.hidden == ()


def test_a_listing_of_another_namespace_changes_nothing() -> None:
    world = unchecked()
    world.observe(LISTED)
    world.observe(Listed(answered=True, present=True, namespace="other"))
    assert asked(world, GuardsChecked())
