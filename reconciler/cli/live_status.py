"""The live view of `status --watch`: as much as the window holds, and how much it does not.

A status flows in, lines flow out. Whatever is wrong and what came of the last attempts stay in
view; what needs attention takes the room that is left, and what it hides is counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult

from reconciler.cli.console import styled
from reconciler.model.ids import printable
from reconciler.present import rows, status_text
from reconciler.present.layout import Laid, Line, Span, laid, wrapped
from reconciler.present.status import Status
from reconciler.present.table import Table

_LEAST: Final = 3
"""Lines of a table, however low the window."""

_AROUND: Final = 2
"""Lines around a table: a blank one, and the one that counts what is hidden."""

_BUNDLES: Final = _LEAST + 2 + _AROUND
"""Lines that results leave to what needs attention."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """What a daemon says of itself.

    Attributes:
        shown: The status.
        trouble: Why it is not up to date; empty if it is.
        wide: With all columns.
    """

    shown: Status
    trouble: str = ""
    wide: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, a line each; never higher than the window, so nothing scrolls away."""
        for line in self.lines(options.max_width, options.height or console.size.height):
            yield styled(line)

    def lines(self, width: int, height: int) -> list[Line]:
        """Lay it out."""
        head = list(self._head(width))
        tail: list[Line] = [[], [Span("Ctrl-C ends", "dim")]]
        left = height - len(head) - len(tail) - _BUNDLES
        results = self._results(width, max(min(height // 3, left - _AROUND), _LEAST))
        room = height - len(head) - len(tail) - len(results) - 1
        return [*head, *self._bundles(width, room), *results, *tail]

    def _head(self, width: int) -> Iterable[Line]:
        first, counts, *wrong = status_text.lines(self.shown)
        wrong = [self.trouble, *wrong] if self.trouble else wrong
        styles = ["bold", "", *["bold red"] * len(wrong)]
        for text, style in zip([first, counts, *wrong], styles, strict=True):
            yield from ([Span(line, style)] for line in wrapped(printable(text), width, cell_len))

    def _bundles(self, width: int, room: int) -> list[Line]:
        shown = self.shown
        if not shown.bundles:
            return []
        table = rows.bundles(shown.bundles, wide=self.wide)
        fit, count = _as_many(table, width, max(room - 1, _LEAST))
        more = shown.omitted + len(shown.bundles) - count
        rest = [_dim(f"and {more:,} more that need attention")] if more else []
        if len(found := [*fit.lines(), *rest]) > room:
            return [[], _dim(f"{more + count:,} need attention")]
        return [[], *found]

    def _results(self, width: int, room: int) -> list[Line]:
        if not self.shown.recent:
            return []
        table = status_text.results(self.shown)
        fit, count = _as_many(table, width, room)
        more = len(self.shown.recent) - count
        rest = [_dim(f"and {more:,} earlier results")] if more else []
        return [[], *fit.lines(), *rest]


def _dim(text: str) -> Line:
    return [Span(text, "dim")]


def _as_many(table: Table, width: int, room: int) -> tuple[Laid, int]:
    """Lay out as many of the first rows as there is room for, one at least."""
    count = min(len(table.rows), max(1, room))
    while True:
        fit = laid(replace(table, rows=table.rows[:count]), width, cell_len)
        over = len(list(fit.lines())) - room
        if over <= 0 or count == 1:
            return fit, count
        count = max(1, count - max(1, over // 3))
