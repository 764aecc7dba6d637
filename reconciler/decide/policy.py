"""Policies: what the operator allows, as values; and which one applies to a bundle.

A policy may delay, shorten the wait or forbid. None can make a bundle a leftover.
"""

from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey, show

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class Orphans(Enum):
    """What to do with a workload nobody manages."""

    REPORT = "report"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Policy:
    """What applies to one bundle. Times in seconds, sizes in bytes.

    Attributes:
        name: The rule it comes from, ``cleanup`` for the default.
        enforce: Whether anything may be removed.
        protect: Never remove, whatever the verdict.
        grace: How long it must stay leftover under our own eyes.
        threshold: Least time since the last sign of life.
        max_age: Older leftovers are due at once; None for no such budget.
        max_size: Leftovers under this policy in one namespace may not be larger together.
        orphans: See :class:`Orphans`.
    """

    name: str = "cleanup"
    enforce: bool = False
    protect: bool = False
    grace: float = 10 * MINUTE
    threshold: float = 0.0
    max_age: float | None = 168 * HOUR
    max_size: int | None = 10 * 1000**3
    orphans: Orphans = Orphans.REPORT


@dataclass(frozen=True, slots=True)
class Match:
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
        """Whether config.json is needed to tell if it matches."""
        return bool(self.annotations) or any(
            glob is not None for glob in (self.pod_namespace, self.pod, self.container)
        )

    def fits_names(self, key: BundleKey) -> bool:
        """Tell whether namespace and id fit."""
        return _fits(self.namespace, show(key.namespace)) and _fits(self.id, show(key.id))

    def fits_labels(self, labels: Labels) -> bool:
        """Tell whether the labels fit."""
        annotations = dict(labels.annotations)
        return (
            _fits(self.pod_namespace, labels.pod_namespace)
            and _fits(self.pod, labels.pod)
            and _fits(self.container, labels.container)
            and all(
                name in annotations and fnmatchcase(annotations[name], glob)
                for name, glob in self.annotations
            )
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """An ordered ``[[rule]]`` of the configuration."""

    match: Match
    policy: Policy


@dataclass(frozen=True, slots=True)
class Brakes:
    """Rules that may only take actions away.

    Attributes:
        max_per_minute: Cleanups begun in any 60 seconds; None for no limit.
        hold: How long sudden mass death must last before it is believed.
        mass_deaths: Fewer deaths than this are never a mass.
    """

    max_per_minute: int | None = 120
    hold: float = 10 * MINUTE
    mass_deaths: int = 10


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting between attempts on something blocked: doubles from ``first`` up to ``most``."""

    first: float = 5.0
    most: float = 5 * MINUTE

    def after(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure (1, 2, ...)."""
        return min(self.most, self.first * 2.0 ** min(attempt - 1, 30))


@dataclass(frozen=True, slots=True)
class Policies:
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
    """

    default: Policy = field(default_factory=Policy)
    rules: tuple[Rule, ...] = ()
    brakes: Brakes = field(default_factory=Brakes)
    backoff: Backoff = field(default_factory=Backoff)
    settle: float = 2 * MINUTE
    recheck: float = 10.0
    confirm_death: float = 5.0
    parallel: int = 8
    node_max_size: int | None = 10 * 1000**3
    volatile: bool = True

    def applied(self, key: BundleKey, labels: Labels) -> Policy:
        """Find the policy for a bundle.

        A rule that needs labels while config.json is missing applies if it protects (it might
        match, and alive may be assumed) and is passed over otherwise.
        """
        for rule in self.rules:
            if not rule.match.fits_names(key):
                continue
            if rule.match.needs_labels and not labels.known:
                if rule.policy.protect:
                    return rule.policy
                continue
            if rule.match.fits_labels(labels):
                return rule.policy
        return self.default

    @property
    def annotation_keys(self) -> frozenset[str]:
        """The annotations any rule matches on; a look keeps only these."""
        return frozenset(name for rule in self.rules for name, _ in rule.match.annotations)


def _fits(glob: str | None, value: str) -> bool:
    return glob is None or fnmatchcase(value, glob)
