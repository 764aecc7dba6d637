"""Tables: rows of cells, as aligned text for pipes and files; nothing is cut off. Pure.

A cell's text is taken as it is, never as markup: a bundle may be called ``[red]``. How a terminal
shows a table is the command line's (:mod:`reconciler.cli.console`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from reconciler.model.ids import printable

GAP: Final = 3
"""Blanks between two columns."""

_LEAST: Final = 13
"""What is left of a column that is folded or cut, at least."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; whatever its text is made of, it is printable in a table."""

    text: str
    style: str = ""

    @property
    def shown(self) -> str:
        """The text as it is laid out."""
        return printable(self.text)


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        right: Align to the right (numbers).
        gives_way: Is folded where the window is too narrow.
        shortens: Is cut there, with an ellipsis: where the beginning of a name will do.
    """

    name: str
    right: bool = False
    gives_way: bool = False
    shortens: bool = False


@dataclass(slots=True)
class Table:
    """Columns and rows."""

    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def fits(self, width: int) -> bool:
        """Return whether a window can show it: numbers, verdicts and the like are never cut."""
        widths = [
            min(widest, _LEAST) if column.gives_way or column.shortens else widest
            for column, widest in zip(self.columns, self._widths(), strict=True)
        ]
        return sum(widths) + GAP * (len(widths) - 1) <= width

    def plain(self) -> str:
        """Lay out as text without colour; nothing is cut off."""
        texts, widths = self._texts(), self._widths()
        return "".join(
            (" " * GAP)
            .join(
                text.rjust(width) if column.right else text.ljust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            )
            .rstrip()
            + "\n"
            for row in texts
        )

    def _texts(self) -> list[list[str]]:
        texts = [[column.name for column in self.columns]]
        return texts + [[cell.shown for cell in row] for row in self.rows]

    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(*self._texts(), strict=True)]
