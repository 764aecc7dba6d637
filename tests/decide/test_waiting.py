"""What lengthens and shortens the wait: clocks, budgets, policies."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import (
    BudgetKind,
    OverBudget,
    Phase,
)
from reconciler.model.evidence import (
    Labels,
    Look,
)
from reconciler.model.labels import Known
from reconciler.model.policy import Match, Policies, Policy, Rule
from tests.decide.world import (
    BOOTED,
    ENFORCE,
    EPOCH,
    World,
    dead,
    key,
    leftover,
    newborn,
    running,
)

DAY = 86400.0


# ---------------------------------------------------------------------------- clocks


@pytest.mark.fault("wall clock jumps")
def test_a_wall_clock_that_jumps_ahead_makes_nothing_older() -> None:
    world = leftover(replace(ENFORCE, threshold=DAY))
    world.wall_offset = 365 * DAY
    world.look(dead())
    world.wait(60)
    assert world.cleans() == []


@pytest.mark.fault("wall clock jumps")
def test_a_wall_clock_that_was_wrong_at_boot_makes_nothing_older_than_the_boot() -> None:
    world = World(Policies(default=replace(ENFORCE, threshold=BOOTED + 1000.0)))
    world.listed(a=1)
    world.look(dead(age=EPOCH))
    world.node()
    world.wait(900)
    assert world.cleans() == []


@pytest.mark.fault("mtime in the future")
def test_a_file_from_the_future_is_young() -> None:
    world = World(Policies(default=replace(ENFORCE, threshold=60.0)))
    world.listed(a=1)
    world.look(dead(age=-10 * DAY))
    world.node()
    world.wait(59)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


@pytest.mark.fault("mtime in the future")
def test_a_file_from_the_future_does_not_stay_young_with_every_look() -> None:
    """Found by the node machine: a clock set back a day kept a dead creation `starting`."""
    world = World()
    world.listed(a=1)
    for _ in range(20):
        world.look(replace(newborn(), newest_mtime=EPOCH + DAY))
        world.node()
        world.wait(20)
    assert world.cleans() == ["ns/a"]


# ---------------------------------------------------------------------------- budgets


def test_an_age_budget_makes_a_leftover_due_at_once() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=DAY, max_age=3000.0)))
    world.listed(a=1)
    world.look(dead(age=3600.0))
    world.node()
    assert world.cleans() == ["ns/a"]


def test_a_size_budget_takes_the_oldest_until_the_rest_fits() -> None:
    policy = replace(ENFORCE, grace=DAY, max_size=10_000)
    world = World(Policies(default=policy, node_max_size=None))
    world.listed(a=1, b=2, c=3, d=4)
    ages = {"a": 100.0, "b": 400.0, "c": 300.0, "d": 200.0}
    for ino, (name, age) in enumerate(ages.items(), 1):
        world.look(dead(ino, age=age, size=4096), f"ns/{name}")
    world.node()
    world.wait(1)
    assert world.cleans() == ["ns/b", "ns/c"]


def test_a_node_budget_counts_all_namespaces_together() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=DAY), node_max_size=5000))
    for ino, name in enumerate(["one/a", "two/b"], 1):
        world.look(dead(ino, age=100.0 * ino, size=4096), name)
    world.wait(1)
    world.node()
    world.wait(1)
    assert world.cleans() == ["two/b"]


def test_a_running_task_over_a_budget_is_reported_once_and_not_touched() -> None:
    world = World(Policies(default=replace(ENFORCE, max_age=7200.0, max_size=100)))
    world.listed(a=1)
    world.look(running())
    world.node()
    world.wait(DAY)
    world.look(running())
    said = [d for d in world.said if isinstance(d, OverBudget)]
    assert said == [OverBudget(key(), BudgetKind.SIZE), OverBudget(key(), BudgetKind.AGE)]
    assert world.cleans() == []


# ---------------------------------------------------------------------------- policies


PROTECT = Rule(
    Match(namespace="ns", pod_namespace="kube-*"), replace(ENFORCE, name="critical", protect=True)
)


@pytest.mark.parametrize(
    ("look", "phase"),
    [
        (dead(pod_ns="kube-system"), Phase.PROTECTED),
        (dead(pod_ns="shop"), Phase.WAITING),
        (replace(dead(), labels=Labels()), Phase.PROTECTED),
    ],
    ids=["matches", "does not match", "config.json missing"],
)
def test_a_protecting_rule_fails_safe(look: Look, phase: Phase) -> None:
    world = World(Policies(default=ENFORCE, rules=(PROTECT,)))
    world.listed(a=1)
    world.look(look)
    world.node()
    assert world.phase() is phase


def test_labels_are_inherited_from_the_sandbox_and_remembered() -> None:
    world = World(Policies(default=ENFORCE, rules=(PROTECT,)))
    world.listed(pod=1, a=2)
    world.look(dead(1, pod_ns="shop"), "ns/pod")
    world.look(replace(dead(2), labels=Labels(sandbox="pod")), "ns/a")
    world.node()
    assert world.phase() is Phase.WAITING
    world.look(replace(dead(1), labels=Labels()), "ns/pod")
    assert world.phase("ns/pod") is Phase.WAITING


@pytest.mark.parametrize(
    ("match", "phase"),
    [
        (Match(pod_namespace="shop"), Phase.PROTECTED),
        (Match(pod_namespace="kube-*"), Phase.WAITING),
        (Match(pod_namespace="shop", container="db"), Phase.PROTECTED),
        (Match(pod_namespace="kube-*", container="db"), Phase.WAITING),
        (Match(annotations=(("team", "x"),)), Phase.PROTECTED),
    ],
    ids=["pod fits", "pod does not", "container might", "not in that pod", "annotation might"],
)
def test_what_a_sandbox_does_not_tell_is_no_reason_to_remove(match: Match, phase: Phase) -> None:
    """The pod is known, the container is not: a rule that asks for it might match."""
    rule = Rule(match, replace(ENFORCE, name="critical", protect=True))
    world = World(Policies(default=ENFORCE, rules=(rule,)))
    world.listed(pod=1, a=2)
    world.look(dead(1, pod_ns="shop"), "ns/pod")
    world.look(replace(dead(2), labels=Labels(sandbox="pod")), "ns/a")
    world.node()
    assert world.phase() is phase


@pytest.mark.parametrize("sandbox", ["gone", "a"], ids=["not there", "itself"])
def test_a_sandbox_that_tells_nothing_protects(sandbox: str) -> None:
    world = World(Policies(default=ENFORCE, rules=(PROTECT,)))
    world.listed(a=2)
    world.look(replace(dead(2), labels=Labels(sandbox=sandbox)))
    world.node()
    assert world.phase() is Phase.PROTECTED


def test_it_can_be_said_why_a_policy_applies() -> None:
    rules = (
        Rule(Match(), Policy(name="all")),
        Rule(Match(namespace="k*", id="x"), Policy(name="names")),
        Rule(Match(pod="p*"), Policy(name="pod")),
        Rule(Match(container="c", annotations=(("a.b", "1"),)), Policy(name="own")),
    )
    policies, unread = Policies(rules=rules), "config.json cannot be read"
    nothing, plain = Known(Labels()), Known(Labels(known=True))
    kube, pod = key("kube/x"), Labels(known=True, pod="p1")

    def why(name: str, known: Known, policies: Policies = policies) -> str:
        return policies.why(name, kube, known)

    assert why("cleanup", plain, Policies()) == "there is no rule"
    assert why("cleanup", plain) == "no rule fits"
    assert why("all", nothing) == "{} fits"
    assert why("names", nothing) == '{ namespace = "k*", id = "x" } fits'
    fits = '{ pod = "p*" } fits'
    assert why("pod", Known(pod)) == fits
    assert why("pod", nothing) == f'{{ pod = "p*" }} may fit: {unread}'
    assert why("pod", Known(Labels(), pod)) == f"{fits}: {unread}, its pod's is known"
    member = Known(Labels(known=True, sandbox="s"), pod)
    says_little = "config.json does not say all, its pod's is known"
    assert why("pod", member) == f"{fits}: {says_little}"
    own = '{ container = "c", annotation."a.b" = "1" }'
    assert why("own", Known(Labels(), pod)) == f"{own} may fit: {unread}, its pod's is known"


def test_other_policies_take_hold_at_once() -> None:
    world = leftover(replace(ENFORCE, grace=DAY))
    stamp = world.stamp
    world.said += world.engine.configure(stamp, Policies(default=replace(ENFORCE, grace=0.0)))
    assert world.cleans() == ["ns/a"]
    world = leftover(replace(ENFORCE, grace=0.0, enforce=False))
    assert world.phase() is Phase.DUE
    rule = Rule(Match(), Policy(name="all", protect=True))
    world.said += world.engine.configure(world.stamp, Policies(rules=(rule,)))
    assert world.phase() is Phase.PROTECTED
