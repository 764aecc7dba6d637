"""The status in lines and tables; what is wrong is said once, for terminal and page. Pure.

Also in one line and a state, as a custom plugin of node-problem-detector gives them. It knows three
states: the node is well, it is not, nobody can say. The last is kept apart here as everywhere: a
daemon that cannot see everything never says that all is well.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from reconciler.decide.cleanups import RATE
from reconciler.model.decisions import Verdict
from reconciler.model.ids import printable
from reconciler.model.observations import SPOILS_LOOKING
from reconciler.present import formatting, rows
from reconciler.present.shapes import Bundle
from reconciler.present.status import Reload, Status
from reconciler.present.table import Table

_RECENT: Final = 8
_SPOILS_LOOKING: Final = frozenset(guard.value for guard in SPOILS_LOOKING)


class Alarm(NamedTuple):
    """Something that is wrong: what, and why or which."""

    what: str
    why: str = ""

    @property
    def line(self) -> str:
        """Both, as terminal and page say it."""
        return f"{self.what}: {self.why}" if self.why else self.what


def blindness(status: Status) -> list[str]:
    """Say why the daemon cannot see everything, a line each: what all it says is worth."""
    return [
        f"warning: the daemon cannot see everything: {one.reason}"
        for one in status.refused
        if one.guard in _SPOILS_LOOKING
    ]


def lines(status: Status, *, blindness_first: bool = False) -> Iterator[str]:
    """Say how the daemon is and what is wrong, a line each.

    ``blindness_first``: before all else what it cannot see, where nothing else is in that place.
    """
    said = set[str]()
    if blindness_first:
        yield from blindness(status)
        said = {one.reason for one in status.refused if one.guard in _SPOILS_LOOKING}
    version = f" {status.containerd.version}" if status.containerd.version else ""
    yield (
        f"{'ready' if status.ready else 'not ready'}, {status.mode}: {status.state}, "
        f"containerd {status.containerd.state}{version}, watch {status.backend}, "
        f"up {formatting.age(status.uptime_seconds)}, version {status.version}, pid {status.pid}"
    )
    yield _counts(status)
    yield from (alarm.line for alarm in alarms(status) if alarm.why not in said)


def alarms(status: Status) -> Iterator[Alarm]:
    """Say what is wrong."""
    for refused in status.refused:
        yield Alarm("not acting", refused.reason)
    # What the guards refuse holds everything, and was named just now.
    yield from (one for one in node_alarms(status) if not status.refused or one.what != "held")
    if status.config.after_restart:
        yield Alarm("waits for a restart", "; ".join(status.config.after_restart))
    if status.journal is not None and status.journal.lost:
        lost = formatting.plural(status.journal.lost, "record")
        yield Alarm(f"the journal misses {lost}", status.journal.trouble)
    yield from _own_alarms(status)


def node_alarms(status: Status) -> Iterator[Alarm]:
    """Say what of it keeps this node from being looked after, now and until it is mended."""
    if status.brake:
        yield Alarm("held", status.brake)
    if status.listing_trouble:
        yield Alarm("listing", status.listing_trouble)
    if status.containerd.state == "no answer":
        yield Alarm("containerd does not answer", status.containerd.detail)
    for one in status.stuck:
        yield Alarm("stuck", formatting.stuck(one.pid, one.bundle))
    if status.summary.wedged_shims:
        count = formatting.plural(status.summary.wedged_shims, "shim")
        yield Alarm(f"no answer to containerd from {count}", ", ".join(wedged(status.bundles)))
    if status.summary.unlisted:
        count = formatting.plural(status.summary.unlisted, "task")
        names = [formatting.name(one) for one in status.bundles if one.unlisted]
        yield Alarm(f"containerd does not know {count} that run", ", ".join(names))
    if not status.config.ok:
        yield Alarm("configuration refused, the old one is in force", status.config.error)


def reload_lines(done: Reload) -> list[str]:
    """Say what a reload has changed, what of it waits for a restart, and what is odd."""
    now = [line for line in done.changes if line not in done.after_restart]
    waits = [f"waits for a restart: {line}" for line in done.after_restart]
    return [*now, *waits, *(f"note: {hint}" for hint in done.hints)]


def _own_alarms(status: Status) -> Iterator[Alarm]:
    """Say what is wrong with the daemon itself, and not with what it sees."""
    if status.backend_trouble:
        yield Alarm("watch", status.backend_trouble)
    for one in status.endpoints:
        if one.trouble:
            yield Alarm(one.key, one.trouble)
    if status.internal_errors:
        counted = ", ".join(f"{n:,} in {where}" for where, n in status.internal_errors.items())
        yield Alarm("internal errors, see the log", counted)


def wedged(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Name the tasks whose shim gives containerd no answer, with its pid if that is known."""
    for one in bundles:
        if one.shim.wedged:
            pid = "" if one.shim.pid is None else f"pid {one.shim.pid}"
            names = (
                [formatting.name(one)] if one.pod is None else [one.pod.path, formatting.name(one)]
            )
            first, *more = [*names, pid] if pid else names
            yield f"{first} ({', '.join(more)})" if more else first


def _counts(status: Status) -> str:
    summary = status.summary
    found = formatting.bundles(summary.bundles, summary.verdicts)
    phases = ", ".join(formatting.counted(summary.phases))
    left = f"leftovers: {phases}, {formatting.size(summary.leftover_bytes)}" if phases else ""
    return "; ".join(
        filter(None, (found, left, formatting.debris(summary.debris, more=summary.debris_more)))
    )


def tables(status: Status, *, wide: bool = False) -> Iterator[Table]:
    """Lay out what needs attention, debris, and what came of the last attempts."""
    if status.bundles:
        yield rows.bundles(status.bundles, wide=wide)
    if status.debris:
        yield rows.debris(status.debris)
    if status.recent:
        yield results(status)


def results(status: Status) -> Table:
    """Lay out what came of the last attempts, and when."""
    recent = status.recent[:_RECENT]
    when = [f"{formatting.age(max(0.0, status.now - one.at))} ago" for one in recent]
    return rows.results([one.result for one in recent], when)


LONGEST_LINE: Final = 80
"""Bytes of a line: the detector's `max_output_length`, beyond which it cuts."""

_CUT: Final = "..."
_NOBODY_REMOVES: Final = (Verdict.ORPHANED, Verdict.ABANDONED)


class DetectorState(IntEnum):
    """What the detector makes of an exit code."""

    OK = 0
    NON_OK = 1
    UNKNOWN = 2


class DetectorAnswer(NamedTuple):
    """A state, and why in one line of at most `LONGEST_LINE` bytes."""

    state: DetectorState
    line: str


def detector_answer(status: Status) -> DetectorAnswer:
    """Say how the node is by the first of these that fits.

    (1) The daemon has not seen everything yet, or cannot: unknown. (2) Something needs a person, as
    far as the daemon knows: not well. (3) Well. What waits or is being removed is no problem, and
    neither is a brake that only sets the pace.
    """
    if not status.ready:
        return detector_unknown("the daemon is not ready")
    for refused in status.refused:
        if refused.guard in _SPOILS_LOOKING:
            return detector_unknown(f"the daemon cannot see everything: {refused.reason}")
    found = list(_problems(status))
    if found:
        return DetectorAnswer(DetectorState.NON_OK, _line(found))
    summary = status.summary
    left = summary.verdicts.get(Verdict.LEFTOVER.value, 0)
    counts = (formatting.plural(summary.bundles, "bundle"), formatting.plural(left, "leftover"))
    return DetectorAnswer(DetectorState.OK, f"{counts[0]}, {counts[1]}, no problem")


def detector_unknown(why: str) -> DetectorAnswer:
    """Say that nobody can say, and why."""
    return DetectorAnswer(DetectorState.UNKNOWN, _fitted(why))


def _problems(status: Status) -> Iterator[Alarm]:
    summary = status.summary
    blocked = {reason: count for reason, count in summary.blocked.items() if count}
    if blocked:
        yield Alarm(f"{sum(blocked.values()):,} blocked", ", ".join(blocked))
    for verdict in _NOBODY_REMOVES:
        if count := summary.verdicts.get(verdict.value, 0):
            yield Alarm(f"{count:,} {verdict.value}")
    if status.mode == "enforce":
        yield from (Alarm("not acting", refused.reason) for refused in status.refused)
    yield from (one for one in node_alarms(status) if not one.why.startswith(f"{RATE}:"))


def _line(problems: Sequence[Alarm]) -> str:
    """Say why, if there is one; else as many as the line takes, and how many more."""
    if len(problems) == 1:
        return _fitted(problems[0].line)
    said = [printable(one.what) for one in problems]
    for count in range(len(said), 0, -1):
        more = f"; {len(said) - count} more" if count < len(said) else ""
        line = "; ".join(said[:count]) + more
        if len(line.encode()) <= LONGEST_LINE:
            return line
    return _fitted(said[0])


def _fitted(text: str) -> str:
    r"""Cut a line to what the detector takes; it counts bytes and would cut within a character."""
    text = printable(text)
    if len(text.encode()) <= LONGEST_LINE:
        return text
    room = LONGEST_LINE - len(_CUT)
    return text.encode()[:room].decode(errors="ignore").rstrip() + _CUT
