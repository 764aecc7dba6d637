"""Tables: rows of cells, as aligned text for pipes and files; nothing is cut off. Pure.

A cell's text is taken as it is, never as markup: a bundle may be called ``[red]``. How a table is
fitted to a window is :mod:`reconciler.present.layout`'s.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from reconciler.model.ids import printable

GAP: Final = 3
"""Blanks between two columns."""


class Cell(msgspec.Struct, frozen=True):
    """One cell; whatever its text is made of, it is printable in a table."""

    text: str
    style: str = ""

    @property
    def shown(self) -> str:
        """The text as it is laid out."""
        return printable(self.text)


class Column(msgspec.Struct, frozen=True):
    """One column.

    Attributes:
        name: Its heading.
        right: Align to the right (numbers).
        gives_way: Takes several lines, or one of its own, where the window is too narrow.
        shortens: Is cut there, with an ellipsis: where the beginning of a name will do.
        is_id: Holds ids: in a window those that say nothing are shortened to a unique prefix.
        has_notes: In a window, what several rows say is said once, below the table.
    """

    name: str
    right: bool = False
    gives_way: bool = False
    shortens: bool = False
    is_id: bool = False
    has_notes: bool = False


class Table(msgspec.Struct):
    """Columns and rows.

    Attributes:
        columns, rows: What it shows.
        ids: Further ids from which a shortened one must differ: of what is there and not shown.
        headings: Whether the columns are named.
        shown: How many of the rows are shown: the others keep room for what comes later, and no
            note can stand below. None for all.
    """

    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = msgspec.field(default_factory=list)
    ids: Collection[str] = ()
    headings: bool = True
    shown: int | None = None

    def plain(self) -> str:
        """Lay out as text without colour; nothing is cut off."""
        names = [column.name for column in self.columns]
        texts = [names] if self.headings else []
        texts += [[cell.shown for cell in row] for row in self.rows]
        kept = [names] if self.shown is not None else []
        widths = [max(map(len, column)) for column in zip(*kept, *texts, strict=True)]
        if self.shown is not None:
            texts = texts[: self.shown + self.headings]
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
