"""Labels: whatever is missing of them, a rule that protects the true bundle protects it."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.model.decisions import Clean, Phase
from reconciler.model.evidence import NO_LABELS, Labels, Look
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known, joined
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Match, Policies, Policy, Rule
from tests.decide.world import BOOTED, ENFORCE, World, dead, key

MEMBER = Labels(True, "kube-system", "dns-1", "dns", "pod", (("team", "core"),))
SANDBOX = Labels(True, "kube-system", "dns-1", "", "pod", (("team", "core"), ("tier", "1")))
KEY = BundleKey("ns", "a")
SOMETHING = ("pod_namespace", "pod", "container", "sandbox")

globs = st.sampled_from(["*", "kube-*", "dns*", "core", "shop", "?", "1"])
maybe = st.none() | globs
matches = st.builds(
    Match,
    namespace=st.sampled_from([None, "ns", "other"]),
    pod_namespace=maybe,
    pod=maybe,
    container=maybe,
    annotations=st.lists(st.tuples(st.sampled_from(["team", "tier"]), globs), max_size=2).map(
        tuple
    ),
)


def subset(full: Labels) -> st.SearchStrategy[Labels]:
    """Any part of what CRI wrote into one config.json, or none of it: that file is gone."""
    names = st.sets(st.sampled_from(SOMETHING))
    parts = names.map(lambda gone: msgspec.structs.replace(full, **dict.fromkeys(gone, "")))
    return st.just(NO_LABELS) | st.just(Labels(sandbox="pod")) | parts


def protecting(match: Match) -> Policies:
    rule = Rule(match, Policy("critical", protect=True))
    return Policies(default=replace(ENFORCE, grace=0.0), rules=(rule,))


@pytest.mark.safety
@given(match=matches, own=subset(MEMBER), pod=subset(SANDBOX), without=st.booleans())
def test_what_is_missing_never_takes_protection_away(
    match: Match, own: Labels, pod: Labels, without: bool
) -> None:
    """``own`` and ``pod``: any part of what is true. A config.json that says nothing of a pod at
    all is that of a container in none, so one word of it at least has to be left."""
    policies, truth = protecting(match), Known(MEMBER, SANDBOX)
    if not policies.applied(KEY, truth).protect:
        return
    if own.known and not any(getattr(own, name) for name in SOMETHING):
        return
    found = NO_LABELS if without else pod
    assert policies.applied(KEY, Known(own, found)).protect


@given(match=matches, own=subset(MEMBER), pod=subset(SANDBOX))
def test_a_rule_that_does_not_protect_needs_the_whole_truth(
    match: Match, own: Labels, pod: Labels
) -> None:
    """Its own wait or mode may be a shorter one: what only might fit does not get it."""
    rule = Rule(match, Policy("fast", enforce=True, grace=0.0))
    applied = Policies(rules=(rule,)).applied(KEY, Known(own, pod))
    if applied.name == "fast":
        assert Policies(rules=(rule,)).applied(KEY, Known(MEMBER, SANDBOX)).name == "fast"


@pytest.mark.parametrize(
    ("own", "match", "protected"),
    [
        (Labels(True), Match(pod_namespace="kube-*"), False),
        (Labels(True), Match(annotations=(("team", "*"),)), False),
        (SANDBOX, Match(container="dns"), False),
        (SANDBOX, Match(annotations=(("other", "*"),)), False),
        (Labels(True, sandbox="pod"), Match(pod_namespace="kube-*"), True),
    ],
    ids=["in no pod", "no annotation", "a sandbox's container", "a sandbox without it", "unknown"],
)
def test_what_is_known_not_to_fit_is_not_protected(
    own: Labels, match: Match, protected: bool
) -> None:
    known = Known(own, is_sandbox=own is SANDBOX)
    assert protecting(match).applied(KEY, known).protect is protected


def look(ino: int, labels: Labels) -> Look:
    return replace(dead(ino), labels=labels)


@pytest.mark.safety
@pytest.mark.parametrize("order", list(permutations(("pod", "member", "node"))))
def test_a_member_that_names_only_its_sandbox_is_protected_in_every_order(
    order: tuple[str, ...],
) -> None:
    """Its sandbox's labels come before or after, and are remembered when that is gone."""
    world = World(protecting(Match(pod_namespace="kube-*")))
    world.listed(pod=1, a=2)
    for what in order:
        match what:
            case "pod":
                world.look(look(1, SANDBOX), "ns/pod")
            case "member":
                world.look(look(2, Labels(True, sandbox="pod")), "ns/a")
            case _:
                world.node()
    assert world.phase() is Phase.PROTECTED
    world.look(None, "ns/pod")
    world.wait(100)
    world.look(look(2, Labels(True, sandbox="pod")), "ns/a")
    assert world.phase() is Phase.PROTECTED
    assert world.cleans() == []


def test_a_member_of_a_pod_that_is_not_meant_goes_even_if_the_pod_went_first() -> None:
    world = World(protecting(Match(pod_namespace="kube-*")))
    shop = msgspec.structs.replace(SANDBOX, pod_namespace="shop")
    world.listed(pod=1, a=2)
    world.look(look(2, Labels(True, sandbox="pod")), "ns/a")
    world.node()
    assert world.phase() is Phase.PROTECTED  # as long as nothing is known of its pod
    begun = world.look(look(1, shop), "ns/pod")
    assert {one.key for one in begun if isinstance(one, Clean)} == {key("ns/pod"), key("ns/a")}


@pytest.mark.safety
def test_a_sandbox_that_turns_out_to_be_protected_takes_a_queued_member_out_of_the_queue() -> None:
    """The member is not begun by the very observation that shows the rule to fit."""
    rule = Rule(Match(pod_namespace="kube-*"), Policy("critical", protect=True))
    fast = Rule(Match(pod="x*"), replace(ENFORCE, name="fast", grace=0.0))
    world = World(Policies(default=ENFORCE, rules=(fast, rule)))
    world.listed(pod=1, a=2)
    world.look(look(1, msgspec.structs.replace(SANDBOX, pod_namespace="", pod="")), "ns/pod")
    world.look(look(2, Labels(True, container="c", sandbox="pod")), "ns/a")
    world.node()
    begun = world.look(look(1, SANDBOX), "ns/pod")
    assert [one for one in begun if isinstance(one, Clean)] == []
    assert world.phase() is Phase.PROTECTED


def test_what_was_read_once_stays_known() -> None:
    assert joined(NO_LABELS, MEMBER) == MEMBER
    assert joined(Labels(True, sandbox="pod"), MEMBER) == MEMBER
    assert joined(MEMBER, Labels(sandbox="pod")) is MEMBER
    assert joined(Labels(sandbox="x"), NO_LABELS) == Labels(sandbox="x")


KEEP = Rule(Match(annotations=(("keep", "*"),)), Policy("keep", protect=True))
KEPT = Policies(default=ENFORCE, rules=(KEEP,))
REQUEST = Clean(key("ns/a"), dead().identity, False, 1)


def due(look: Look) -> World:
    """A world in which a leftover was asked for before any rule spoke of annotations."""
    world = World()
    world.listed(a=1)
    world.look(look)
    world.node()
    world.wait(700)
    assert REQUEST in world.said
    return world


def objection(world: World) -> Outcome | None:
    return world.engine.refusal(REQUEST, BOOTED + world.now, ())


@pytest.mark.safety
def test_a_new_annotation_rule_holds_back_what_was_asked_for() -> None:
    """Its latest look did not ask for the annotation; the one after the outcome does."""
    world = due(dead())
    assert objection(world) is None
    world.engine.configure(world.stamp, KEPT)
    held = objection(world)
    assert held is not None
    assert held.detail == 'the rule "keep" protects it'
    world.observe(held)
    assert next(world.engine.tracks).phase is Phase.PROTECTED
    world.look(dead())
    world.node()
    assert next(world.engine.tracks).phase is not Phase.PROTECTED


@pytest.mark.safety
@pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED, Result.SKIPPED])
def test_an_attempt_is_no_look_that_asks_for_annotations(result: Result) -> None:
    """Not before the rule nor after it, and whatever the worker's own look has told."""
    for rule_first in (True, False):
        world = due(dead())
        outcome = Outcome(key("ns/a"), dead().identity, result, look=dead())
        if rule_first:
            world.engine.configure(world.stamp, KEPT)
        world.observe(outcome)
        if not rule_first:
            world.engine.configure(world.stamp, KEPT)
        world.wait(10)
        assert next(world.engine.tracks).phase is Phase.PROTECTED


@pytest.mark.safety
def test_a_config_that_is_gone_does_not_tell_of_a_new_annotation() -> None:
    """What was read of it once was not asked for that; what it told all the same is kept."""
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), labels=Labels(True, "shop", "web", "", "a")))
    world.look(replace(dead(), labels=NO_LABELS))
    world.node()
    world.engine.configure(world.stamp, KEPT)
    (track,) = world.engine.tracks
    assert track.phase is Phase.PROTECTED
    assert track.labels.pod_namespace == "shop"


@pytest.mark.safety
def test_a_sandbox_that_is_gone_does_not_tell_of_a_new_annotation() -> None:
    member = Labels(True, "shop", "web", "web", "pod")
    world = World(replace(KEPT, rules=(Rule(Match(pod="x"), Policy("x")),)))
    world.listed(a=1, pod=2)
    world.look(replace(dead(1), labels=member))
    world.look(replace(dead(2), labels=msgspec.structs.replace(member, container="")), "ns/pod")
    world.node()
    world.listed(a=1)
    (track,) = world.engine.tracks
    assert track.pod.known
    world.engine.configure(world.stamp, KEPT)
    assert track.phase is Phase.PROTECTED
