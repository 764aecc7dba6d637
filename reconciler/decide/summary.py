"""The summary: all bundles in a few numbers, for metrics, the status page and `scan`. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.decide.track import Track, is_wedged
from reconciler.model.decisions import BudgetKind, Phase, Verdict
from reconciler.model.evidence import Containerd
from reconciler.model.ids import BundleKey


@dataclass(slots=True)
class Summary:
    """Counts at one moment.

    Attributes:
        verdicts: Bundles by namespace and verdict.
        phases: Leftovers by phase.
        blocked: Blocked leftovers by cause.
        leftover_bytes: Allocated bytes of all leftovers.
        oldest_leftover_age: Seconds since the last sign of life of the oldest leftover, else 0.
        over_budget: Running tasks over a budget.
        wedged: Tasks whose shim gives containerd no answer, by that shim.
    """

    verdicts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    phases: Counter[Phase] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)
    leftover_bytes: int = 0
    oldest_leftover_age: float = 0.0
    over_budget: Counter[BudgetKind] = field(default_factory=Counter)
    wedged: Counter[BundleKey] = field(default_factory=Counter)


def summarize(tracks: Iterable[Track], said: Containerd, now: float) -> Summary:
    """Count everything once; one pass over all bundles, so call it per scrape, not per event."""
    summary = Summary()
    for track in tracks:
        verdict = track.verdict
        if verdict is None:
            continue
        summary.verdicts[track.key.namespace, verdict] += 1
        summary.over_budget.update(track.reported)
        if is_wedged(track, said):
            group = track.look.shim.group if track.look else None
            summary.wedged[BundleKey(track.key.namespace, group or track.key.id)] += 1
        if verdict is not Verdict.LEFTOVER:
            continue
        summary.phases[track.phase] += 1
        summary.leftover_bytes += track.look.size_bytes if track.look else 0
        summary.oldest_leftover_age = max(summary.oldest_leftover_age, track.age(now))
        if track.phase is Phase.BLOCKED:
            summary.blocked[track.cause] += 1
    return summary
