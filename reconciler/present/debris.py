"""Debris as words: its promised JSON shape, and what came of it as records for the log. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import groupby
from typing import Final, NamedTuple

from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.model.debris import DebrisCleaned, DebrisKind, DebrisResult
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Hidden
from reconciler.model.outcome import Result
from reconciler.present.envelope import Shape
from reconciler.present.events import LogEvent
from reconciler.present.formatting import URGENCY
from reconciler.present.records import Field, Level, Record

MOST: Final = 200
"""Pieces of debris that are listed one by one, at most."""

NO_PHASE: Final = "none"

_FEW: Final = 3
"""So many places of one batch with the same result are told one by one."""

_LISTED: Final = frozenset({DebrisVerdict.DEBRIS, DebrisVerdict.UNKNOWN})
_RESULTS: Final = {
    Result.CLEANED: (LogEvent.DEBRIS_CLEANED, Level.INFO),
    Result.BLOCKED: (LogEvent.DEBRIS_BLOCKED, Level.WARNING),
    Result.FAILED: (LogEvent.DEBRIS_FAILED, Level.ERROR),
    Result.HELD: (LogEvent.DEBRIS_HELD, Level.INFO),
    Result.PROTECTED: (LogEvent.DEBRIS_HELD, Level.INFO),
    Result.KILLED: (LogEvent.DEBRIS_CLEANED, Level.INFO),
    Result.SKIPPED: (LogEvent.DEBRIS_SKIPPED, Level.INFO),
}


class DebrisShape(Shape, frozen=True, kw_only=True):
    """One piece of debris of `scan -o json`; unknown ones may be some, and are none for certain."""

    kind: str
    path: str
    reason: str
    verdict: str
    namespace: str = ""
    id: str = ""
    age_seconds: float | None = None
    phase: str | None = None
    cause: str = ""
    due_in_seconds: float | None = None
    attempts: int


class Left(NamedTuple):
    """What is left outside of bundles, as far as a status or a report has room for it.

    Attributes:
        counts: How many pieces of debris there are by phase, of each kind that was looked for.
        listed: Those that are listed, what needs attention first; also what is unknown.
        omitted: How many more there are.
    """

    counts: dict[str, dict[str, int]]
    listed: list[DebrisShape]
    omitted: int


NOTHING: Final = Left({}, [], 0)


def left(
    views: Iterable[DebrisView],
    looked: Collection[DebrisKind],
    text: str = "",
    most: int = MOST,
) -> Left:
    """Count debris, and list some of it; one pass.

    Args:
        views: What the last inventory found.
        looked: The kinds it looked for; of others nothing is counted, also no 0.
        text: List only what mentions this, in small letters; the counts are of all.
        most: So many are listed.
    """
    counts, listed = Counter[tuple[str, str]](), 0

    def notable() -> Iterator[DebrisView]:
        nonlocal listed
        for view in views:
            if view.verdict is DebrisVerdict.DEBRIS:
                counts[view.place.key.kind.value, view.phase.value or NO_PHASE] += 1
            if view.verdict in _LISTED and (not text or text in _said(view)):
                listed += 1
                yield view

    # Never all at once: there may be very many.
    urgent = nsmallest(most, notable(), key=_urgency)
    kinds = [kind.value for kind in DebrisKind if kind in looked]
    phases = [*(phase.value for phase in URGENCY), NO_PHASE]
    by_kind = {
        kind: {phase: counts[kind, phase] for phase in phases if counts[kind, phase]}
        for kind in kinds
    }
    return Left(by_kind, list(map(debris, urgent)), listed - len(urgent))


def _urgency(view: DebrisView) -> tuple[int, float]:
    """Order as bundles are: what cannot be removed, what is on its way, what nobody removes."""
    return URGENCY.get(view.phase, len(URGENCY)), -(view.age or 0.0)


def _said(view: DebrisView) -> str:
    place = view.place
    whose = f"{place.namespace}/{place.id}"
    words = (str(place.key), whose, view.verdict.value, view.phase.value, view.reason, view.cause)
    return "\n".join(words).casefold()


def debris(view: DebrisView) -> DebrisShape:
    """Shape a place that no bundle explains."""
    place = view.place
    return DebrisShape(
        kind=place.key.kind.value,
        path=place.key.path,
        namespace=place.namespace,
        id=place.id,
        age_seconds=None if view.age is None else round(view.age, 3),
        reason=view.reason,
        verdict=view.verdict.value,
        phase=view.phase.value or None,
        cause=view.cause,
        due_in_seconds=None if view.due_in_seconds is None else round(view.due_in_seconds, 3),
        attempts=view.attempts,
    )


def unfinished(found: Hidden, layout: Layout, wall: float) -> DebrisShape:
    """Shape a removal of ours that was cut short; ``wall`` is now, in seconds since the epoch."""
    return DebrisShape(
        kind=DebrisKind.HIDDEN_BUNDLE.value,
        path=f"{escape(layout.tree_of(found.key))}/{found.key.name}",
        namespace=found.key.namespace,
        id=found.key.id,
        age_seconds=round(max(0.0, wall - found.mtime), 3),
        reason="a removal of ours was cut short",
        verdict=DebrisVerdict.DEBRIS.value,
        attempts=0,
    )


def tally(results: Sequence[DebrisResult]) -> str:
    """Count what came of places, in words."""
    counts = Counter(one.result.value for one in results)
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing"


def records(cleaned: DebrisCleaned) -> Iterator[Record]:
    """Tell what came of a batch: place by place if they are few, else one line for all alike."""

    def alike(one: DebrisResult) -> tuple[str, str]:
        return one.result.value, "" if one.reason is None else one.reason.value

    for (_, reason), group in groupby(sorted(cleaned.results, key=alike), key=alike):
        results = list(group)
        for some in [[one] for one in results] if len(results) <= _FEW else [results]:
            yield _record(some, reason)


def _record(alike: list[DebrisResult], reason: str) -> Record:
    first = alike[0]
    event, level = _RESULTS[first.result]
    fields: dict[str, Field] = {
        "kind": first.key.kind.value,
        "path": first.key.path,
        "places": len(alike),
        "reason": reason,
        "detail": first.detail,
        "seconds": round(sum(one.seconds for one in alike), 6),
        "mutations": sum(step.mutations for one in alike for step in one.steps),
    }
    said = None if first.result is Result.CLEANED else (first.result.value, reason, first.detail)
    return Record(event, level, fields, None, said, f"debris {first.key}")
