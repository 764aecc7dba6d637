"""Asking the node's witnesses: at once where something waits for it, and not too often."""

from msgspec.structs import replace

from reconciler.decide.asking import BURST, LONGEST, LULL, PAUSE
from reconciler.model.decisions import AskNode, LookAt, Verdict
from reconciler.model.evidence import CgroupState
from tests.decide.world import BOOTED, SILENT, World, dead, orphaned, running, stopped


def asked(world: World) -> int:
    return sum(isinstance(decision, AskNode) for decision in world.said)


def test_the_witnesses_are_asked_one_question_at_a_time() -> None:
    world = World()
    world.listed(a=1)
    assert asked(world) == 1
    for _ in range(50):
        world.now += 0.1
        world.look(dead())
    assert asked(world) == 1


def test_a_death_is_asked_about_at_once_also_right_after_another() -> None:
    """A shim and its init are seen to go one after the other: that is two questions."""
    world = World()
    world.listed(a=1)
    for number in range(2, 5):
        world.node()
        world.now += 0.001
        world.look(dead())
        assert asked(world) == number


def test_deaths_without_end_are_asked_about_twice_a_second() -> None:
    world = World()
    world.listed(a=1)
    world.node()
    for _ in range(10_000):
        world.now += 0.001
        before = asked(world)
        world.look(dead())
        if asked(world) > before:
            world.node()
    assert 20 <= asked(world) <= 20 + BURST + 2


def test_answers_nobody_asked_for_put_no_death_off_by_more_than_a_pause() -> None:
    """A cleanup is sent only after a fresh word: while many are cleaned, answers come anyway."""
    world = World()
    world.listed(a=1)
    for _ in range(100):
        world.now += 0.1
        world.node()
    before = asked(world)
    world.now += 0.001
    world.look(dead())
    world.wait(PAUSE)
    assert asked(world) == before + 1


def big_listing() -> World:
    """Many bundles that are looked at for the first time, and the answer to the first question."""
    world = World()
    world.listed(**{f"b{number}": number for number in range(1000)})
    world.node()
    world.now += 0.001
    assert asked(world) == 1
    return world


def test_all_that_a_listing_shows_takes_two_questions_however_long_the_looks_last() -> None:
    world = big_listing()
    for number in range(1000):
        world.wait(0.009)
        world.look(dead(number), f"ns/b{number}")
        assert asked(world) == (1 if number < 999 else 2), "the last look asks for all"
    world.node()
    world.wait(60.0)
    assert asked(world) == 2
    assert world.view("ns/b0").judgement.verdict is Verdict.LEFTOVER


def test_a_bundle_that_cannot_be_looked_at_puts_no_question_off_for_long() -> None:
    world = big_listing()
    world.look(dead(1), "ns/b1")
    world.wait(LULL - 0.01)
    assert asked(world) == 1
    world.wait(0.02)
    assert asked(world) == 2


def test_first_looks_without_end_put_no_question_off_for_longer_than_a_while() -> None:
    world = big_listing()
    for number in range(int(LONGEST / 0.5) + 2):
        world.look(dead(number), f"ns/b{number}")
        world.wait(0.5)
    assert asked(world) == 2


def test_what_is_gone_before_its_first_look_puts_off_nothing() -> None:
    world = World()
    world.listed(a=1, b=2)
    world.node()
    world.now += 0.001
    world.look(dead())
    assert asked(world) == 1
    world.look(None, "ns/b")
    assert asked(world) == 2


def test_a_living_node_asks_for_nothing_between_listings() -> None:
    world = World()
    world.listed(a=1, b=2)
    world.look(running(1))
    world.look(stopped(2), "ns/b")
    world.node()
    assert world.engine.deadline is None or world.engine.deadline > BOOTED + 3600
    assert world.wait(3600) == []


def test_a_silent_node_is_asked_again_without_new_looks() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(SILENT)
    said = world.wait(10.5)
    assert any(isinstance(d, AskNode) for d in said)
    assert not any(isinstance(d, LookAt) for d in said)


def test_an_orphan_that_stays_one_keeps_no_command_from_ending() -> None:
    """It is looked at again and again, while containerd may take seconds for each answer."""
    world = World()
    world.listed(a=1)
    world.look(orphaned())
    assert not world.engine.is_settled(world.stamp.mono)
    asked_at = world.now
    for _ in range(20):
        world.now += 2.0
        world.look(orphaned())
        world.node(since=asked_at)
        assert world.engine.is_settled(world.stamp.mono)
        asked_at = world.now
    world.now += 2.0
    world.look(dead())
    assert not world.engine.is_settled(world.stamp.mono)


def test_what_has_not_left_its_cgroup_yet_is_looked_at_again_at_once() -> None:
    """A death is to be noticed within 100 ms, and nothing tells when the last process is gone."""
    world = World()
    world.listed(a=1)
    world.node()
    world.look(running())
    world.look(replace(dead(), cgroup=CgroupState.POPULATED))
    assert world.view().judgement.verdict is Verdict.ORPHANED
    assert any(isinstance(decision, LookAt) for decision in world.wait(0.03))
    world.look(dead())
    assert world.view().judgement.verdict is Verdict.LEFTOVER


def test_what_stays_in_its_cgroup_is_looked_at_ever_more_rarely() -> None:
    world = World()
    world.listed(a=1)
    world.node()
    world.look(replace(dead(), cgroup=CgroupState.POPULATED))
    looks = 0
    for _ in range(6000):
        for decision in world.wait(0.01):
            if isinstance(decision, LookAt):
                looks += 1
                world.look(replace(dead(), cgroup=CgroupState.POPULATED))
    assert looks <= 20, "in a minute"
