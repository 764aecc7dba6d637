"""Requests: somebody may not wait. They shorten waits, and overrule nothing."""

import itertools

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import Braked, Clean, Phase
from reconciler.model.evidence import Look
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    CleanRequested,
    Guard,
    GuardsChecked,
    Refusal,
    ReleaseRequested,
)
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import Brakes, Orphans, Policies, Policy
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon
from reconciler.testing.simulator import Simulation
from tests.decide.world import (
    ENFORCE,
    SILENT,
    World,
    dead,
    key,
    leftover,
    newborn,
    orphaned,
    outcome,
    running,
    stopped,
)

SLOW = replace(ENFORCE, grace=600.0, threshold=86400.0)
RELEASE = ReleaseRequested(uid=0, pid=7)


def please(*names: str) -> CleanRequested:
    return CleanRequested(tuple(map(key, names or ("ns/a",))), uid=0, pid=7)


def refusal(world: World, name: str = "ns/a") -> str:
    return world.engine.request_refusal(key(name))


def test_a_request_shortens_the_wait_to_two_looks() -> None:
    world = leftover(SLOW)
    world.observe(please())
    assert world.phase() is Phase.WAITING
    assert world.view().due_in_seconds == pytest.approx(5.0)
    assert not [d for d in world.wait(4.9) if isinstance(d, Clean)]
    assert [d.key for d in world.wait(0.2) if isinstance(d, Clean)] == [key()]


def test_a_leftover_that_was_seen_long_ago_is_due_at_once() -> None:
    world = leftover(SLOW)
    world.wait(60.0)
    assert [d.key for d in world.observe(please()) if isinstance(d, Clean)] == [key()]
    assert world.engine.refusal(
        Clean(key(), dead().identity, claimed=False, attempt=1), world.stamp.mono, ()
    ) is None  # fmt: skip


def test_a_grace_that_is_shorter_stays() -> None:
    world = leftover(replace(ENFORCE, grace=1.0))
    world.observe(please())
    assert world.view().due_in_seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("look", "policy", "why"),
    [
        (running(), SLOW, "it is running: shim and init live"),
        (stopped(), SLOW, "it is stopped: "),
        (newborn(), SLOW, "it is starting: "),
        (orphaned(), replace(SLOW, orphans=Orphans.KILL), "it is orphaned: "),
        (dead(), replace(SLOW, protect=True, name="keep"), 'the rule "keep" protects it'),
        (dead(), replace(SLOW, enforce=False), "it may only be observed"),
    ],
    ids=["running", "stopped", "starting", "orphaned", "protected", "observed"],
)
def test_whatever_is_no_leftover_that_may_go_is_not_concerned(
    look: Look, policy: Policy, why: str
) -> None:
    world, same = World(Policies(default=policy)), World(Policies(default=policy))
    for one in (world, same):
        one.listed(a=1)
        one.look(look)
        one.node()
    assert refusal(world).startswith(why)
    assert world.observe(please()) == []
    assert world.view() == same.view()
    assert world.wait(3600.0) == same.wait(3600.0)


def test_who_asks_for_nothing_that_is_there_is_told() -> None:
    world = World()
    assert refusal(world, "ns/nothing") == "there is no such bundle"
    assert world.observe(please("ns/nothing")) == []
    world.listed(a=1)
    assert refusal(world) == "it was not looked at yet"


def test_guards_hold_what_was_requested() -> None:
    world = leftover(SLOW)
    world.wait(60.0)
    world.observe(GuardsChecked((Refusal(Guard.KERNEL, "no openat2"),)))
    world.observe(please())
    assert (world.cleans(), world.phase()) == ([], Phase.HELD)
    world.observe(RELEASE)
    assert (world.cleans(), world.phase()) == ([], Phase.HELD)
    world.observe(GuardsChecked())
    assert world.cleans() == ["ns/a"]


def test_brakes_hold_what_was_requested() -> None:
    world = World(Policies(default=SLOW, brakes=Brakes(max_per_minute=1)))
    world.listed(a=1, b=2)
    for name, ino in (("ns/a", 1), ("ns/b", 2)):
        world.look(dead(ino), name)
    world.node()
    world.wait(60.0)
    world.observe(please("ns/a", "ns/b"))
    assert len(world.cleans()) == 1
    world.wait(59.0)
    assert len(world.cleans()) == 1


@pytest.mark.parametrize("turn", ["alive", "unknown", "another", "disagreed"])
def test_a_request_means_one_leftover_and_ends_with_it(turn: str) -> None:
    """What lives again, or is another object, waits its own time from the beginning."""
    world = leftover(SLOW)
    world.observe(please())
    ino = 1
    match turn:
        case "alive":
            world.look(running())
            world.look(dead(age=0.0))
        case "unknown":
            world.node(SILENT)
            world.node()
        case "another":
            ino = 2
            world.look(dead(2))
        case _:
            world.wait(6.0)
            world.observe(outcome(Result.SKIPPED, look=dead()))
            assert len(world.cleans()) == 1
    world.look(dead(ino, age=3600.0))
    begun = len(world.cleans())
    world.wait(599.0)
    assert len(world.cleans()) == begun


def test_a_request_ends_the_pause_after_an_attempt() -> None:
    world = leftover(replace(ENFORCE, grace=0.0))
    world.observe(outcome(Result.BLOCKED, reason=BlockReason.MOUNT_BUSY))
    world.look(dead())
    assert world.phase() is Phase.BLOCKED
    assert [d.attempt for d in world.observe(please()) if isinstance(d, Clean)] == [2]


def test_a_reload_that_protects_overrules_a_request() -> None:
    world = leftover(SLOW)
    world.observe(please())
    world.engine.configure(world.stamp, Policies(default=replace(SLOW, protect=True)))
    world.wait(3600.0)
    assert world.cleans() == []


@pytest.mark.safety
@pytest.mark.parametrize("meanwhile", [replace(SLOW, protect=True), replace(SLOW, enforce=False)])
def test_a_request_does_not_outlive_a_reload(meanwhile: Policy) -> None:
    world = leftover(SLOW)
    world.observe(please())
    world.engine.configure(world.stamp, Policies(default=meanwhile))
    world.wait(300.0)
    world.engine.configure(world.stamp, Policies(default=SLOW))
    world.wait(60.0)
    assert world.cleans() == []


# ------------------------------------------------------------------------- releasing a brake


def mass_death() -> World:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    world.listed(**{f"b{n:02}": n + 1 for n in range(20)})
    for look in (running, dead):
        for n in range(20):
            world.look(look(n + 1), f"ns/b{n:02}")
        world.node()
    world.wait(5.0)
    assert (world.cleans(), world.phase("ns/b00")) == ([], Phase.HELD)
    return world


def test_mass_death_is_believed_at_once_if_somebody_says_so_and_it_is_told_who() -> None:
    world = mass_death()
    told = world.observe(RELEASE)
    assert len([one for one in told if isinstance(one, Clean)]) == 8
    (braked,) = [one for one in told if isinstance(one, Braked)]
    assert (braked.brake, braked.on) == ("mass death", False)
    assert braked.detail == "released by uid 0, pid 7"


def test_a_release_does_not_outlast_the_brake_it_was_meant_for() -> None:
    world = mass_death()
    world.observe(RELEASE)
    for look in (running, dead):
        for n in range(20):
            world.observe(outcome(Result.BLOCKED, n + 1, f"ns/b{n:02}", reason=BlockReason.IO))
            world.look(look(n + 1), f"ns/b{n:02}")
    begun = len(world.cleans())
    world.wait(60.0)
    assert world.phase("ns/b00") is Phase.HELD
    assert len(world.cleans()) == begun


def test_a_release_where_nothing_holds_is_not_saved_for_later() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    world.observe(RELEASE)
    world.listed(**{f"b{n:02}": n + 1 for n in range(20)})
    for look in (running, dead):
        for n in range(20):
            world.look(look(n + 1), f"ns/b{n:02}")
        world.node()
    world.wait(5.0)
    assert world.cleans() == []


def test_a_silent_containerd_holds_after_a_release_too() -> None:
    world = mass_death()
    world.node(SILENT)
    world.observe(RELEASE)
    world.wait(3600.0)
    assert world.cleans() == []


@pytest.mark.safety
def test_deaths_after_a_release_are_not_released() -> None:
    world = mass_death()
    world.node(SILENT)
    world.observe(RELEASE)
    world.listed(**{f"b{n:02}": n + 1 for n in range(20)}, later=99)
    world.look(running(99), "ns/later")
    world.node(SILENT)
    world.look(dead(99), "ns/later")
    world.node()
    world.wait(60.0)
    assert world.cleans() == [], "nobody has seen this one when the brake was released"
    world.observe(RELEASE)
    world.wait(5.0)
    assert world.cleans() != []


def test_the_rate_is_counted_anew_after_a_release() -> None:
    policies = Policies(
        default=replace(ENFORCE, grace=0.0), parallel=1000, brakes=Brakes(max_per_minute=5)
    )
    world = World(policies)
    world.listed(**{f"b{n:02}": n + 1 for n in range(12)})
    for n in range(12):
        world.look(dead(n + 1), f"ns/b{n:02}")
    world.node()
    assert len(world.cleans()) == 5
    world.observe(RELEASE)
    assert len(world.cleans()) == 10
    world.wait(59.0)
    assert len(world.cleans()) == 10


# ------------------------------------------------------------------------- on a simulated node


@pytest.mark.safety
def test_requests_at_every_moment_of_a_life_harm_nobody() -> None:
    """Whoever asks at any moment, again and again, gets nothing removed that may live."""
    names = [BundleKey("ns", name) for name in ("a", "b")]
    policies = Policies(default=SLOW, brakes=Brakes(max_per_minute=3))
    cleaned = 0
    for order in itertools.permutations(("shim", "init", "stop", "hung", "up", "anew"), 4):
        node = Node()
        simulation = Simulation(policies, node)

        def ask(simulation: Simulation = simulation) -> None:
            simulation.observe(CleanRequested(tuple(names), uid=0, pid=7))
            simulation.observe(RELEASE)
            simulation.wait(6.0)

        for name in names:
            node.start(name)
            ask()
        for step in order:
            act(node, names[0], step)
            ask()
            simulation.relist()
            ask()
        assert simulation.harm == [], order
        assert names[1] in node.bundles, order
        cleaned += len(simulation.cleaned)
    assert cleaned, "nothing was ever cleaned: nothing was tried"


def act(node: Node, name: BundleKey, step: str) -> None:
    """Let one thing happen, if it can happen now."""
    is_there = name in node.bundles
    match step:
        case "shim" if is_there:
            node.kill_shim(name)
        case "init" if is_there:
            node.kill_init(name)
        case "stop" if is_there and node.daemon is Daemon.UP:
            node.stop(name)
        case "hung":
            node.set_daemon(Daemon.HUNG)
        case "up":
            node.set_daemon(Daemon.UP)
        case "anew" if not is_there and node.daemon is Daemon.UP:
            node.start(name)
        case _:
            pass
