"""Debris as words: its promised JSON shape, and what came of it as records for the log. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from reconciler.decide.debris import DebrisVerdict
from reconciler.decide.debris_track import DebrisView
from reconciler.model.debris import DebrisCleaned, DebrisKind, DebrisResult
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Hidden
from reconciler.model.outcome import Result
from reconciler.present.envelope import Shape
from reconciler.present.events import LogEvent
from reconciler.present.records import Field, Level, Record

_FEW: Final = 3
"""So many places of one batch with the same result are told one by one."""

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
        path=f"{escape(layout.tasks)}/{found.key}",
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
