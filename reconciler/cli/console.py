"""The console on which everything is drawn: it writes text and rich's own styles, nothing else.

Whoever draws makes its text printable, so that it is laid out as it will be shown; this is what
holds should one forget.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text
from typing_extensions import override

from reconciler.model.ids import printable
from reconciler.present.table import GAP, Table


class PlainConsole(Console):
    """A console on which no text is a control sequence."""

    @override
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.replace("\n", "").isprintable():
                yield segment
            else:
                lines = "\n".join(printable(line) for line in segment.text.split("\n"))
                yield Segment(lines, segment.style)


def fitted(table: Table) -> RichTable:
    """Lay out a table for a terminal: coloured, and fitted to its width."""
    shown = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in table.columns:
        shown.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not (column.gives_way or column.shortens),
            overflow="ellipsis" if column.shortens else "fold",
        )
    for row in table.rows:
        shown.add_row(
            *(
                Text(cell.shown, cell.style, no_wrap=column.shortens or None)
                for cell, column in zip(row, table.columns, strict=True)
            )
        )
    return shown
