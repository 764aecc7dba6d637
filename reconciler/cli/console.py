"""The console on which everything is drawn: it writes text and rich's own styles, nothing else.

Whoever draws makes its text printable, so that it is laid out as it will be shown; this is what
holds should one forget.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from reconciler.model.ids import printable


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
