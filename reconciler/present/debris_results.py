"""What came of debris, or would come of it, in the promised JSON shape of `clean`. Pure."""

from collections.abc import Sequence

from reconciler.decide.debris_track import DebrisView
from reconciler.model.debris import DebrisKind, DebrisResult, Place
from reconciler.model.outcome import StepResult
from reconciler.present import formatting, shapes
from reconciler.present.table import Cell, Column, Table

BUNDLE = "bundle"

_PLANS = {kind.value: "end" if kind is DebrisKind.SHIM else "remove" for kind in DebrisKind}

_COLUMNS = (
    *(Column("KIND"), Column("NAMESPACE", shortens=True), Column("ID", shortens=True)),
    *(Column("RESULT"), Column("PATH", gives_way=True)),
    Column("DETAIL", gives_way=True, has_notes=True),
)


def is_debris(one: shapes.ResultShape) -> bool:
    """Return whether it is about something outside of bundles."""
    return one.kind != BUNDLE


def result(place: Place, came: DebrisResult) -> shapes.ResultShape:
    """Shape what came of one piece of debris."""
    reason = "" if came.reason is None else came.reason.value
    return _shape(
        place,
        came.result.value,
        reason,
        came.detail,
        seconds=came.seconds,
        steps=shapes.steps(came.steps),
    )


def untouched(view: DebrisView, what: str, reason: str = "") -> shapes.ResultShape:
    """Shape what would come of one, or why nothing does: ``what`` is a result, or `planned`."""
    return _shape(view.place, what, reason, view.reason)


def _shape(  # noqa: PLR0913 - what differs between the two
    place: Place,
    what: str,
    reason: str,
    detail: str,
    *,
    seconds: float = 0.0,
    steps: Sequence[shapes.StepShape] = (),
) -> shapes.ResultShape:
    return shapes.ResultShape(
        kind=place.key.kind.value,
        namespace=place.namespace,
        id=place.id,
        path=place.key.path,
        result=what,
        reason=reason,
        detail=detail,
        holders=[],
        seconds=round(seconds, 6),
        steps=list(steps),
    )


def warnings_of(one: shapes.ResultShape) -> list[str]:
    """Say what went wrong, or was left on purpose, without holding anything up."""
    return [
        f"warning: {step.step}: {step.detail}"
        for step in one.steps
        if step.result == StepResult.WARNING.value
    ]


def table(shown: Sequence[shapes.ResultShape]) -> Table:
    """One row for each piece of debris that `clean` dealt with, or would deal with."""
    rows = Table(_COLUMNS)
    for one in shown:
        what = _PLANS[one.kind] if one.result == shapes.PLANNED else one.result
        why = "; ".join((*filter(None, (one.reason, one.detail)), *warnings_of(one)))
        rows.rows.append(
            [
                Cell(one.kind),
                Cell(one.namespace or "-"),
                Cell(one.id or "-"),
                Cell(what, formatting.style(one.result)),
                Cell(one.path),
                Cell(why),
            ]
        )
    return rows
