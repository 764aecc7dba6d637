"""One line and a state, as a custom plugin of node-problem-detector gives them. Pure.

It knows three states: the node is well, it is not, nobody can say. The last is kept apart here as
everywhere: a daemon that cannot see everything never says that all is well.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from reconciler.decide.cleanups import RATE
from reconciler.model.decisions import Verdict
from reconciler.model.ids import printable
from reconciler.model.observations import SPOILS_LOOKING
from reconciler.present import words
from reconciler.present.status import Status
from reconciler.present.status_text import Alarm, node_alarms

LONGEST: Final = 80
"""Bytes of a line: the detector's `max_output_length`, beyond which it cuts."""

_CUT: Final = "..."
_NOBODY_REMOVES: Final = (Verdict.ORPHANED, Verdict.ABANDONED)
_SPOILS_LOOKING: Final = frozenset(guard.value for guard in SPOILS_LOOKING)


class State(IntEnum):
    """What the detector makes of an exit code."""

    OK = 0
    NON_OK = 1
    UNKNOWN = 2


class Answer(NamedTuple):
    """A state, and why in one line of at most `LONGEST` bytes."""

    state: State
    line: str


def answer(status: Status) -> Answer:
    """Say how the node is by the first of these that fits.

    (1) The daemon has not seen everything yet, or cannot: unknown. (2) Something needs a person, as
    far as the daemon knows: not well. (3) Well. What waits or is being removed is no problem, and
    neither is a brake that only sets the pace.
    """
    if not status.ready:
        return unknown("the daemon is not ready")
    for refused in status.refused:
        if refused.guard in _SPOILS_LOOKING:
            return unknown(f"the daemon cannot see everything: {refused.reason}")
    found = list(_problems(status))
    if found:
        return Answer(State.NON_OK, _line(found))
    summary = status.summary
    left = summary.verdicts.get(Verdict.LEFTOVER.value, 0)
    counts = (words.plural(summary.bundles, "bundle"), words.plural(left, "leftover"))
    return Answer(State.OK, f"{counts[0]}, {counts[1]}, no problem")


def unknown(why: str) -> Answer:
    """Say that nobody can say, and why."""
    return Answer(State.UNKNOWN, _fitted(why))


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
        if len(line.encode()) <= LONGEST:
            return line
    return _fitted(said[0])


def _fitted(text: str) -> str:
    r"""Cut a line to what the detector takes; it counts bytes and would cut within a character."""
    text = printable(text)
    if len(text.encode()) <= LONGEST:
        return text
    room = LONGEST - len(_CUT)
    return text.encode()[:room].decode(errors="ignore").rstrip() + _CUT
