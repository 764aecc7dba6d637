"""Rules that cannot work are found, and no rule that can."""

from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.model.evidence import Answer, Labels
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.policy import Policies, Policy
from reconciler.model.policy import Rule as PolicyRule
from reconciler.settings import globs
from reconciler.settings.load import Flag, Loaded, load
from reconciler.settings.policies import _match
from reconciler.settings.problems import SettingsError
from reconciler.settings.rules import (
    Effort,
    applies_where_unknown,
    covers,
    includes,
    shadowed,
)
from reconciler.settings.schema import Match, Rule

pieces = st.sampled_from([*"ab-*?", "[ab]", "[!a]", "[a-c]", "["])
short_globs = st.lists(pieces, min_size=1, max_size=3).map("".join)
WORDS = [*map("".join, (word for n in range(5) for word in product("abc-[", repeat=n)))]


@given(broad=short_globs, narrow=short_globs | st.none())
@example(broad="*a", narrow="*")
@example(broad="?*", narrow="*")
@example(broad="a*", narrow="ab")
def test_whether_a_glob_includes_another_is_decided_exactly(broad: str, narrow: str | None) -> None:
    missed = (
        word for word in WORDS if fnmatchcase(word, narrow or "*") and not fnmatchcase(word, broad)
    )
    assert includes(broad, narrow) is (next(missed, None) is None)
    beside = (word for word in missed if word)
    if includes(broad, narrow, globs.LETTERS):
        assert all("[" in word for word in beside)


identifiers = st.sampled_from(["*", "a*", "ab", "?*", "[ab]*", "b", "*b", "kube-*"])
names = st.none() | identifiers
matches = st.builds(
    Match,
    namespace=names,
    id=names,
    pod_namespace=names,
    pod=names,
    container=names,
    annotation=st.dictionaries(st.sampled_from(["x", "y"]), identifiers, max_size=2),
)
values = st.sampled_from(["a", "b", "ab", "kube-system", "zz"])
bundles = st.builds(
    lambda key, labels: (key, Known(labels)),
    st.builds(BundleKey, values, values),
    st.builds(
        Labels,
        known=st.just(value=True),
        pod_namespace=st.just("") | values,
        pod=st.just("") | values,
        container=st.just("") | values,
        annotations=st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2).map(
            lambda said: tuple(sorted(said.items()))
        ),
    ),
)


@pytest.mark.safety
@given(rules=st.lists(matches, min_size=2, max_size=4), bundle=bundles)
@example(
    rules=[Match(container="*"), Match()],
    bundle=(BundleKey("a", "a"), Known(Labels(known=True, pod="a"))),
)
def test_what_is_said_never_to_apply_never_does(
    rules: list[Match], bundle: tuple[BundleKey, Known]
) -> None:
    said = tuple(Rule(f"r{n}", match) for n, match in enumerate(rules))
    never = {rule.name: before.name for rule, before in shadowed(said).pairs}
    policies = Policies(
        default=Policy("none"),
        rules=tuple(PolicyRule(_match(one.match), Policy(one.name)) for one in said),
    )
    applied = policies.applied(*bundle).name
    if applied in never:  # only where nobody can know whether the one before it fits
        before = next(one for one in said if one.name == never[applied])
        assert _match(before.match).fits(*bundle) is Answer.NONE


rules_of_both_kinds = st.lists(st.tuples(matches, st.booleans()), min_size=2, max_size=4)
partly_known = st.builds(
    lambda bundle, known: (bundle[0], Known(msgspec.structs.replace(bundle[1].own, known=known))),
    bundles,
    st.booleans(),
)


@pytest.mark.safety
@given(rules=rules_of_both_kinds, bundle=partly_known)
@example(
    rules=[(Match(pod="*"), False), (Match(), True)],
    bundle=(BundleKey("a", "a"), Known(Labels(known=False))),
)
@example(
    rules=[(Match(pod="*"), False), (Match(namespace="*"), False), (Match(), True)],
    bundle=(BundleKey("a", "a"), Known(Labels(known=False))),
)
def test_what_never_applies_does_not_where_labels_are_unknown_either(
    rules: list[tuple[Match, bool]], bundle: tuple[BundleKey, Known]
) -> None:
    said = tuple(Rule(f"r{n}", match, protect=yes) for n, (match, yes) in enumerate(rules))
    pairs = shadowed(said).pairs
    never = {rule.name for rule, before in pairs if not applies_where_unknown(rule, before)}
    policies = Policies(
        default=Policy("none"),
        rules=tuple(
            PolicyRule(_match(one.match), Policy(one.name, protect=one.protect)) for one in said
        ),
    )
    assert policies.applied(*bundle).name not in never


def test_an_annotation_that_may_be_missing_is_no_cover() -> None:
    assert not covers(Match(annotation={"x": "*"}), Match())
    assert covers(Match(annotation={"x": "*"}), Match(annotation={"x": "a", "y": "b"}))


DEAR = [Rule(f"r{n}", Match(id=f"*web-{n}-*-prod*-x?")) for n in range(200)]


@pytest.mark.safety
def test_one_name_settles_nearly_every_pair_of_rules() -> None:
    effort = Effort()
    assert shadowed(DEAR, effort) == ((), True)
    assert effort.glances == 200 * 199 // 2
    assert effort.exact == effort.states == 0


# One name settles none of these, and to follow each of them takes more states than there may be.
HARD = [Match(id=f"*a{'?' * 12}{'?' * (n % 20)}*{'b' * (n // 20)}?") for n in range(200)]
WIDE = Rule("wide", Match(id="kept*"))


@pytest.mark.safety
@pytest.mark.parametrize("protect", [True, False])
def test_all_rules_have_one_limit_and_those_that_protect_come_first(*, protect: bool) -> None:
    last = Rule("last", Match(id="kept-[0-9]*?"), protect=protect)
    hard = [Rule(f"r{n}", match) for n, match in enumerate(HARD)]
    most = Effort()
    pairs, complete = shadowed([WIDE, *hard, last], most)
    assert not complete
    assert ((last, WIDE) in pairs) is protect
    assert 0 <= most.left < 20_000
    assert most.states < 100_000
    assert most.exact < 1_000


@pytest.mark.parametrize(("rules", "compared"), [(DEAR, True), (HARD, False)])
def test_a_configuration_says_whether_its_rules_could_be_compared(
    tmp_path: Path, rules: list[Rule] | list[Match], compared: bool
) -> None:
    matches = [one.match if isinstance(one, Rule) else one for one in rules]
    text = "".join(
        f'[[rule]]\nname = "r{n}"\nmatch = {{ id = "{match.id}" }}\n'
        for n, match in enumerate(matches)
    )
    assert loaded(tmp_path, text).compared is compared


def loaded(tmp_path: Path, text: str, *flags: Flag) -> Loaded:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(str(path), environ={}, flags=flags)


BROAD = '[[rule]]\nname = "all"\nmatch = { namespace = "*" }\n'
KUBE = '[[rule]]\nname = "kube"\nmatch = { namespace = "k8s.io", pod_namespace = "kube-*" }\n'


@pytest.mark.safety
def test_a_rule_that_protects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, BROAD + KUBE + "protect = true\n")
    (problem,) = caught.value.problems
    assert problem.key == "rule.kube"
    assert "rule.all" in problem.reason
    assert "first" in problem.hint
    assert loaded(tmp_path, KUBE + "protect = true\n" + BROAD).hints == ()


PODS = '[[rule]]\nname = "pods"\nmatch = { namespace = "k8s.io", pod_namespace = "*" }\n'


@pytest.mark.safety
def test_a_rule_that_protects_where_labels_are_lost_is_noted(tmp_path: Path) -> None:
    """It protects what nobody can name, so refusing the file would protect less."""
    (hint,) = loaded(tmp_path, PODS + KUBE + "protect = true\n").hints
    assert "rule.kube: protects only where labels are not known: rule.pods before it" in hint
    for text in (BROAD + PODS, PODS + BROAD):  # one that needs no label is found behind one
        with pytest.raises(SettingsError, match=r"rule\.kube: protects nothing: rule\.all"):
            loaded(tmp_path, text + KUBE + "protect = true\n")


@pytest.mark.parametrize(
    "text", [BROAD + "protect = true\n" + KUBE + "protect = true\n", BROAD + KUBE]
)
def test_a_rule_that_never_applies_and_harms_nobody_is_noted(tmp_path: Path, text: str) -> None:
    (hint,) = loaded(tmp_path, text).hints
    assert "rule.kube: never applies" in hint


@pytest.mark.safety
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('cleanup = { threshold = "30d" }\n', "cleanup.threshold"),
        ('cleanup = { threshold = "2h", max_runtime_dir_age = "1h" }\n', "cleanup.threshold"),
        (KUBE + 'threshold = "30d"\n', "rule.kube"),
        (KUBE + 'threshold = "2h"\nmax_runtime_dir_age = "1h"\n', "rule.kube"),
    ],
)
def test_a_threshold_that_a_budget_ends_is_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert "max_runtime_dir_age" in problem.what


@pytest.mark.parametrize(
    "text",
    [
        'cleanup = { threshold = "168h" }\n',
        'cleanup = { threshold = "30d", max_runtime_dir_age = "none" }\n',
        KUBE + 'threshold = "30d"\nmax_runtime_dir_age = "60d"\n',
        KUBE + 'max_runtime_dir_age = "1h"\n',
    ],
)
def test_a_threshold_that_is_waited_for_is_none_of_these(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, text)


def test_a_threshold_that_is_typed_is_waited_for(tmp_path: Path) -> None:
    flag = Flag("--threshold", "cleanup.threshold", "30d")
    assert loaded(tmp_path, "", flag).settings.cleanup.threshold == "30d"


SHIPPED = sorted((Path(__file__).resolve().parents[2] / "config").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_rules_that_are_shipped_can_work(path: Path) -> None:
    settings = load(str(path), environ={}).settings
    assert shadowed(settings.rule) == ((), True)
