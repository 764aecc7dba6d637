"""Words, tables and the live picture of `status`. Pure: a status flows in."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from reconciler.cli import render
from reconciler.cli.table import Table
from reconciler.model.ids import printable
from reconciler.telemetry import words
from reconciler.telemetry.shapes import Bundle
from reconciler.telemetry.status import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

_RECENT: Final = 8
_ROWS: Final = 20


def lines(told: Status) -> Iterator[str]:
    """Say how the daemon is and what is wrong, a line each."""
    version = f" {told.containerd.version}" if told.containerd.version else ""
    yield (
        f"{'ready' if told.ready else 'not ready'}, {told.mode}: {told.state}, "
        f"containerd {told.containerd.state}{version}, watch {told.backend}, "
        f"up {words.age(told.uptime_seconds)}, version {told.version}, pid {told.pid}"
    )
    yield _counts(told)
    yield from alarms(told)


def alarms(told: Status) -> Iterator[str]:
    """Say what is wrong, a line each."""
    for one in told.refused:
        yield f"not acting: {one.reason}"
    if told.brake:
        yield f"held: {told.brake}"
    if told.containerd.detail and told.containerd.state == "no answer":
        yield f"containerd: {told.containerd.detail}"
    if told.summary.wedged_shims:
        names = ", ".join(wedged(told.bundles))
        count = words.plural(told.summary.wedged_shims, "shim")
        yield f"no answer to containerd from {count}: {names}"
    if not told.config.ok:
        yield f"configuration refused, the old one is in force: {told.config.error}"
    if told.journal is not None and told.journal.lost:
        yield f"the journal misses {told.journal.lost} records: {told.journal.trouble}"
    yield from _own_alarms(told)


def _own_alarms(told: Status) -> Iterator[str]:
    """Say what is wrong with the daemon itself, and not with what it sees."""
    if told.backend_trouble:
        yield f"watch: {told.backend_trouble}"
    for endpoint in told.endpoints:
        if endpoint.trouble:
            yield f"{endpoint.key}: {endpoint.trouble}"
    if told.internal_errors:
        counted = ", ".join(f"{n:,} in {where}" for where, n in told.internal_errors.items())
        yield f"internal errors, see the log: {counted}"


def wedged(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Name the tasks whose shim gives containerd no answer, with its pid if that is known."""
    for one in bundles:
        if one.shim.wedged:
            pid = "" if one.shim.pid is None else f" (pid {one.shim.pid})"
            yield f"{one.namespace}/{one.id}{pid}"


def _counts(told: Status) -> str:
    summary = told.summary
    parts = [f"{count} {verdict}" for verdict, count in summary.verdicts.items() if count]
    phases = [f"{count} {phase}" for phase, count in summary.phases.items() if count]
    left = f"; leftovers: {', '.join(phases)}" if phases else ""
    size = f", {words.size(summary.leftover_bytes)}" if phases else ""
    counted = f": {', '.join(parts)}" if parts else ""
    return f"{words.plural(summary.bundles, 'bundle')}{counted}{left}{size}"


def tables(told: Status, *, wide: bool = False, most: int | None = None) -> Iterator[Table]:
    """Lay out what needs attention, and what came of the last attempts."""
    if told.bundles:
        yield render.bundles(told.bundles[:most], wide=wide)
    if told.recent:
        yield render.results([one.result for one in told.recent[:_RECENT]])


def picture(told: Status, trouble: str = "") -> "RenderableType":
    """Draw all of it for a terminal; ``trouble``: why it is not up to date."""
    from rich.console import Group
    from rich.text import Text

    first, counts, *wrong = lines(told)
    parts: list[RenderableType] = [Text(printable(first), "bold"), Text(printable(counts))]
    parts += [Text(printable(line), "bold red") for line in ([trouble] if trouble else []) + wrong]
    for table in tables(told, most=_ROWS):
        parts += [Text(), table.rich()]
    more = told.omitted + max(0, len(told.bundles) - _ROWS)
    if more:
        parts.append(Text(f"and {more:,} more need attention", "dim"))
    return Group(*parts, Text(), Text("Ctrl-C ends", "dim"))
