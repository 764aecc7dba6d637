"""The live view of `run` on a terminal: counts, leftovers with a countdown, what is in the way.

A :class:`~reconciler.cli.picture.Picture` flows in, lines on the terminal flow out, at most four
times a second. A terminal that was stopped (Ctrl-S) is not written to, so it cannot stop the loop.
"""

import select
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from reconciler.cli.console import fitted
from reconciler.cli.display import Heading
from reconciler.cli.picture import STUCK, Picture, RecentRecord
from reconciler.model.decisions import Judged, Phase, Verdict
from reconciler.model.ids import printable
from reconciler.model.outcome import Result
from reconciler.present import status_text, words
from reconciler.present.records import Level, summary
from reconciler.present.status import Status

INTERVAL: Final = 0.25
"""Least seconds between two drawings."""

_ROWS: Final = 12
_BUNDLES: Final = 20
"""Rows of the status."""

_LEVEL_STYLES: Final = {
    Level.DEBUG: "dim",
    Level.INFO: "",
    Level.WARNING: "yellow",
    Level.ERROR: "bold red",
}


def draw(picture: Picture, heading: Heading, backend: str, now: float) -> RenderableType:
    """Draw the picture as of ``now`` (monotonic seconds)."""
    parts: list[RenderableType] = [_status(picture, heading, backend), _counts(picture)]
    parts += [Text(printable(f"guard: {reason}"), "bold red") for reason in picture.refused]
    parts += [
        Text(printable(f"brake: {name}: {why}"), "magenta") for name, why in picture.brakes.items()
    ]
    parts += _leftovers(picture, now)
    parts += _blocked(picture)
    if picture.recent:
        parts += [Text(), Text("recent", "bold"), *(_recent(shown) for shown in picture.recent)]
    return Group(*parts, Text(), Text(heading.hint, "dim"))


def draw_status(shown: Status, trouble: str = "") -> RenderableType:
    """Draw what a daemon says of itself; ``trouble``: why it is not up to date."""
    first, counts, *wrong = status_text.lines(shown)
    parts: list[RenderableType] = [Text(printable(first), "bold"), Text(printable(counts))]
    parts += [Text(printable(line), "bold red") for line in ([trouble] if trouble else []) + wrong]
    for table in status_text.tables(shown, most=_BUNDLES):
        parts += [Text(), fitted(table)]
    more = shown.omitted + max(0, len(shown.bundles) - _BUNDLES)
    if more:
        parts.append(Text(f"and {more:,} more need attention", "dim"))
    return Group(*parts, Text(), Text("Ctrl-C ends", "dim"))


class LiveView:
    """Draws on the terminal while it is open as a context manager."""

    def __init__(self, picture: Picture, heading: Heading, console: Console) -> None:
        self._picture = picture
        self._heading = heading
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)
        self._poll = select.poll()
        self._poll.register(sys.stdout.fileno(), select.POLLOUT)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, backend: str, now: float) -> None:
        """Draw if the terminal takes it and anything can have changed."""
        if not self._picture.changed and not self._picture.leftovers:
            return
        if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
            return
        self._picture.changed = False
        self._live.update(draw(self._picture, self._heading, backend, now), refresh=True)


def _status(picture: Picture, heading: Heading, backend: str) -> Text:
    said = words.containerd(picture.containerd)
    mode = ("enforcing", "bold red") if heading.enforce else ("observing", "bold green")
    return Text.assemble(
        (printable(heading.title), "bold"),
        "  ",
        mode,
        f" {heading.tree}",
        (printable("  " + said), "dim"),
        (f"  watch {backend}", "dim"),
    )


def _counts(picture: Picture) -> Text:
    line = Text()
    for verdict in Verdict:
        count = picture.counts[verdict]
        style = words.VERDICT_STYLES[verdict] if count else "dim"
        line.append(f"{count} {verdict.value}   ", style)
    stuck = Counter(outcome.result for outcome in picture.blocked.values())
    for result in Result:
        count = (stuck if result in STUCK else picture.tally)[result]
        if count:
            line.append(f"{count} {result.value}   ", words.RESULT_STYLES[result])
    return line


def _leftovers(picture: Picture, now: float) -> list[RenderableType]:
    if not picture.leftovers:
        return []
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("leftover", "phase", "due", "reason"):
        # Names and reasons give way, each on its one line; a phase of two letters says nothing.
        table.add_column(name, no_wrap=name in ("phase", "due"), overflow="ellipsis")
    for one in picture.urgent(_ROWS):
        phase = picture.phase_of(one)
        table.add_row(
            Text(str(one.key), no_wrap=True),
            Text(phase.value or "-", words.PHASE_STYLES[phase]),
            _countdown(one, now),
            Text(printable(picture.cause_of(one) or one.judgement.reason), no_wrap=True),
        )
    more = len(picture.leftovers) - _ROWS
    rest = [Text(f"and {more:,} more", "dim")] if more > 0 else []
    return [Text(), table, *rest]


def _countdown(one: Judged, now: float) -> str:
    if one.phase is not Phase.WAITING or one.due_at is None:
        return ""
    return words.due(one.due_at - now)


def _blocked(picture: Picture) -> Iterator[Text]:
    for outcome in list(picture.blocked.values())[:_ROWS]:
        who = words.holders(outcome.holders)
        by = f", held by {who}" if who else ""
        reason = outcome.detail or (outcome.reason.value if outcome.reason else "")
        yield Text(printable(f"blocked {outcome.key}: {reason}{by}"), "bold red")


def _recent(shown: RecentRecord) -> Text:
    record = shown.record
    when = words.iso(shown.stamp.wall)[11:-1]
    who = "" if record.key is None else f" {record.key}"
    return Text.assemble(
        (when + " ", "dim"),
        (printable(f"{record.event.value}{who} "), _LEVEL_STYLES[record.level]),
        printable(summary(record)),
        no_wrap=True,
        overflow="ellipsis",
    )
