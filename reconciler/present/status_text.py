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


def lines(told: Status) -> Iterator[str]:
    """Say how the daemon is and what is wrong, a line each."""
    version = f" {told.containerd.version}" if told.containerd.version else ""
    yield (
        f"{'ready' if told.ready else 'not ready'}, {told.mode}: {told.state}, "
        f"containerd {told.containerd.state}{version}, watch {told.backend}, "
        f"up {words.age(told.uptime_seconds)}, version {told.version}, pid {told.pid}"
    )
    yield _counts(told)
    for alarm in alarms(told):
        if alarm.where:
            yield f"{alarm.where}: {alarm.what}"


def alarms(told: Status) -> Iterator[Alarm]:
    """Say what is wrong."""
    for refused in told.refused:
        yield Alarm("not acting", "Not acting", refused.reason)
    if told.brake:
        yield Alarm("held", "Held", told.brake)
    if told.containerd.state == "no answer":
        why = told.containerd.detail
        yield Alarm("containerd" if why else "", "containerd does not answer", why)
    if told.summary.wedged_shims:
        count = words.plural(told.summary.wedged_shims, "shim")
        yield Alarm(f"no answer to containerd from {count}", "", ", ".join(wedged(told.bundles)))
    if not told.config.ok:
        where = "configuration refused, the old one is in force"
        yield Alarm(where, where.capitalize(), told.config.error)
    if told.journal is not None and told.journal.lost:
        yield Alarm(f"the journal misses {told.journal.lost} records", "", told.journal.trouble)
    yield from _own_alarms(told)


def _own_alarms(told: Status) -> Iterator[Alarm]:
    """Say what is wrong with the daemon itself, and not with what it sees."""
    if told.backend_trouble:
        yield Alarm("watch", "Watching", told.backend_trouble)
    for one in told.endpoints:
        if one.trouble:
            yield Alarm(one.key, one.key, one.trouble)
    if told.internal_errors:
        counted = ", ".join(f"{n:,} in {where}" for where, n in told.internal_errors.items())
        yield Alarm("internal errors, see the log", "Internal errors, see the log", counted)


def wedged(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Name the tasks whose shim gives containerd no answer, with its pid if that is known."""
    for one in bundles:
        if one.shim.wedged:
            pid = "" if one.shim.pid is None else f" (pid {one.shim.pid})"
            yield f"{words.name(one)}{pid}"


def _counts(told: Status) -> str:
    summary = told.summary
    found = words.bundles(summary.bundles, summary.verdicts)
    phases = ", ".join(words.counted(summary.phases))
    if not phases:
        return found
    return f"{found}; leftovers: {phases}, {words.size(summary.leftover_bytes)}"


def tables(told: Status, *, wide: bool = False, most: int | None = None) -> Iterator[Table]:
    """Lay out what needs attention, and what came of the last attempts."""
    if told.bundles:
        yield rows.bundles(told.bundles[:most], wide=wide)
    if told.recent:
        yield rows.results([one.result for one in told.recent[:_RECENT]])
