"""What a terminal shows of long work: the live view of `run`, and the progress of a command.

The view has counts, leftovers with a countdown, and what is in the way.

A :class:`~reconciler.cli.picture.Picture` flows in, lines on the terminal flow out, at most four
times a second. A terminal that was stopped (Ctrl-S) is not written to, so it cannot stop the loop.
"""

import select
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.table import Table as RichTable
from rich.text import Text
from typing_extensions import override

from reconciler.cli.output import Heading
from reconciler.cli.picture import STUCK, Picture
from reconciler.decide.cleanups import GUARDS
from reconciler.model.decisions import Clean, Decision, Judged, Phase, Verdict
from reconciler.model.ids import printable
from reconciler.model.observations import Listed, Looked, Observation, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.ports import Emit, Listener, Source
from reconciler.present import formatting
from reconciler.present.layout import short_ids
from reconciler.present.records import Level, summary

if TYPE_CHECKING:
    from reconciler.model.ids import BundleKey


INTERVAL: Final = 0.25
"""Least seconds between two drawings."""

_ROWS: Final = 12
_NAME: Final = 36
_POD: Final = 24
"""Columns that a long name gets on a line, at least, and a pod."""
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
        Text(printable(f"brake: {name}: {why}"), "magenta")
        for name, why in picture.brakes.items()
        if name != GUARDS or not picture.refused  # those were said just now
    ]
    parts += _leftovers(picture, now)
    parts += _blocked(picture)
    if picture.recent:
        parts += [Text(), Text("recent", "bold"), *_recent(picture)]
    return Group(*parts, Text(), Text(heading.hint, "dim"))


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
    asked = picture.containerd
    said = "containerd was not asked yet" if asked is None else formatting.containerd(asked)
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
        style = formatting.VERDICT_STYLES[verdict] if count else "dim"
        line.append(f"{count} {verdict.value}   ", style)
    stuck = Counter(outcome.result for outcome in picture.blocked.values())
    for result in Result:
        count = (stuck if result in STUCK else picture.tally)[result]
        if count:
            line.append(f"{count} {result.value}   ", formatting.RESULT_STYLES[result])
    return line


def _leftovers(picture: Picture, now: float) -> list[RenderableType]:
    if not picture.leftovers:
        return []
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    urgent = picture.urgent(_ROWS)
    short = short_ids({one.key.id for one in urgent})
    names = [f"{one.key.namespace}/{short[one.key.id]}" for one in urgent]
    pods = [picture.pod_of(one.key) for one in urgent]
    # A reason gives way on its one line. A name is whole, on several if it must be: two of them
    # may differ at their ends alone. A phase of two letters says nothing.
    table.add_column("leftover", overflow="fold", min_width=min(_NAME, max(map(len, names))))
    if any(pods):
        table.add_column("pod", overflow="fold", min_width=min(_POD, max(map(len, pods))))
    for name in ("phase", "due", "reason"):
        table.add_column(name, no_wrap=name in ("phase", "due"), overflow="ellipsis")
    for one, name, pod in zip(urgent, names, pods, strict=True):
        phase = picture.phase_of(one)
        table.add_row(
            Text(name, overflow="fold"),
            *([Text(pod or "-", overflow="fold")] if any(pods) else []),
            Text(phase.value or "-", formatting.PHASE_STYLES[phase]),
            _countdown(one, now),
            Text(printable(picture.cause_of(one) or one.judgement.reason), no_wrap=True),
        )
    more = len(picture.leftovers) - _ROWS
    rest = [Text(f"and {more:,} more", "dim")] if more > 0 else []
    return [Text(), table, *rest]


def _countdown(one: Judged, now: float) -> str:
    if one.phase is not Phase.WAITING or one.due_at is None:
        return ""
    return formatting.due(one.due_at - now)


def _blocked(picture: Picture) -> Iterator[Text]:
    for outcome in list(picture.blocked.values())[:_ROWS]:
        who = formatting.holders(outcome.holders)
        by = f", held by {who}" if who else ""
        reason = outcome.detail or (outcome.reason.value if outcome.reason else "")
        pod = picture.pod_of(outcome.key)
        who = f"{pod} ({outcome.key})" if pod else str(outcome.key)
        yield Text(printable(f"blocked {who}: {reason}{by}"), "bold red")


def _recent(picture: Picture) -> Iterator[Text]:
    for shown in picture.recent:
        record, when = shown.record, formatting.iso(shown.stamp.wall)[11:-1]
        who = "" if record.key is None else f" {picture.pod_of(record.key) or record.key}"
        yield Text.assemble(
            (when + " ", "dim"),
            (printable(f"{record.event.value}{who} "), _LEVEL_STYLES[record.level]),
            printable(summary(record)),
            no_wrap=True,
            overflow="ellipsis",
        )


_MANY = 200


class _Counts(MofNCompleteColumn):
    """How many of how many; nothing while there is nothing to count: 0/0 is no progress."""

    @override
    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


class ProgressLine(Listener, Source):
    """A bar for looking and one for cleaning; a context manager that clears them at the end.

    Attributes:
        bars: What is drawn.
    """

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), _Counts(), console=console
        )
        self._live = Live(self.bars, console=console, transient=True, auto_refresh=False)
        self._looking = self.bars.add_task("looking", total=None, visible=False)
        self._cleaning = self.bars.add_task("cleaning", total=0, visible=False)
        self._begun = 0
        self._ended: set[BundleKey] = set()
        self._drawn = 0.0
        self._poll = select.poll()
        self._poll.register(sys.stderr.fileno(), select.POLLOUT)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Count what was looked at and what was cleaned."""
        match observation:
            case Listed(namespace=None, bundles=bundles):
                many = len(bundles) >= _MANY
                self.bars.update(self._looking, total=len(bundles), completed=0, visible=many)
            case Looked():
                self.bars.advance(self._looking)
            case Outcome(key=key):
                # One that stays is tried again; that is no second one.
                self._ended.add(key)
                self.bars.update(self._cleaning, completed=len(self._ended))
            case _:
                return
        self._draw(stamp.mono)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Say what is waited for, and count what is to be cleaned."""
        match decision:
            case Judged(phase=Phase.WAITING) if not self._begun:
                what = "waiting for the second look"
                self.bars.update(self._cleaning, description=what, total=None, visible=True)
            case Clean(attempt=1):
                self._begun += 1
                what = "cleaning"
                self.bars.update(self._cleaning, description=what, total=self._begun, visible=True)
            case _:
                return

    @override
    async def run(self, emit: Emit) -> None:
        """Draw now and then while nothing happens."""
        while True:
            await anyio.sleep(INTERVAL)
            self._refresh()

    def _draw(self, mono: float) -> None:
        if mono - self._drawn >= INTERVAL:
            self._drawn = mono
            self._refresh()

    def _refresh(self) -> None:
        if any(event & select.POLLOUT for _, event in self._poll.poll(0)):
            self._live.refresh()
