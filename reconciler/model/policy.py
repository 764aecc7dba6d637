"""Policies: what the operator allows, as values; and which one applies to a bundle.

A policy may delay, shorten the wait or forbid. None can make a bundle a leftover.
"""

from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

import msgspec
from typing_extensions import override

from reconciler.model.debris import DebrisKind, Place
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import NO_LABELS, Answer
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.values import Value

MINUTE: Final = 60.0
HOUR: Final = 3600.0


class Orphans(Enum):
    """What to do with a workload that containerd cannot manage."""

    REPORT = "report"
    KILL = "kill"


class DebrisAction(Enum):
    """What to do with debris."""

    REPORT = "report"
    CLEAN = "clean"


class Shims(Enum):
    """What to do with a shim that serves nobody and that containerd does not know."""

    REPORT = "report"
    KILL = "kill"


class Policy(msgspec.Struct, frozen=True, gc=False):
    """What applies to one bundle. Times in seconds, sizes in bytes.

    Attributes:
        name: The rule it comes from, ``cleanup`` for the default.
        enforce: Whether anything may be removed.
        protect: Never remove, whatever the verdict.
        grace: How long it must stay leftover, observed continuously by this process.
        threshold: Least time since the last sign of life.
        max_age: Older leftovers are due at once; None for no such budget.
        max_size: Leftovers under this policy in one namespace may not be larger together.
        orphans: See :class:`Orphans`.
        debris: What to do with debris of what it applies to; None for what its kind says. One that
            protects protects debris as well, unless it says so here.
        shims: See :class:`Shims`.
        between_looks: Least time from the look that finds it a leftover to the second one. No
            budget shortens it, as one shortens ``grace``.
    """

    name: str = "cleanup"
    enforce: bool = False
    protect: bool = False
    grace: float = 10 * MINUTE
    threshold: float = 0.0
    max_age: float | None = 168 * HOUR
    max_size: int | None = 10 * 1000**3
    orphans: Orphans = Orphans.REPORT
    between_looks: float = 0.0
    debris: DebrisAction | None = None
    shims: Shims = Shims.REPORT

    def at_least(self, *, grace: float | None, threshold: float | None) -> "Policy":
        """Give the same with waits that neither it nor a budget makes shorter; None for as it is.

        A size budget knows no age, so it gives way to a threshold; one of age is as long at least.
        """
        said = self
        if grace is not None:
            longer = max(said.grace, grace)
            said = msgspec.structs.replace(said, grace=longer, between_looks=grace)
        if threshold is not None:
            age = None if said.max_age is None else max(said.max_age, threshold)
            longer = max(said.threshold, threshold)
            size = None if threshold else said.max_size
            said = msgspec.structs.replace(said, threshold=longer, max_age=age, max_size=size)
        return said

    def objection(self, wanted: Verdict = Verdict.LEFTOVER) -> str:
        """Say why what has this verdict may not be removed, or ended; empty if it may."""
        if self.protect:
            return f'the rule "{self.name}" protects it'
        if not self.enforce:
            return "it may only be observed"
        if wanted is Verdict.ORPHANED and self.orphans is not Orphans.KILL:
            return "orphans are only reported"
        if wanted is Verdict.ABANDONED and self.shims is not Shims.KILL:
            return "abandoned shims are only reported"
        return ""


class Match(Value, frozen=True):
    """Globs a rule matches on; None matches everything.

    ``annotations`` are pairs of an annotation's key and a glob.
    """

    namespace: str | None = None
    id: str | None = None
    pod_namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Whether config.json is needed to know if it matches."""
        return bool(self.annotations) or any(
            glob is not None for glob in (self.pod_namespace, self.pod, self.container)
        )

    @override
    def __str__(self) -> str:
        """Write it as a configuration does."""
        said = {
            "namespace": self.namespace,
            "id": self.id,
            "pod_namespace": self.pod_namespace,
            "pod": self.pod,
            "container": self.container,
            **{f'annotation."{name}"': glob for name, glob in self.annotations},
        }
        globs = [f'{name} = "{glob}"' for name, glob in said.items() if glob is not None]
        return f"{{ {', '.join(globs)} }}" if globs else "{}"

    def fits_names(self, key: BundleKey) -> bool:
        """Return whether namespace and id fit."""
        return _fits(self.namespace, key.namespace) and _fits(self.id, key.id)

    def fits_namespace(self, namespace: str) -> bool:
        """Return whether it fits whatever lies in this namespace."""
        return _is_any(self.id) and not self.needs_labels and _fits(self.namespace, namespace)

    def may_fit(self, namespace: str, id_: str) -> Answer:
        """Return whether it fits a thing that has lost a name, which is empty then.

        1. A name that is known does not fit, or only a namespace is asked for that is not known.
        2. It fits whatever the name is.
        3. That hangs on what is not known.
        """
        answers = {_fits_unknown(self.namespace, namespace), _fits_unknown(self.id, id_)}
        for_namespace_alone = not namespace and not self.needs_labels and _is_any(self.id)
        if Answer.NO in answers or (for_namespace_alone and not _is_any(self.namespace)):
            return Answer.NO
        return Answer.NONE if Answer.NONE in answers or self.needs_labels else Answer.YES

    def fits(self, key: BundleKey, known: Known) -> Answer:
        """Return whether it fits a bundle; no answer if that hangs on what is not known."""
        if not self.fits_names(key):
            return Answer.NO
        if not self.needs_labels:
            return Answer.YES
        answers = (
            known.fits_pod("pod_namespace", self.pod_namespace),
            known.fits_pod("pod", self.pod),
            known.fits_container(self.container),
            *(known.fits_annotation(name, glob) for name, glob in self.annotations),
        )
        for worst in (Answer.NO, Answer.NONE):
            if worst in answers:
                return worst
        return Answer.YES


class Rule(msgspec.Struct, frozen=True, gc=False):
    """An ordered ``[[rule]]`` of the configuration."""

    match: Match
    policy: Policy

    def applies(self, key: BundleKey, known: Known) -> bool:
        """Return whether it applies to a bundle.

        A rule that needs what is not known applies if it protects (it might match, and alive may
        be assumed) and is passed over otherwise.
        """
        return self._decides(self.match.fits(key, known))

    def may_apply(self, namespace: str, id_: str) -> bool:
        """Return whether it applies to something of which a name is empty, for it is not known."""
        return self._decides(self.match.may_fit(namespace, id_))

    def _decides(self, answer: Answer) -> bool:
        return answer is Answer.YES or (answer is Answer.NONE and self.policy.protect)


class DebrisPolicy(msgspec.Struct, frozen=True, gc=False):
    """What applies to debris of one kind, where no rule says otherwise.

    Attributes:
        kind: The kind.
        action: What to do with it.
        age: Seconds since its last sign of life from which a place may be debris; None for the
            usual of its kind.
    """

    kind: DebrisKind
    action: DebrisAction = DebrisAction.REPORT
    age: float | None = None


class Brakes(msgspec.Struct, frozen=True, gc=False):
    """Rules that may only take actions away.

    Attributes:
        max_per_minute: Cleanups begun in any 60 seconds; None for no limit.
        hold: How long sudden mass death must last before it is believed.
        mass_deaths: Fewer deaths than this are never a mass.
    """

    max_per_minute: int | None = 120
    hold: float = 10 * MINUTE
    mass_deaths: int = 10


class Backoff(msgspec.Struct, frozen=True, gc=False):
    """Waiting between attempts on something blocked: doubles from ``first`` up to ``most``."""

    first: float = 5.0
    most: float = 5 * MINUTE

    def after(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure (1, 2, ...)."""
        return min(self.most, self.first * 2.0 ** min(attempt - 1, 30))


class Policies(msgspec.Struct, frozen=True, gc=False):
    """Everything the engine needs to know of the configuration.

    Attributes:
        default: Applies where no rule matches.
        rules: First match wins.
        settle: Younger bundles may still be in creation.
        recheck: How often witnesses that gave no answer are asked again.
        confirm_death: How long a death must last to count as an abnormal termination, so that
            the instant between a shim's orderly exit and the bundle's deletion does not.
        parallel: Cleanups under way at once.
        node_max_size: All leftovers of the node together; None for no such budget.
        volatile: The state tree is on tmpfs, so nothing in it is older than the boot.
        debris: The kinds of debris of which something else is said than to report it.
        debris_kinds: No debris of other kinds is removed, whatever is said of it; None for all.
    """

    default: Policy = Policy()
    rules: tuple[Rule, ...] = ()
    brakes: Brakes = Brakes()
    backoff: Backoff = Backoff()
    settle: float = 2 * MINUTE
    recheck: float = 10.0
    confirm_death: float = 5.0
    parallel: int = 8
    node_max_size: int | None = 10 * 1000**3
    volatile: bool = True
    debris: tuple[DebrisPolicy, ...] = ()
    debris_kinds: tuple[DebrisKind, ...] | None = None

    def cleaning_debris(self, kinds: frozenset[DebrisKind]) -> "Policies":
        """Give the same by which debris of these kinds is removed, and of no others.

        Rules that protect it, or say that it is only reported, stay in force.
        """
        chosen = tuple(kind for kind in DebrisKind if kind in kinds)
        debris = tuple(
            msgspec.structs.replace(self.debris_of(kind), action=DebrisAction.CLEAN)
            for kind in chosen
        )
        ages = tuple(one for one in self.debris if one.kind not in kinds)
        return msgspec.structs.replace(self, debris=(*debris, *ages), debris_kinds=chosen)

    def at_least(self, *, grace: float | None = None, threshold: float | None = None) -> "Policies":
        """Give the same with waits that no rule and no budget makes shorter; None for as they are.

        For what is typed at a terminal: whoever types how long to wait is not thinking of a file.
        """
        return msgspec.structs.replace(
            self,
            default=self.default.at_least(grace=grace, threshold=threshold),
            rules=tuple(
                msgspec.structs.replace(
                    rule, policy=rule.policy.at_least(grace=grace, threshold=threshold)
                )
                for rule in self.rules
            ),
            node_max_size=None if threshold else self.node_max_size,
        )

    def applied(self, key: BundleKey, known: Known) -> Policy:
        """Find the policy for a bundle: the first rule that applies names it."""
        return next((one.policy for one in self.rules if one.applies(key, known)), self.default)

    def applied_to_hidden(self, namespace: str) -> Policy:
        """Find the policy for a removal of ours that was cut short: only its namespace is known.

        Its id and labels went with its name, so rules that need them say nothing about it; while
        it had them it was allowed to go.
        """
        rules = (rule for rule in self.rules if rule.match.fits_namespace(namespace))
        return next((rule.policy for rule in rules), self.default)

    def debris_of(self, kind: DebrisKind) -> DebrisPolicy:
        """Find what applies to debris of a kind."""
        return next((one for one in self.debris if one.kind is kind), DebrisPolicy(kind))

    def applied_to_place(self, place: Place) -> Policy:
        """Find the policy for debris, of which no more than names is known, and perhaps not those.

        What is known of neither namespace nor labels cannot be told from what a rule protects:
        one that names no namespace but an id or labels protects it. A rule for the namespace alone
        says nothing of a thing that names none: its bundle is gone, and containerd knows no task.
        """
        if not self.rules:
            return self.default
        key, known = BundleKey(place.namespace, place.id), Known(NO_LABELS)
        is_named = bool(key.namespace and key.id)
        for rule in self.rules:
            if rule.applies(key, known) if is_named else rule.may_apply(key.namespace, key.id):
                return rule.policy
        return self.default

    def objection_to_debris(self, place: Place, *, is_requested: bool = False) -> str:
        """Say why debris may not be removed, whoever is sure that it is some; empty if it may.

        ``is_requested``: somebody asked for it, which stands for what is said of its kind.
        """
        policy, kind = self.applied_to_place(place), place.key.kind
        if policy.protect and policy.debris is None:
            return f'the rule "{policy.name}" protects it'
        if not policy.enforce:
            return "it may only be observed"
        if self.debris_kinds is not None and kind not in self.debris_kinds:
            return "debris of this kind was not asked for"
        usual = DebrisAction.CLEAN if is_requested else self.debris_of(kind).action
        action = policy.debris or usual
        if kind is DebrisKind.SHIM:  # a living process goes by what is said of such
            ends = policy.shims is Shims.KILL and policy.debris is not DebrisAction.REPORT
            return "" if ends else "living shims are only reported"
        if action is not DebrisAction.CLEAN:
            return f"debris of the kind {kind.value} is only reported"
        return ""

    def why(self, name: str, key: BundleKey, known: Known) -> str:
        """Say why the policy of this name applies to a bundle, for people."""
        match = next((rule.match for rule in self.rules if rule.policy.name == name), None)
        if match is None:
            return "no rule fits" if self.rules else "there is no rule"
        if match.fits(key, Known(known.own)) is Answer.YES:
            return f"{match} fits"
        which = "fits" if match.fits(key, known) is Answer.YES else "may fit"
        own = "does not say all" if known.own.known else "cannot be read"
        pod = ", its pod's is known" if known.pod.known else ""
        return f"{match} {which}: config.json {own}{pod}"

    def named(self, name: str) -> Policy:
        """Find a policy by its name, which a view shows."""
        return next((r.policy for r in self.rules if r.policy.name == name), self.default)

    @property
    def need_labels(self) -> bool:
        """Whether any rule asks for more than names."""
        return any(rule.match.needs_labels for rule in self.rules)

    @property
    def annotation_keys(self) -> frozenset[str]:
        """The annotations any rule matches on; a look keeps only these."""
        return frozenset(name for rule in self.rules for name, _ in rule.match.annotations)


def _is_any(glob: str | None) -> bool:
    return glob is None or not glob.strip("*")


def _fits_unknown(glob: str | None, value: str) -> Answer:
    """Hold a glob against a name that may not be known, and is empty then."""
    if _is_any(glob):
        return Answer.YES
    if not value:
        return Answer.NONE
    return Answer.YES if _fits(glob, value) else Answer.NO


def _fits(glob: str | None, value: str) -> bool:
    return glob is None or fnmatchcase(value, glob)
