"""Configuration: `config show`, `check` and `test`, as documents and tables. Pure.

The rules are asked here as the engine asks them, on what is known of a bundle's labels.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from reconciler.model.evidence import Answer
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.policy import Policies, Policy
from reconciler.present import formatting
from reconciler.present.envelope import Document, Envelope, Shape
from reconciler.present.table import Cell, Column, Table


class InForce(Protocol):
    """A value in force, as :mod:`reconciler.settings.show` lists it."""

    @property
    def key(self) -> str:
        """Its dotted key."""

    @property
    def value(self) -> object:
        """What a configuration file says for it; None if nothing is said."""

    @property
    def origin(self) -> str:
        """The file, variable or option it comes from, or ``default``."""


class Wrong(Protocol):
    """Something that is wrong, as :mod:`reconciler.settings.problems` has it."""

    @property
    def where(self) -> str:
        """The file, ``environment`` or ``command line``."""

    @property
    def key(self) -> str:
        """The dotted key, the option or variable; empty for the whole."""

    @property
    def reason(self) -> str:
        """What is wrong, a sentence without its subject."""

    @property
    def hint(self) -> str:
        """What to do about it; may be empty."""


class ConfigProblem(Shape, frozen=True, kw_only=True):
    """One thing that is wrong; no key where it is of the whole file."""

    where: str
    key: str = ""
    reason: str
    hint: str = ""


class ConfigCheck(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `config check -o json`.

    Attributes:
        ok: Whether it can be used.
        files: The files that were read; none where one of them cannot be used.
        problems: What is wrong, all of it.
        notes: What can be meant, and is probably not.
    """

    ok: bool
    files: list[str]
    problems: list[ConfigProblem]
    notes: list[str]


class ConfigValue(Shape, frozen=True, kw_only=True):
    """One value of `config show -o json`; none where nothing is set and nothing is the default."""

    key: str
    value: object = None
    origin: str


class Configuration(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `config show -o json`; ``files`` in the order in which they were read."""

    files: list[str]
    values: list[ConfigValue]


def configuration(
    values: Iterable[InForce], files: Iterable[str], envelope: Envelope
) -> Configuration:
    """Shape all values in force."""
    return Configuration(
        **envelope,
        files=list(files),
        values=[ConfigValue(key=one.key, value=one.value, origin=one.origin) for one in values],
    )


def checked(
    wrong: Iterable[Wrong], notes: Iterable[str], files: Iterable[str], envelope: Envelope
) -> ConfigCheck:
    """Shape what a check has found."""
    problems = [
        ConfigProblem(where=one.where, key=one.key, reason=one.reason, hint=one.hint)
        for one in wrong
    ]
    return ConfigCheck(
        **envelope, ok=not problems, files=list(files), problems=problems, notes=list(notes)
    )


_ANSWERS: Final = {Answer.YES: "yes", Answer.NO: "no", Answer.NONE: "cannot be told"}


class RuleAsked(Shape, frozen=True, kw_only=True):
    """One rule, in the order in which they are tried; ``fits`` is absent after the one applied."""

    name: str
    match: str
    fits: str | None = None


class PolicyTest(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `config test -o json`: which rule applies to a bundle."""

    namespace: str
    id: str
    tree: str = ""
    policy: str
    why: str
    means: str
    labels: dict[str, str]
    rules: list[RuleAsked]


def policy_test(key: BundleKey, known: Known, policies: Policies, envelope: Envelope) -> PolicyTest:
    """Say which rule applies to a bundle, why, and what that means.

    Args:
        key: The bundle.
        known: What is known of its labels.
        policies: The rules.
        envelope: What every document begins with.
    """
    applied = policies.applied(key, known)
    asked: list[RuleAsked] = []
    is_found = False
    for rule in policies.rules:
        fits = None if is_found else _ANSWERS[rule.match.fits(key, known)]
        is_found = is_found or rule.applies(key, known)
        asked.append(RuleAsked(name=rule.policy.name, match=str(rule.match), fits=fits))
    return PolicyTest(
        **envelope,
        namespace=key.namespace,
        id=key.id,
        tree=key.tree,
        policy=applied.name,
        why=policies.why(applied.name, key, known),
        means=means(applied),
        labels=_labels(known),
        rules=asked,
    )


def means(policy: Policy) -> str:
    """Say what a policy means to a leftover, in a sentence."""
    if policy.protect:
        return "it is never removed"
    waits = f"after a grace of {formatting.span(policy.grace)}"
    if policy.threshold:
        waits += f", {formatting.span(policy.threshold)} after its last sign of life"
    if policy.enforce:
        return f"the daemon removes it as a leftover {waits}"
    return f"the daemon observes it; a leftover is due {waits}"


def _labels(known: Known) -> dict[str, str]:
    own, pod = known.own, known.pod
    said = {
        "pod_namespace": own.pod_namespace or pod.pod_namespace,
        "pod": own.pod or pod.pod,
        "container": own.container,
        **{f'annotation."{name}"': value for name, value in own.annotations},
    }
    return {name: value for name, value in said.items() if value}


def rules_table(test: PolicyTest) -> Table:
    """Lay out the rules in the order in which they are tried."""
    table = Table((Column("RULE", shortens=True), Column("FITS"), Column("MATCH", gives_way=True)))
    for one in test.rules:
        style = "bold" if one.name == test.policy else ""
        table.rows.append([Cell(one.name, style), Cell(one.fits or "-"), Cell(one.match)])
    return table


def sentences(test: PolicyTest) -> str:
    """Say what applies, why, what that means, and what it was told by."""
    who = formatting.name(test)
    what = "[cleanup] applies" if test.policy == Policy().name else f'rule "{test.policy}" applies'
    labels = ", ".join(f'{name} = "{value}"' for name, value in test.labels.items())
    return f"{who}: {what}: {test.why}\nmeans: {test.means}\nlabels: {labels or 'none'}\n"
