"""Size budgets: which leftovers are due early because together they are too large. Pure.

A scope is what a limit applies to: all leftovers of a namespace under one policy, or of the node.
Oldest first, each leftover is marked at most once, so the cost is per change. Their order is put
up only once a scope has exceeded its limit, which most never do.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.model.ids import BundleKey

Scope = tuple[str, str]


@dataclass(slots=True)
class _Tally:
    total: int = 0
    marked: int = 0
    sizes: dict[BundleKey, int] = field(default_factory=dict)
    marks: set[BundleKey] = field(default_factory=set)
    fixed: set[BundleKey] = field(default_factory=set)
    oldest: list[tuple[float, BundleKey]] | None = None

    def sort(self, life_of: Callable[[BundleKey], float]) -> list[tuple[float, BundleKey]]:
        """Put up the order anew of all that may still be marked."""
        free = self.sizes.keys() - self.marks - self.fixed
        self.oldest = [(life_of(key), key) for key in free]
        heapq.heapify(self.oldest)
        return self.oldest


class SizeBudgets:
    """Running totals of leftovers per scope, and the leftovers marked for going early.

    Args:
        life_of: Tells a leftover's last sign of life.
    """

    def __init__(self, life_of: Callable[[BundleKey], float]) -> None:
        self._life_of = life_of
        self._tallies: dict[Scope, _Tally] = {}

    def put(self, scope: Scope, key: BundleKey, size: int, *, fixed: bool) -> None:
        """Count a leftover. ``fixed`` ones (protected) count but are never marked."""
        tally = self._tallies.get(scope)
        if tally is not None and key in tally.sizes:
            if tally.sizes[key] == size and (key in tally.fixed) == fixed:
                return
            self.drop(scope, key)
            tally = self._tallies.get(scope)
        if tally is None:
            tally = self._tallies[scope] = _Tally()
        tally.sizes[key] = size
        tally.total += size
        if fixed:
            tally.fixed.add(key)
        elif tally.oldest is not None:
            heapq.heappush(tally.oldest, (self._life_of(key), key))
            if len(tally.oldest) > 64 + 2 * len(tally.sizes):
                tally.sort(self._life_of)  # what was dropped is still in it

    def drop(self, scope: Scope, key: BundleKey) -> None:
        """Stop counting a bundle that is no leftover any more."""
        tally = self._tallies.get(scope)
        if tally is None or key not in tally.sizes:
            return
        size = tally.sizes.pop(key)
        tally.total -= size
        if key in tally.marks:
            tally.marks.discard(key)
            tally.marked -= size
        tally.fixed.discard(key)
        if not tally.sizes:
            del self._tallies[scope]

    def mark(self, scope: Scope, limit: int | None) -> list[BundleKey]:
        """Mark the oldest leftovers until the rest fits ``limit`` bytes; return the new ones."""
        tally = self._tallies.get(scope)
        fresh: list[BundleKey] = []
        if tally is None or limit is None or tally.total - tally.marked <= limit:
            return fresh
        oldest = tally.sort(self._life_of) if tally.oldest is None else tally.oldest
        while tally.total - tally.marked > limit and oldest:
            life, key = heapq.heappop(oldest)
            if key not in tally.sizes or key in tally.marks or key in tally.fixed:
                continue
            now = self._life_of(key)
            if now != life:  # it lived since
                heapq.heappush(oldest, (now, key))
            else:
                tally.marks.add(key)
                tally.marked += tally.sizes[key]
                fresh.append(key)
        return fresh

    def is_marked(self, scope: Scope, key: BundleKey) -> bool:
        """Tell whether a leftover is to go early for this scope's sake."""
        tally = self._tallies.get(scope)
        return tally is not None and key in tally.marks

    def total(self, scope: Scope) -> int:
        """Bytes of all leftovers of a scope."""
        tally = self._tallies.get(scope)
        return 0 if tally is None else tally.total
