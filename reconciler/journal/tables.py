"""Tables: what earlier records of the same file said, so that later ones need not repeat it.

Encoder and decoder hold the same tables and change them by the same rules, one record after the
other. They are bounded by what lives on the node: a bundle that is gone is dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.model.decisions import Judgement
from reconciler.model.evidence import Containerd, Facts, Look, ShimProcess, Sweep
from reconciler.model.ids import BundleKey, Identity

Row = tuple[Judgement, Facts | None]


@dataclass(slots=True)
class Entry:
    """What is known of one bundle: its number, name, and the last identity and look recorded."""

    number: int
    key: BundleKey
    identity: Identity | None = None
    look: Look | None = None


@dataclass(slots=True)
class Tables:
    """The memory of one file.

    Attributes:
        by_number: Bundles by number; absent once they are gone.
        by_key: The same by name.
        numbers: How many numbers were given.
        rows: Judgement and facts by number.
        listings: Order of the last listing, by scope.
        sweep, containerd: The last words recorded.
        shims: Those of the sweep, as the decoder changes them.
        leaving: Numbers that end with the record being handled.
    """

    by_number: dict[int, Entry] = field(default_factory=dict)
    by_key: dict[BundleKey, Entry] = field(default_factory=dict)
    numbers: int = 0
    rows: list[Row] = field(default_factory=list)
    row_numbers: dict[Row, int] = field(default_factory=dict)
    listings: dict[str | None, list[int]] = field(default_factory=dict)
    sweep: Sweep = field(default_factory=Sweep)
    shims: dict[ShimProcess, None] = field(default_factory=dict)
    containerd: Containerd = field(default_factory=Containerd)
    leaving: list[int] = field(default_factory=list)

    def add(self, key: BundleKey) -> Entry:
        """Number a name."""
        entry = Entry(self.numbers, key)
        self.numbers += 1
        self.by_number[entry.number] = self.by_key[key] = entry
        return entry

    def add_row(self, row: Row) -> int:
        """Number a row."""
        number = self.row_numbers[row] = len(self.rows)
        self.rows.append(row)
        return number

    def end_record(self) -> None:
        """Drop what this record said is gone."""
        for number in self.leaving:
            entry = self.by_number.pop(number, None)
            if entry is not None and self.by_key.get(entry.key) is entry:
                del self.by_key[entry.key]
        self.leaving.clear()

    def remember_listing(self, scope: str | None, order: list[int]) -> None:
        """Keep the order of a listing; a whole one makes those of single namespaces stale."""
        if scope is None:
            self.listings.clear()
        self.listings[scope] = order


def ordered_difference(
    before: list[int], after: list[int]
) -> tuple[tuple[int, ...], list[tuple[int, int]]] | None:
    """Say how to make ``after`` from ``before``: what to take out, what to insert and where.

    None where the ones that stayed changed their order, or a number occurs twice.
    """
    now, was = set(after), set(before)
    if len(now) != len(after):
        return None
    gone = tuple(number for number in before if number not in now)
    added = [(place, number) for place, number in enumerate(after) if number not in was]
    return (gone, added) if apply_difference(before, gone, added) == after else None


def apply_difference(
    before: list[int], gone: Iterable[int], added: Iterable[tuple[int, int]]
) -> list[int]:
    """Undo :func:`ordered_difference`."""
    out = set(gone)
    order = [number for number in before if number not in out] if out else list(before)
    for place, number in added:
        order.insert(place, number)
    return order
