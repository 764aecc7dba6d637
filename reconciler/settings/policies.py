"""Policies: settings as the policies the engine works with. Right settings in, values out."""

from collections.abc import Collection, Iterator
from typing import Final

from reconciler.decide.debris_verdicts import AGES
from reconciler.model.debris import DebrisKind
from reconciler.model.policy import (
    Brakes,
    DebrisAction,
    DebrisPolicy,
    Match,
    Policies,
    Policy,
    Rule,
)
from reconciler.settings import schema, types
from reconciler.settings.problems import below
from reconciler.settings.rules import Shadows, applies_where_unknown
from reconciler.settings.units import parse_duration

_BESIDE_PROTECT: Final = (
    "grace",
    "threshold",
    "max_runtime_dir_age",
    "max_runtime_dir_size",
    "orphans",
    "shims",
    "mode",
)


def policies(settings: schema.Settings, *, volatile: bool = True) -> Policies:
    """Make what the engine needs to know.

    Args:
        settings: Checked settings.
        volatile: Whether the state tree is on a filesystem that a reboot empties.
    """
    cleanup = settings.cleanup
    default = Policy(
        enforce=settings.mode is schema.Mode.ENFORCE,
        grace=parse_duration(cleanup.grace),
        threshold=parse_duration(cleanup.threshold),
        max_age=types.max_age(cleanup.max_runtime_dir_age),
        max_size=types.max_size(cleanup.max_runtime_dir_size),
        orphans=cleanup.orphans,
        shims=cleanup.shims,
    )
    return Policies(
        default=default,
        rules=tuple(Rule(_match(rule.match), _policy(rule, default)) for rule in settings.rule),
        brakes=Brakes(
            max_per_minute=settings.brake.max_per_minute,
            hold=parse_duration(settings.brake.hold),
            mass_deaths=settings.brake.mass_deaths,
        ),
        settle=parse_duration(cleanup.settle),
        parallel=cleanup.parallel,
        node_max_size=default.max_size,
        volatile=volatile,
        debris=tuple(_debris(settings.debris)),
    )


def _debris(said: schema.Debris) -> Iterator[DebrisPolicy]:
    """Give what is said of kinds of debris and differs from what applies anyway."""
    for kind in DebrisKind:
        table = getattr(said, kind.name.lower())
        action, age = said.action, parse_duration(table.age)
        if isinstance(table, schema.ShimKind):
            action = DebrisAction.REPORT
        elif table.action is not schema.KindAction.INHERIT:
            action = DebrisAction(table.action.value)
        policy = DebrisPolicy(kind, action, None if age == AGES[kind] else age)
        if policy != DebrisPolicy(kind):
            yield policy


def contradictions(
    settings: schema.Settings, shadows: Shadows, typed: Collection[str] = ()
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Find values that are right alone and cannot be meant together.

    Args:
        settings: All layers joined.
        shadows: The rules of it that never apply.
        typed: Keys from the command line; no budget shortens a wait that is typed.

    Yields:
        The keys that say so, what is wrong with the first of them, and a hint.
    """
    said = settings.containerd
    if types.tree(said.state) == types.tree(said.root):
        keys = ("containerd.state", "containerd.root")
        yield keys, f"is containerd.root too: {said.root}", "containerd refuses that itself"
    for rule in settings.rule:
        beside = [name for name in _BESIDE_PROTECT if getattr(rule, name) is not None]
        if rule.protect and beside:
            reason = f"protects, and says {beside[0]}, which then means nothing"
            yield (below("rule", rule.name),), reason, "leave one of them out"
    for rule, before in shadows.pairs:
        if rule.protect and not before.protect and not applies_where_unknown(rule, before):
            yield (below("rule", rule.name),), _never(before, "protects nothing"), "put it first"
    yield from _useless_thresholds(settings, typed)


def notes(shadows: Shadows) -> Iterator[tuple[str, str]]:
    """Find what can be meant and does nothing; yields a rule's key, and what is said of it."""
    for rule, before in shadows.pairs:
        if applies_where_unknown(rule, before):
            what = "protects" if rule.protect else "applies"
            what = f"{what} only where labels are not known"
            yield below("rule", rule.name), _never(before, what)
        elif before.protect or not rule.protect:
            yield below("rule", rule.name), _never(before, "never applies")


def _never(before: schema.Rule, what: str) -> str:
    return f"{what}: {below('rule', before.name)} before it matches all that it matches"


def _useless_thresholds(
    settings: schema.Settings, typed: Collection[str]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Find thresholds that a budget of age ends before they are over."""
    hint = 'make max_runtime_dir_age longer, or "none"'
    usual = settings.cleanup
    places = [
        (("cleanup.threshold", "cleanup.max_runtime_dir_age"), usual.threshold, None),
        *(
            ((below("rule", rule.name),), rule.threshold, rule.max_runtime_dir_age)
            for rule in settings.rule
        ),
    ]
    for keys, threshold, age in places:
        most = types.max_age(age or usual.max_runtime_dir_age)
        if threshold is None or most is None or keys[0] in typed:
            continue
        if parse_duration(threshold) > most:
            limit = age or usual.max_runtime_dir_age
            reason = f"threshold {threshold} is never waited for: max_runtime_dir_age is {limit}"
            yield keys, reason, hint


def _policy(rule: schema.Rule, default: Policy) -> Policy:
    age, size = rule.max_runtime_dir_age, rule.max_runtime_dir_size
    return Policy(
        name=rule.name,
        enforce=default.enforce if rule.mode is None else rule.mode is schema.Mode.ENFORCE,
        protect=rule.protect,
        grace=default.grace if rule.grace is None else parse_duration(rule.grace),
        threshold=default.threshold if rule.threshold is None else parse_duration(rule.threshold),
        max_age=default.max_age if age is None else types.max_age(age),
        max_size=default.max_size if size is None else types.max_size(size),
        orphans=default.orphans if rule.orphans is None else rule.orphans,
        debris=rule.debris,
        shims=default.shims if rule.shims is None else rule.shims,
    )


def _match(match: schema.Match) -> Match:
    return Match(
        namespace=match.namespace,
        id=match.id,
        pod_namespace=match.pod_namespace,
        pod=match.pod,
        container=match.container,
        annotations=tuple(match.annotation.items()),
    )
