"""Debris in its promised JSON shape: what lies outside of bundles. Pure."""

from reconciler.decide.debris import DebrisVerdict, DebrisView
from reconciler.model.debris import DebrisKind
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Hidden
from reconciler.present.envelope import Shape


class DebrisShape(Shape, frozen=True):
    """One piece of debris of `scan -o json`; unknown ones may be some, and are none for certain."""

    kind: str
    path: str
    reason: str
    verdict: str
    namespace: str = ""
    id: str = ""
    age_seconds: float | None = None
    phase: str | None = None


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
    )
