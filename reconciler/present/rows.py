"""Rows: bundles, debris and results as tables, and a whole `scan` or `clean` in one line. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from reconciler.model.outcome import Result
from reconciler.present import debris_results, formatting
from reconciler.present.debris import DebrisShape
from reconciler.present.debris_results import is_debris, warnings_of
from reconciler.present.shapes import (
    PLANNED,
    Bundle,
    Clean,
    CleanSummary,
    ResultShape,
    Scan,
)
from reconciler.present.table import Cell, Column, Table

_NAME: Final = (Column("NAMESPACE", shortens=True), Column("ID", shortens=True, is_id=True))
_POD: Final = (Column("POD", gives_way=True), Column("CONTAINER", gives_way=True))
_REASON: Final = Column("REASON", gives_way=True, has_notes=True)
_AGE: Final = Column("AGE", right=True)
_SIZE: Final = Column("SIZE", right=True)

_BUNDLE: Final = (
    *(Column("VERDICT"), Column("PHASE")),
    *(Column("DUE", right=True), _AGE, _SIZE, _REASON),
)
_BUNDLE_WIDE: Final = (
    *(Column("RULE", right=True), Column("POLICY")),
    *(Column("INIT"), Column("SHIM"), Column("CGROUP"), Column("RUNTIME", gives_way=True)),
    *(Column("CONTAINERD"), Column("MOUNTS", gives_way=True), Column("MISSING", gives_way=True)),
)
_DEBRIS: Final = (
    *(Column("KIND"), *_NAME, Column("VERDICT"), Column("PHASE"), Column("DUE", right=True), _AGE),
    *(Column("PATH", gives_way=True), _REASON),
)
_PLAN: Final = (Column("PLAN"), _REASON)
_RESULT: Final = (
    *(Column("RESULT"), Column("TOOK", right=True), Column("STEPS", right=True)),
    Column("DETAIL", gives_way=True, has_notes=True),
)


def bundles(shown: Sequence[Bundle], *, wide: bool, ids: Collection[str] = ()) -> Table:
    """One row for each bundle; on Kubernetes with its pod and container.

    ``ids``: those of all bundles there are, where these are only some of them.
    """
    pods = _POD if any(one.pod for one in shown) else ()
    table = Table((*_NAME, *pods, *_BUNDLE, *(_BUNDLE_WIDE if wide else ())), ids=ids)
    for one in shown:
        cells = [
            Cell(_space(one)),
            Cell(one.id),
            *(_pod(one) if pods else ()),
            Cell(one.verdict, formatting.style(one.verdict)),
            Cell(one.phase or "-", formatting.style(one.phase or "")),
            Cell(formatting.due(one.due_in_seconds)),
            Cell(formatting.age(one.age_seconds)),
            Cell(formatting.size(one.size_bytes, exact=one.size_exact)),
            Cell(with_cause(one.reason, one.cause)),
        ]
        table.rows.append([*cells, *_wide(one)] if wide else cells)
    return table


def debris(left: Sequence[DebrisShape]) -> Table:
    """One row for each piece of debris."""
    table = Table(_DEBRIS)
    for one in left:
        age = "-" if one.age_seconds is None else formatting.age(one.age_seconds)
        why = with_cause(one.reason, one.cause)
        table.rows.append(
            [
                *map(Cell, (one.kind, one.namespace, one.id, one.verdict)),
                Cell(one.phase or "-", formatting.style(one.phase or "")),
                *map(Cell, (formatting.due(one.due_in_seconds), age, one.path, why)),
            ]
        )
    return table


def plan(shown: Sequence[ResultShape]) -> Table:
    """One row for each thing that `clean` would deal with; on Kubernetes with its pod."""
    pods = _POD if any(one.pod for one in shown) else ()
    table = Table((*_NAME, *pods, *_PLAN))
    for one in shown:
        style = formatting.style(one.result)
        is_planned = one.result == PLANNED
        what = Cell("remove" if is_planned else one.result, style)
        why = one.detail if is_planned else blocked_by(one)
        pod = _pod(one) if pods else ()
        table.rows.append([Cell(_space(one)), Cell(one.id), *pod, what, Cell(why)])
    return table


def results(shown: Sequence[ResultShape], when: Sequence[str] = ()) -> Table:
    """One row for each thing `clean` dealt with; ``when``: how long ago that was, for each."""
    pods = _POD if any(one.pod for one in shown) else ()
    table = Table((*_NAME, *pods, *((Column("WHEN", right=True),) if when else ()), *_RESULT))
    for n, one in enumerate(shown):
        table.rows.append(
            [
                Cell(_space(one)),
                Cell(one.id),
                *(_pod(one) if pods else ()),
                *([Cell(when[n])] if when else []),
                Cell(one.result, formatting.style(one.result)),
                Cell(formatting.took(one.seconds) if one.steps else "-"),
                Cell(str(len(one.steps) or "-")),
                Cell("; ".join((*filter(None, [blocked_by(one)]), *warnings_of(one)))),
            ]
        )
    return table


def laid_out(done: Clean, *, dry_run: bool = True) -> list[Table]:
    """Lay out what `clean` did or would do: bundles, and then what lies outside of them."""
    found = [one for one in done.results if not is_debris(one)]
    pieces = [one for one in done.results if is_debris(one)]
    tables = [(plan if dry_run else results)(found)] if found else []
    return [*tables, debris_results.table(pieces)] if pieces else tables


def scan_summary(scan: Scan) -> str:
    """Say in one line what a scan found."""
    summary = scan.summary
    found = formatting.bundles(summary.bundles, summary.verdicts)
    left = f"; {formatting.size(summary.leftover_bytes)} in leftovers" if summary.leftovers else ""
    also = f"; {formatting.plural(summary.debris, 'piece')} of debris" if summary.debris else ""
    return f"{found}{left}{also}; {formatting.took(summary.seconds)}"


def clean_summary(
    summary: CleanSummary, *, unsure: bool = False, planned: str = "", kept: int = 0
) -> str:
    """Say in one line what a clean did.

    Args:
        summary: Its counts.
        unsure: Whether there may have been more to do.
        planned: What would be removed, in words, if not so many bundles.
        kept: How many were removed, but for something outside that stayed.
    """
    parts = formatting.counted(summary.results)
    if summary.dry_run:
        count = summary.results[PLANNED]
        others = [f"{n} {what}" for what, n in summary.results.items() if n and what != PLANNED]
        would = [f"{planned or formatting.plural(count, 'bundle')} would be removed", *others]
        parts = [f"dry run: {', '.join(would)}, nothing was touched"]
    elif not parts:
        parts = ["nothing was touched" if unsure else "nothing to do"]
    else:
        parts = [", ".join(parts), formatting.plural(summary.mutations, "change")]
        parts += [f"{kept} left something, see the warnings"] if kept else []
    parts += (
        [f"{formatting.plural(summary.waiting, 'leftover')} not due yet"] if summary.waiting else []
    )
    return "; ".join([*parts, formatting.took(summary.seconds)])


def _space(one: Bundle | ResultShape) -> str:
    """Give a namespace as it is typed: that of a sandbox says which tree is meant."""
    return f"{one.tree}:{one.namespace}" if one.tree else one.namespace


def names(shown: Sequence[Bundle | ResultShape]) -> str:
    """One ``NS/ID`` a line, as `explain` takes it."""
    return "".join(f"{_named(one)}\n" for one in shown)


def _named(one: Bundle | ResultShape) -> str:
    """Name a thing as `explain` takes it."""
    if isinstance(one, ResultShape) and is_debris(one):
        return f"{one.kind}:{one.path}"
    return formatting.name(one)


def failures(done: Clean) -> list[str]:
    """Say for each thing that stayed what is in the way and who holds it."""
    troubled = (Result.BLOCKED.value, Result.FAILED.value)
    return [
        f"{_named(one)}{f' ({one.pod.path})' if one.pod else ''} {one.result}: {blocked_by(one)}"
        for one in done.results
        if one.result in troubled
    ]


def blocked_by(one: ResultShape) -> str:
    """Say what is in the way, and who."""
    reason = "" if one.detail.startswith(one.reason) else one.reason
    who = formatting.holders(one.holders)
    return "; ".join(part for part in (reason, one.detail, who and f"held by {who}") if part)


def warned(done: Clean) -> int:
    """Count what was removed, but for something outside that stayed."""
    removed = (one for one in done.results if one.result == Result.CLEANED.value)
    return sum(bool(warnings_of(one)) for one in removed)


def with_cause(reason: str, cause: str) -> str:
    """Join a verdict's reason with its phase's cause."""
    return f"{reason}; {cause}" if cause else reason


def _pod(one: Bundle | ResultShape) -> tuple[Cell, Cell]:
    if one.pod is None:
        return Cell("-"), Cell("-")
    pod = "/".join(part for part in (one.pod.namespace, one.pod.name) if part)
    return Cell(pod), Cell(one.pod.container or "-")


def _wide(one: Bundle) -> list[Cell]:
    init = f"{one.init.pid} {one.init.state}" if one.init.pid is not None else one.init.state
    return [
        Cell(str(one.rule)),
        Cell(one.policy),
        Cell(init),
        Cell(one.shim.state),
        Cell(one.cgroup),
        Cell(one.runtime),
        Cell(one.containerd),
        Cell(",".join(one.mounts) or "-"),
        Cell(",".join(one.missing) or "-"),
    ]
