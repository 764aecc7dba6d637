"""Tables: rows of cells as aligned text; coloured and fitted to the window on a terminal.

A cell's text is taken as it is, never as markup: a bundle may be called ``[red]``. The part for
pipes and files needs no library and cuts nothing off, so that output can be worked on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_GAP: Final = 3


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        right: Align to the right (numbers).
        gives_way: Is shortened first where the window is too narrow.
    """

    name: str
    right: bool = False
    gives_way: bool = False


@dataclass(slots=True)
class Table:
    """Columns and rows."""

    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def plain(self) -> str:
        """Lay out as text without colour; nothing is cut off."""
        texts = [[column.name for column in self.columns]]
        texts += [[cell.text for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return "".join(
            (" " * _GAP)
            .join(
                text.rjust(width) if column.right else text.ljust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            )
            .rstrip()
            + "\n"
            for row in texts
        )

    def rich(self) -> "RichTable":
        """Lay out for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for column in self.columns:
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=not column.gives_way,
                overflow="fold",
                min_width=min(len(column.name), 8),
            )
        for row in self.rows:
            table.add_row(*(Text(cell.text, cell.style) for cell in row))
        return table
