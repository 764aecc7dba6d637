"""A priority queue of bundles: by the time, or the last sign of life, at which each comes. Pure."""

import heapq
from collections.abc import Iterator
from typing import Final

from reconciler.model.ids import BundleKey

_FEW: Final = 64


class PriorityQueue:
    """At most one entry for each bundle; another one replaces it.

    A heap with lazy deletion: cost is logarithmic in the number of entries. What was replaced is
    dropped when it surfaces, and the heap is built anew when it outnumbers what counts.
    """

    def __init__(self) -> None:
        self._at: dict[BundleKey, float] = {}
        self._heap: list[tuple[float, BundleKey]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: BundleKey, at: float | None) -> None:
        """Put a bundle at ``at``, smallest first; None takes it out."""
        if self._at.get(key) == at:
            return
        if at is None:
            del self._at[key]
        else:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
        if len(self._heap) > _FEW + len(self._at) * 5 // 4:
            self._at = dict(self._at)  # one that has shrunk keeps its size
            self._heap = [(when, who) for who, when in self._at.items()]
            heapq.heapify(self._heap)

    def at(self, key: BundleKey) -> float | None:
        """Return where a bundle is, None if it is not there."""
        return self._at.get(key)

    @property
    def next(self) -> float | None:
        """Where the first one is, None if there is none."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> tuple[float, BundleKey]:
        """Take the first one; there must be one."""
        while True:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                return at, key

    def pop_until(self, now: float) -> Iterator[BundleKey]:
        """Take all up to ``now``, in order."""
        while (at := self.next) is not None and at <= now:
            yield self.pop()[1]
