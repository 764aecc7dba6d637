"""Layout: a table fitted to a window. Pure.

For people alone: ids are shortened as crictl does, what several rows say is said once in a note
below, and lines break between words, at 60 columns as at 200. A :class:`Table` flows in, styled
lines flow out. What does not fit beside the rest stands under its row.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from reconciler.present.table import GAP, Table

SHORT: Final = 13
"""Characters of an id, as crictl shows them; more where they are not unique."""

_LEAST: Final = 13
"""What is left of a column that is cut, at least."""

_WORD: Final = 24
_LINE: Final = 30
"""A column that takes several lines is no narrower than this for paths, or for sentences."""

_INDENT: Final = "    "
_NARROW: Final = 2
_HEX: Final = re.compile(r"[0-9a-f]{32,}")
_SAYS_NOTHING: Final = re.compile(r"[0-9a-f]{14,}")
_PARTS: Final = re.compile(r"[^/,]*[/,]|[^/,]+")
_ENDS: Final = re.compile(r"[-._:@=]")
_HEAD_COLUMNS: Final = 2

Measure = Callable[[str], int]


class Span(NamedTuple):
    """Text in one style."""

    text: str
    style: str = ""


Line = Sequence[Span]


@dataclass(frozen=True, slots=True)
class Laid:
    """A table as lines: its heading, those of each row, and the notes below."""

    heading: Sequence[Line]
    rows: Sequence[Sequence[Line]]
    notes: Sequence[Line]

    def lines(self) -> Iterable[Line]:
        """Give all lines in order."""
        yield from self.heading
        for row in self.rows:
            yield from row
        yield from self.notes


def laid(table: Table, width: int, measure: Measure = len) -> Laid:
    """Fit a table to a window.

    Args:
        table: What to show.
        width: Columns of the window.
        measure: Says how many columns a text takes there.
    """
    notes: dict[str, str] = {}
    texts = _texts(table, notes)
    fit = _Fit(table, texts, width, measure)
    if not fit.is_natural and len(table.rows) > 1:
        texts = _texts(table, notes, all_of_it=True)
        fit = _Fit(table, texts, width, measure)
    styles = [[cell.style for cell in row] for row in table.rows]
    heading = [fit.heading()] if table.headings and table.columns else []
    pairs = list(zip(texts, styles, strict=True))[: table.shown]
    rows = [fit.row(row, style) for row, style in pairs]
    return Laid(heading, rows, [*_legend(notes, width, measure)])


def _texts(table: Table, notes: dict[str, str], *, all_of_it: bool = False) -> list[list[str]]:
    """Give the cells as they are shown: ids shortened, and signs for what stands in ``notes``.

    ``all_of_it``: also what one row alone says stands there.
    """
    notes.clear()
    texts = [[cell.shown for cell in row] for row in table.rows]
    for at, column in enumerate(table.columns):
        cells = [row[at] for row in texts]
        if column.is_id:
            short = short_ids({*cells, *table.ids})
            cells = [short[text] for text in cells]
        else:
            digits = short_ids({one for text in cells for one in _HEX.findall(text)})
            cells = [_HEX.sub(partial(_shortened, digits), text) for text in cells]
        if column.has_notes and table.shown is None:
            cells = _noted(cells, notes, all_of_it=all_of_it)
        for row, text in zip(texts, cells, strict=True):
            row[at] = text
    return texts


def _shortened(short: dict[str, str], found: re.Match[str]) -> str:
    whole = found[0]
    return whole if short[whole] == whole else f"{short[whole]}…"


def short_ids(ids: Collection[str]) -> dict[str, str]:
    """Shorten each id that says nothing to a prefix that no other one has.

    Hexadecimal digits say nothing; a name that somebody gave stays whole.
    """
    ordered = sorted(ids)
    alike = [_common(one, other) for one, other in pairwise(ordered)]
    short = {}
    for n, one in enumerate(ordered):
        longest = max(alike[n - 1] if n else 0, alike[n] if n < len(alike) else 0)
        says_nothing = _SAYS_NOTHING.fullmatch(one) is not None
        short[one] = one[: max(SHORT, longest + 1)] if says_nothing else one
    return short


def _common(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


def _noted(cells: Sequence[str], notes: dict[str, str], *, all_of_it: bool) -> list[str]:
    """Put a sign in place of what several rows say; the signs are added to ``notes``.

    That is the whole of a cell, or the parts of it that cells unlike it say, too.
    """
    whole = Counter(cells)
    parts = Counter(part for text in whole for part in dict.fromkeys(text.split("; ")))
    shown = []
    for text in cells:
        own = text.split("; ")
        shared = any(parts[one] > 1 for one in own)
        said = own if shared else [text]
        noted = all_of_it or whole[text] > 1
        signs = [_sign(one, notes, noted or parts[one] > 1) for one in said]
        shown.append("; ".join(signs).replace("]; [", "] ["))
    return shown


def _sign(text: str, notes: dict[str, str], repeated: bool) -> str:  # noqa: FBT001 - one of each
    if repeated and len(text) > _NARROW:
        notes.setdefault(text, f"[{len(notes) + 1}]")
    return notes.get(text, text)


def _legend(notes: dict[str, str], width: int, measure: Measure) -> Iterable[Line]:
    for part, sign in notes.items():
        first, *rest = wrapped(part, width - len(sign) - 1, measure)
        yield [Span(f"{sign} {first}", "dim")]
        yield from ([Span(" " * (len(sign) + 1) + line, "dim")] for line in rest)


def wrapped(text: str, width: int, measure: Measure = len) -> list[str]:
    """Break a text between its words; one that is too long after a slash or a comma, or as it can.

    Nothing is cut off: two names may differ at their ends alone. Always at least one line.
    """
    lines = [""]
    for word in text.split(" "):
        pieces = [word] if measure(word) <= width else _PARTS.findall(word)
        for n, piece in enumerate(pieces):
            gap = " " if lines[-1] and not n else ""
            if measure(lines[-1] + gap + piece) <= width:
                lines[-1] += gap + piece
                continue
            broken = list(_broken(piece, width, measure))
            lines = [*(lines if lines[-1] else lines[:-1]), *broken]
    return lines


def _broken(word: str, width: int, measure: Measure) -> Iterable[str]:
    """Break a word that is longer than a line: where its parts end, if one ends late enough."""
    while measure(word) > width:
        least = 1
        fits = next((n for n in range(len(word), least, -1) if measure(word[:n]) <= width), least)
        ends = [at.end() for at in _ENDS.finditer(word, fits // 2, fits)]
        at = ends[-1] if ends else fits
        yield word[:at]
        word = word[at:]
    yield word


def _cut(text: str, width: int, measure: Measure) -> str:
    if measure(text) <= width:
        return text
    kept = text[: max(0, width - 1)]
    while kept and measure(kept) >= width:
        kept = kept[:-1]
    return f"{kept}…"


class _Fit:
    """Which columns stand beside each other, how wide, and which under their row."""

    def __init__(
        self, table: Table, texts: Sequence[Sequence[str]], width: int, measure: Measure
    ) -> None:
        self._columns = table.columns
        self._width = width
        self._measure = measure
        named = table.headings or table.shown is not None
        names = [[column.name for column in table.columns]] if named else []
        self._natural = [
            max(map(measure, cells), default=0) for cells in zip(*names, *texts, strict=True)
        ] or [0] * len(table.columns)
        self._least = [
            self._floor(at, [row[at] for row in texts]) for at in range(len(self._natural))
        ]
        self._beside = list(range(len(self._columns)))
        self._gap = GAP
        self.is_natural = sum(self._natural) + GAP * (len(self._natural) - 1) <= width
        self._choose()
        self._is_tight = self._needed() > width  # so much that even names take several lines
        self._widths = self._shared()

    def heading(self) -> Line:
        """Name the columns that stand beside each other."""
        names = [column.name for column in self._columns]
        return self._line([names[at] for at in self._beside], ["bold"] * len(self._beside))

    def row(self, texts: Sequence[str], styles: Sequence[str]) -> list[Line]:
        """Lay out one row, over as many lines as its longest cell takes."""
        cells = []
        for at, room in zip(self._beside, self._widths, strict=True):
            text = texts[at]
            wraps = self._columns[at].gives_way or self._is_tight
            cells.append(
                wrapped(text, room, self._measure) if wraps else [_cut(text, room, self._measure)]
            )
        styled = [styles[at] for at in self._beside]
        lines = [
            self._line([cell[n] if n < len(cell) else "" for cell in cells], styled)
            for n in range(max(map(len, cells), default=0))
        ]
        return [*lines, *self._under(texts)]

    def _floor(self, at: int, cells: Sequence[str]) -> int:
        """Say how narrow a column may be."""
        column, natural = self._columns[at], self._natural[at]
        if column.gives_way:
            words = any(" " in text for text in cells)
            return min(natural, _LINE if words else max(_WORD, self._measure(column.name)))
        return self._distinct(cells, natural) if column.shortens else natural

    def _distinct(self, cells: Sequence[str], natural: int) -> int:
        """Say how far names can be cut so that no two of them look alike."""
        names = set(cells)
        for width in range(min(natural, _LEAST), natural):
            if len({_cut(one, width, self._measure) for one in names}) == len(names):
                return width
        return natural

    def _choose(self) -> None:
        """Let columns stand beside each other as long as there is room.

        1. All as they are. 2. All, closer together. 3. The widest that may take several lines goes
        below. 4. Then the last, except that the first two name the row.
        """
        if self.is_natural:
            return
        self._gap = _NARROW
        while len(self._beside) > 1 and self._needed() > self._width:
            wide = [at for at in self._beside[1:] if self._columns[at].gives_way]
            last = self._beside[_HEAD_COLUMNS:]
            if wide:
                self._beside.remove(max(wide, key=lambda at: (self._least[at], at)))
            elif last:
                self._beside.remove(last[-1])
            else:
                return

    def _needed(self) -> int:
        return sum(self._least[at] for at in self._beside) + self._gap * (len(self._beside) - 1)

    def _shared(self) -> list[int]:
        """Share what room there is among the columns that could use more."""
        widths = {at: self._least[at] for at in self._beside}
        room = self._width - self._needed()
        if room < 0:
            share = max(1, (self._width - self._gap * (len(widths) - 1)) // max(1, len(widths)))
            return [min(share, width) for width in widths.values()]
        wanting = sorted(self._beside, key=lambda at: self._natural[at] - self._least[at])
        for n, at in enumerate(wanting):
            more = min(self._natural[at] - self._least[at], room // (len(wanting) - n))
            widths[at] += more
            room -= more
        return list(widths.values())

    def _line(self, texts: Sequence[str], styles: Sequence[str]) -> Line:
        """Write texts at the places of their columns; no blanks at the end."""
        spans: list[Span] = []
        owed = 0
        for at, text, style, width in zip(self._beside, texts, styles, self._widths, strict=True):
            pad = max(0, width - self._measure(text))
            before, after = (pad, 0) if self._columns[at].right else (0, pad)
            if text:
                blanks = " " * (owed + before)
                spans += [*([Span(blanks)] if blanks else []), Span(text, style)]
                owed = after + self._gap
            else:
                owed += pad + self._gap
        return spans

    def _under(self, texts: Sequence[str]) -> Iterable[Line]:
        """Name and write under its row what does not stand beside the rest."""
        room = self._width - len(_INDENT)
        line = ""
        for at in sorted(set(range(len(self._columns))) - set(self._beside)):
            if texts[at] in {"", "-"}:
                continue
            item = f"{self._columns[at].name.lower()} {texts[at]}"
            joined = f"{line}{' ' * GAP}{item}" if line else item
            if self._measure(joined) <= room:
                line = joined
                continue
            if line:
                yield [Span(_INDENT + line)]
            *whole, line = wrapped(item, room, self._measure)
            yield from ([Span(_INDENT + one)] for one in whole)
        if line:
            yield [Span(_INDENT + line)]
