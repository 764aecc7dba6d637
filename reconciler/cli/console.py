"""The console on which everything is drawn: it writes text and rich's own styles, nothing else.

Whoever draws makes its text printable, so that it is laid out as it will be shown; this is what
holds should one forget.
"""

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from reconciler.model.ids import printable
from reconciler.present.layout import Line, laid
from reconciler.present.table import Table


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


class fitted:  # noqa: N801 - reads like what it gives
    """A table that fits itself to whatever width it is drawn in."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, a line each."""
        for line in laid(self._table, options.max_width, cell_len).lines():
            yield styled(line)


def styled(line: Line) -> Text:
    """Turn a line into what rich draws, as it is."""
    return Text.assemble(*line, no_wrap=True, overflow="ellipsis")
