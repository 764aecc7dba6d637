"""The status in lines and tables; what is wrong is said once, for terminal and page. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from reconciler.present import rows, words
from reconciler.present.shapes import Bundle
from reconciler.present.status import Status
from reconciler.present.table import Table

_RECENT: Final = 8


class Alarm(NamedTuple):
    """Something that is wrong: its name on a terminal and on the page, empty where not shown."""

    where: str
    on_page: str
    what: str


def lines(status: Status) -> Iterator[str]:
    """Say how the daemon is and what is wrong, a line each."""
    version = f" {status.containerd.version}" if status.containerd.version else ""
    yield (
        f"{'ready' if status.ready else 'not ready'}, {status.mode}: {status.state}, "
        f"containerd {status.containerd.state}{version}, watch {status.backend}, "
        f"up {words.age(status.uptime_seconds)}, version {status.version}, pid {status.pid}"
    )
    yield _counts(status)
    for alarm in alarms(status):
        if alarm.where:
            yield f"{alarm.where}: {alarm.what}"


def alarms(status: Status) -> Iterator[Alarm]:
    """Say what is wrong."""
    for refused in status.refused:
        yield Alarm("not acting", "Not acting", refused.reason)
    if status.brake:
        yield Alarm("held", "Held", status.brake)
    if status.containerd.state == "no answer":
        why = status.containerd.detail
        yield Alarm("containerd" if why else "", "containerd does not answer", why)
    if status.summary.wedged_shims:
        count = words.plural(status.summary.wedged_shims, "shim")
        yield Alarm(f"no answer to containerd from {count}", "", ", ".join(wedged(status.bundles)))
    if not status.config.ok:
        where = "configuration refused, the old one is in force"
        yield Alarm(where, where.capitalize(), status.config.error)
    if status.journal is not None and status.journal.lost:
        yield Alarm(f"the journal misses {status.journal.lost} records", "", status.journal.trouble)
    yield from _own_alarms(status)


def _own_alarms(status: Status) -> Iterator[Alarm]:
    """Say what is wrong with the daemon itself, and not with what it sees."""
    if status.backend_trouble:
        yield Alarm("watch", "Watching", status.backend_trouble)
    for one in status.endpoints:
        if one.trouble:
            yield Alarm(one.key, one.key, one.trouble)
    if status.internal_errors:
        counted = ", ".join(f"{n:,} in {where}" for where, n in status.internal_errors.items())
        yield Alarm("internal errors, see the log", "Internal errors, see the log", counted)


def wedged(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Name the tasks whose shim gives containerd no answer, with its pid if that is known."""
    for one in bundles:
        if one.shim.wedged:
            pid = "" if one.shim.pid is None else f" (pid {one.shim.pid})"
            yield f"{words.name(one)}{pid}"


def _counts(status: Status) -> str:
    summary = status.summary
    found = words.bundles(summary.bundles, summary.verdicts)
    phases = ", ".join(words.counted(summary.phases))
    if not phases:
        return found
    return f"{found}; leftovers: {phases}, {words.size(summary.leftover_bytes)}"


def tables(status: Status, *, wide: bool = False, most: int | None = None) -> Iterator[Table]:
    """Lay out what needs attention, and what came of the last attempts."""
    if status.bundles:
        yield rows.bundles(status.bundles[:most], wide=wide)
    if status.recent:
        yield rows.results([one.result for one in status.recent[:_RECENT]])
