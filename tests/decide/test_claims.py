"""A living shim that nobody claims: whom containerd is asked about, and what follows from it."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import AskNode, Clean, Died, Phase, Verdict
from reconciler.model.evidence import NO_LABELS, Containerd, InitState, Look, Shim, ShimState
from reconciler.model.outcome import Result
from reconciler.model.policy import Match, Policies, Policy, Rule, Shims
from tests.decide.world import (
    ENFORCE,
    SILENT,
    UP,
    World,
    dead,
    key,
    newborn,
    outcome,
    running,
    stopped,
)

pytestmark = pytest.mark.safety

A, B = key("ns/a"), key("ns/b")
KILL = Policies(default=replace(ENFORCE, shims=Shims.KILL))


def listing(*names: str) -> Containerd:
    return replace(UP, pid=7, tasks=frozenset(map(key, names)))


def denying(*names: str) -> Containerd:
    return replace(listing(), unrecorded=frozenset(map(key, names)))


def member(ino: int, look: Look, group: str = "a") -> Look:
    socket = None if look.shim.socket is None else f"/run/containerd/s/{group}"
    return replace(look, shim=replace(look.shim, group=group, socket=socket))


def leaked(policies: Policies = KILL) -> World:
    """A world with one abandoned shim at ns/a."""
    world = World(policies)
    world.listed(a=1)
    world.look(stopped())
    world.node(listing())
    assert world.engine.shims_to_ask() == [(A,)]
    world.node(denying("ns/a"))
    assert verdict(world) is Verdict.ABANDONED
    return world


def verdict(world: World, name: str = "ns/a") -> Verdict:
    return world.view(name).judgement.verdict


def asked(world: World) -> list[str]:
    return [one.why for one in world.said if isinstance(one, AskNode)]


def test_containerd_is_asked_for_records_where_it_denies_the_task_and_nobody_lives() -> None:
    world = World()
    world.listed(a=1, b=2, c=3)
    world.look(stopped(1), "ns/a")
    world.look(member(2, running(2), "b"), "ns/b")
    world.look(member(3, newborn(3), "c"), "ns/c")
    world.node(listing("ns/a", "ns/b"))
    world.wait(5.0)
    assert "records" not in asked(world)
    assert world.engine.shims_to_ask() == []
    world.node(listing("ns/b"))
    world.wait(5.0)
    assert asked(world).count("records") == 1
    assert world.engine.shims_to_ask() == [(A,)]
    world.node(listing("ns/b"))  # it was asked and gave no answer: it is not asked again and again
    world.wait(60.0)
    assert asked(world).count("records") == 1
    assert verdict(world) is Verdict.STOPPED


def test_only_a_denial_makes_it_abandoned_and_only_for_as_long_as_it_holds() -> None:
    world = leaked()
    age = world.view().age_seconds
    for word in (SILENT, listing(), listing("ns/a"), replace(listing(), recorded=frozenset({A}))):
        world.node(word)
        assert verdict(world) is Verdict.STOPPED, word
        world.node(denying("ns/a"))
        assert verdict(world) is Verdict.ABANDONED
    assert world.view().age_seconds == pytest.approx(age, abs=1.0)  # nothing of it lived again
    for _ in range(3):  # another listing and look change nothing
        world.listed(a=1)
        world.look(stopped())
        assert verdict(world) is Verdict.ABANDONED
    world.now += 1.0
    world.listed(a=2)  # another object of that name: it was not asked about
    world.look(stopped(2))
    assert verdict(world) is Verdict.STOPPED
    world.now += 1.0
    world.node(listing())
    assert verdict(world) is Verdict.STOPPED


@pytest.mark.parametrize(
    "other",
    [
        member(2, running(2)),
        replace(stopped(2), init=replace(stopped(2).init, state=InitState.NONE)),
        replace(stopped(2), shim=Shim(ShimState.ALIVE, "/run/containerd/s/x", None)),
        replace(running(2), shim=Shim(ShimState.NONE, None, None)),
        replace(running(2), shim=Shim(ShimState.ALIVE, "/run/containerd/s/x", "b")),
        None,
    ],
    ids=["lives", "may live", "group unknown", "unsure", "same socket", "never looked at"],
)
def test_a_shim_that_may_serve_another_bundle_is_never_asked_about(other: Look | None) -> None:
    world = World(KILL)
    world.listed(a=1, b=2)
    world.look(stopped(1), "ns/a")
    if other is not None:
        world.look(other, "ns/b")
    world.node(listing("ns/b"))
    assert world.engine.shims_to_ask() == []
    assert world.engine.shim_of(A) == ()


def test_every_name_of_a_pod_is_asked_about_its_sandbox_s_too() -> None:
    world = World()
    world.listed(b=1, c=2)
    for ino, name in ((1, "ns/b"), (2, "ns/c")):
        world.look(member(ino, stopped(ino), "pod"), name)
    world.node(listing())
    group = (key("ns/b"), key("ns/c"), key("ns/pod"))
    assert world.engine.shims_to_ask() == [group]
    world.node(denying("ns/b", "ns/c", "ns/pod"))
    assert verdict(world, "ns/b") is verdict(world, "ns/c") is Verdict.ABANDONED
    world.look(member(2, running(2), "pod"), "ns/c")  # it serves one of them after all
    assert world.engine.shims_to_ask() == []
    world.node(listing())
    assert verdict(world, "ns/b") is Verdict.STOPPED


def test_a_shim_in_creation_is_not_asked_about_before_it_has_settled() -> None:
    world = World()
    world.listed(a=1)
    look = replace(stopped(), newest_mtime=dead(age=0.0).newest_mtime)
    world.look(look)
    world.node(listing())
    assert world.engine.shims_to_ask() == []
    world.node(denying("ns/a"))
    assert verdict(world) is Verdict.STOPPED
    world.node(listing())
    world.wait(KILL.settle + 1.0)  # it has a time at which it is thought about again
    assert world.engine.shims_to_ask() == [(A,)]


def test_it_is_only_reported_unless_the_operator_wants_it_ended() -> None:
    for policy in (ENFORCE, replace(ENFORCE, protect=True, shims=Shims.KILL), Policy()):
        world = leaked(Policies(default=policy))
        world.wait(3600.0)
        assert world.phase() is Phase.NONE
        assert world.cleans() == []


@pytest.mark.parametrize(
    ("match", "policy", "ends"),
    [
        (Match(id="c"), replace(KILL.default, protect=True), False),
        (Match(id="c"), replace(KILL.default, shims=Shims.REPORT), False),
        (Match(id="c"), replace(KILL.default, enforce=False), False),
        (Match(pod="x"), replace(KILL.default, enforce=False), False),
        (Match(id="d"), replace(KILL.default, protect=True), True),
    ],
    ids=["protected", "reported", "observed", "labels unknown", "another"],
)
def test_a_rule_that_keeps_one_of_a_pod_keeps_the_shim_of_all(
    match: Match, policy: Policy, ends: bool
) -> None:
    policies = replace(KILL, rules=(Rule(match, replace(policy, name="r")),))
    world = World(policies)
    world.listed(b=1, c=2)
    for ino, name in ((1, "ns/b"), (2, "ns/c")):
        look = replace(stopped(ino), labels=replace(NO_LABELS, known=not match.needs_labels))
        world.look(member(ino, look, "pod"), name)
    world.node(listing())
    world.node(denying("ns/b", "ns/c", "ns/pod"))
    assert verdict(world, "ns/b") is verdict(world, "ns/c") is Verdict.ABANDONED
    world.wait(ENFORCE.grace + 1.0)
    assert bool(world.cleans()) is ends


def test_a_rule_that_comes_for_one_of_a_pod_holds_an_end_that_was_asked_for() -> None:
    world = World(KILL)
    world.listed(b=1, c=2)
    for ino, name in ((1, "ns/b"), (2, "ns/c")):
        world.look(member(ino, stopped(ino), "pod"), name)
    world.node(listing())
    world.node(denying("ns/b", "ns/c", "ns/pod"))
    world.wait(ENFORCE.grace + 1.0)
    clean = next(one for one in world.said if isinstance(one, Clean) and one.key.id == "b")
    assert world.engine.refusal(clean, world.stamp.mono, ()) is None
    rule = Rule(Match(id="c"), replace(KILL.default, name="r", protect=True))
    world.engine.configure(world.stamp, replace(KILL, rules=(rule,)))
    held = world.engine.refusal(clean, world.stamp.mono, ())
    assert held is not None
    assert (held.result, "ns/c may share its shim" in held.detail) == (Result.HELD, True)


def test_it_is_ended_after_its_grace_and_what_is_left_waits_for_one_of_its_own() -> None:
    world = leaked()
    world.wait(ENFORCE.grace - 1.0)
    assert world.cleans() == []
    world.wait(2.0)
    (clean,) = [one for one in world.said if isinstance(one, Clean)]
    assert (clean.shim, clean.kill, clean.wanted) == (True, False, Verdict.ABANDONED)
    world.observe(outcome(Result.KILLED))
    world.look(replace(dead(), cgroup=stopped().cgroup))
    world.node(listing())
    assert world.view().phase is Phase.WAITING
    world.wait(ENFORCE.grace - 1.0)
    assert world.cleans() == ["ns/a"]
    world.wait(2.0)
    assert world.cleans() == ["ns/a", "ns/a"]
    assert not [one for one in world.said if isinstance(one, Died)]


def test_the_end_of_many_abandoned_shims_is_no_sudden_mass_death() -> None:
    world = World(Policies(default=KILL.default, parallel=64))
    names = [f"n{number}" for number in range(20)]
    world.listed(**{name: number for number, name in enumerate(names, 1)})
    for number, name in enumerate(names, 1):
        world.look(member(number, stopped(number), name), f"ns/{name}")
    world.node(listing())
    world.node(denying(*(f"ns/{name}" for name in names)))
    world.wait(ENFORCE.grace + 1.0)
    assert len(world.cleans()) == len(names)
    for number, name in enumerate(names, 1):
        world.observe(outcome(Result.KILLED, number, f"ns/{name}"))
        world.look(dead(number), f"ns/{name}")
    world.node(listing())
    assert world.engine.hold is None


def test_what_runs_and_is_not_listed_is_marked_and_nothing_else() -> None:
    world = World(KILL)
    world.listed(a=1, b=2)
    world.look(running(1), "ns/a")
    world.look(member(2, running(2), "b"), "ns/b")
    assert not world.view().unlisted  # containerd was not asked yet
    world.node(SILENT)
    assert not world.view().unlisted
    world.node(listing("ns/b"))
    assert world.view().unlisted
    assert not world.view("ns/b").unlisted
    summary = world.engine.summary(world.stamp.mono)
    assert summary.unlisted == 1
    assert verdict(world) is Verdict.RUNNING
    assert "records" not in asked(world)
    world.wait(3600.0)
    assert world.cleans() == []
    world.look(replace(running(1), newest_mtime=dead(age=-3600.0).newest_mtime), "ns/a")
    assert not world.view().unlisted  # it was made a moment ago
