"""A repeated run decides what the recorded one did; the way there may vary, the end does not."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.decide.engine import Engine
from reconciler.journal.listener import JournalListener, Origin
from reconciler.journal.redact import Redactor
from reconciler.model.cgroups import names_of
from reconciler.model.decisions import (
    AskNode,
    Braked,
    Clean,
    CleanDebris,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    LookAt,
    OverBudget,
    Relist,
    TakeInventory,
    Vanished,
)
from reconciler.model.evidence import ProcessScan
from reconciler.model.ids import BundleKey, is_identifier
from reconciler.model.observations import (
    GuardsChecked,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Stamp,
)
from reconciler.model.policy import Match, Policies, Policy, Rule
from reconciler.testing.journals import JournalBuilder, replay
from reconciler.testing.node import Node
from reconciler.testing.sight import Sight
from reconciler.testing.simulator import Manners, Simulation
from tests.replay.stories import ENFORCE, OBSERVE, Act, stories
from tests.support.examples import several

few = settings(max_examples=several(60), suppress_health_check=list(HealthCheck))
Trace = list[tuple[Stamp, Observation]]


@few
@given(story=stories, ask=st.sampled_from([0.0, 0.3]), clean=st.sampled_from([0.0, 5.0]))
def test_any_story_replays_as_it_was_decided(
    tmp_path_factory: pytest.TempPathFactory, story: list[Act], ask: float, clean: float
) -> None:
    path = tmp_path_factory.mktemp("story") / "story.jsonl"
    with JournalBuilder(path, ENFORCE, Manners(ask, clean)) as node:
        for act in story:
            act.play(node)
        recorded = len(node.simulation.seen)
    result = replay(path)
    assert result.differences == []
    assert result.observations == recorded
    assert result.warnings == []


def test_a_reload_in_the_middle_replays_too(tmp_path: Path) -> None:
    path = tmp_path / "reload.jsonl"
    with JournalBuilder(path, OBSERVE) as node:
        node.start("default/a")
        node.crash("default/a")
        node.wait("5m")
        node.simulation.configure(ENFORCE)
        node.wait("5m")
    result = replay(path)
    assert result.differences == []
    assert result.cleaned["default/a"] == [pytest.approx(300, abs=1)]


def test_a_difference_is_found_and_told_with_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        node.start("default/a")
        node.crash("default/a")
        node.wait("5m")
    lines = path.read_bytes()
    assert lines.count(b'"grace":60') == 1
    path.write_bytes(lines.replace(b'"grace":60', b'"grace":61'))
    first = replay(path).differences[0]
    assert (first.namespace, first.id) == ("default", "a")
    assert first.recorded is not None
    assert first.replayed is not None


# ------------------------------------------------------------------------------- redaction

SECRETS = (b"payments", b"k8s.io", b"kube-system", b"critical", b"web-7f9", b"worker-1")
RULES = replace(
    ENFORCE,
    rules=(
        Rule(Match(namespace="k8s.io", pod_namespace="kube-*"), Policy("critical", protect=True)),
        Rule(Match(id="web-*"), replace(ENFORCE.default, name="web", grace=600.0)),
    ),
)


def test_redacted_names_are_gone_and_the_rules_still_match(tmp_path: Path) -> None:
    path = tmp_path / "redacted.jsonl"
    node = Node()
    with path.open("wb") as file:
        origin = Origin("worker-1", "boot", "run", node.stamp, RULES)
        scribe = JournalListener(origin, file.write, Redactor(b"k" * 16))
        simulation = Simulation(RULES, node, recorders=[scribe])
        names = ["web-7f9", "payments", "dns", "n\\xff\\x0a"]
        for name in names:
            bundle = node.start(BundleKey("k8s.io", name))
            bundle.pod_namespace = "kube-system" if name == "dns" else "payments"
        simulation.settle()
        for name in names:
            node.crash(BundleKey("k8s.io", name))
        simulation.wait(900)
        scribe.flush()
    text = path.read_bytes()
    assert not [secret for secret in SECRETS if secret in text]
    result = replay(path)
    assert result.differences == []
    times = sorted(at for cleaned in result.cleaned.values() for at in cleaned)
    assert len(times) == 2, "one name is none of containerd's, one is protected"
    assert times == [pytest.approx(60, abs=2), pytest.approx(600, abs=2)]
    assert len(result.verdicts) == 2


def test_forty_five_globs_survive_redaction_and_their_marks_keep_names_valid() -> None:
    globs = [f"*{number}*" for number in range(40)] + ["web-*", "?*", "w*", "*9", "[vw]*"]
    rules = tuple(Rule(Match(id=glob), Policy(f"p{n}")) for n, glob in enumerate(globs))
    redactor = Redactor(b"k" * 16)
    redacted = redactor.policies(replace(ENFORCE, rules=rules))
    marked = [rule.match for rule in redacted.rules]
    for name in ("web-39", "web-" + "-".join(map(str, range(24))), "db", "\\xff9"):
        new = redactor.name(name)
        assert is_identifier(new) is is_identifier(name)
        for glob, match in zip(globs, marked, strict=True):
            fits = Match(id=glob).fits_names(BundleKey("ns", name))
            assert match.fits_names(BundleKey("ns", new)) is fits, (glob, name, new)
    more = replace(ENFORCE, rules=(*rules, Rule(Match(id="one more"), Policy("more"))))
    assert redactor.policies(more).rules[-1].match.id == "(redacted)"


def test_a_redacted_cgroup_names_the_id_that_it_named() -> None:
    redactor, id_ = Redactor(b"k" * 16), "c" * 64
    new = redactor.name(id_)
    paths = frozenset({f"/pods.slice:cri-containerd:{id_}", f"/x.slice/cri-{id_}.scope"})
    told = redactor.observation(NodeLooked(0.0, ProcessScan(answered=True, cgroup_paths=paths)))
    assert isinstance(told, NodeLooked)
    assert told.processes is not None
    assert [new in names_of(path) for path in told.processes.cgroup_paths] == [True, True]
    assert not any(id_ in path for path in told.processes.cgroup_paths)


@few
@given(story=stories)
def test_any_story_replays_redacted(
    tmp_path_factory: pytest.TempPathFactory, story: list[Act]
) -> None:
    path = tmp_path_factory.mktemp("story") / "redacted.jsonl"
    node = Node()
    with path.open("wb") as file, JournalBuilder(path.with_suffix(".plain"), ENFORCE) as builder:
        scribe = JournalListener(Origin("h", "b", "r", node.stamp, ENFORCE), file.write, Redactor())
        builder.simulation._recorders.append(scribe)
        builder.simulation.restart()
        for act in story:
            act.play(builder)
        scribe.flush()
    assert replay(path).differences == []


# -------------------------------------------------------------------------------- same end


def end_of(trace: Trace, sight: Sight) -> dict[str, tuple[str, str]]:
    """Feed a trace to an engine, then let it look at everything, then wait out every grace."""
    engine, now = Engine(OBSERVE), 0.0
    for stamp, observation in trace:
        while (engine.deadline or float("inf")) <= stamp.mono:
            now = max(now, engine.deadline or 0.0)
            engine.advance(Stamp(now, stamp.wall - (stamp.mono - now)))
        now = stamp.mono
        engine.observe(stamp, observation)
    begin = now = max(now, sight.node.mono)
    wall = sight.node.stamp.wall
    engine.observe(Stamp(now, wall), sight.listed())
    work: list[Decision] = [LookAt(key, HintKind.CHANGED) for key in sight.node.bundles]
    work.append(AskNode(""))
    while now < begin + 7200:
        stamp = Stamp(now, wall + now - begin)
        for decision in work:
            match decision:
                case LookAt():
                    engine.observe(stamp, Looked(decision.key, sight.look(decision.key)))
                case AskNode():
                    word = NodeLooked(now, sight.scan(), sight.containerd(lambda _: [], list))
                    engine.observe(stamp, word)
                case Clean() | CleanDebris() | FinishRemoval():
                    raise AssertionError(f"asked for while observing: {decision}")
                case (
                    Judged()
                    | Vanished()
                    | Died()
                    | OverBudget()
                    | Braked()
                    | Relist()
                    | TakeInventory()
                ):
                    pass
        work = []
        deadline = engine.deadline
        now = max(now + 1.0, min(deadline or begin + 7200, begin + 7200))
        work = engine.advance(Stamp(now, wall + now - begin))
    views = engine.views(now)
    return {str(v.key): (v.judgement.verdict.value, v.phase.value) for v in views}


def split(trace: Trace) -> Trace:
    """Tell each listing of the tree namespace by namespace."""
    out: Trace = []
    known: set[str] = set()
    for stamp, observation in trace:
        if not isinstance(observation, Listed) or observation.namespace is not None:
            out.append((stamp, observation))
            continue
        here = {seen.key.namespace for seen in observation.bundles}
        for namespace in sorted(known | here):
            found = tuple(s for s in observation.bundles if s.key.namespace == namespace)
            part = replace(observation, bundles=found, hidden=(), namespace=namespace)
            out.append((stamp, part))
        known |= here
    return out


def repeated(trace: Trace) -> Trace:
    return [one for one in trace for _ in range(3)]


def reordered(trace: Trace) -> Trace:
    """Shuffle what carries the same stamp."""
    chaos = random.Random(len(trace))  # noqa: S311 - the same shuffle each time
    groups: dict[Stamp, Trace] = {}
    for stamp, observation in trace:
        groups.setdefault(stamp, []).append((stamp, observation))
    return [one for group in groups.values() for one in chaos.sample(group, len(group))]


def without_hints(trace: Trace) -> Trace:
    """Lose every event, and the looks that followed; listings and their looks stay."""
    return [(s, o) for s, o in trace if isinstance(o, Listed | NodeLooked | GuardsChecked)]


def nothing_at_all(trace: Trace) -> Trace:
    return trace[:1]


def half_lost(trace: Trace) -> Trace:
    chaos = random.Random(len(trace))  # noqa: S311 - the same shuffle each time
    return [one for one in trace if chaos.random() < 0.5 or not isinstance(one[1], Hint | Looked)]


WAYS = [split, repeated, reordered, without_hints, half_lost, nothing_at_all]

# Its helper was known before the bundle was, and its shim lived when it was first looked at.
KNOWN_BEFORE = [
    Act("create", "k8s.io/pod", 0),
    Act("start", "k8s.io/m1", 0),
    Act("jump", "default/a", 1),
]


@few
@given(story=stories)
@example(story=KNOWN_BEFORE)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_observations_in_another_way_come_to_the_same_end(
    tmp_path_factory: pytest.TempPathFactory, way: Callable[[Trace], Trace], story: list[Act]
) -> None:
    path = tmp_path_factory.mktemp("story") / "story.jsonl"
    with JournalBuilder(path, OBSERVE) as node:
        for act in story:
            act.play(node)
        simulation = node.simulation
    assert end_of(way(simulation.seen), simulation.sight) == end_of(
        simulation.seen, simulation.sight
    )


def test_policies_without_rules_have_equal_digests() -> None:
    from reconciler.journal.listener import digest

    assert digest(Policies()) == digest(Policies()) != digest(ENFORCE)
