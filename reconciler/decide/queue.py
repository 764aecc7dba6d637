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

    Attributes:
        at: Where each bundle is that is in there; to be read only.
    """

    def __init__(self) -> None:
        self.at: dict[BundleKey, float] = {}
        self._heap: list[tuple[float, BundleKey]] = []

    def __len__(self) -> int:
        return len(self.at)

    def set(self, key: BundleKey, at: float | None) -> None:
        """Put a bundle at ``at``, smallest first; None takes it out."""
        places, heap = self.at, self._heap
        if places.get(key) == at:
            return
        if at is None:
            del places[key]
        else:
            places[key] = at
            heapq.heappush(heap, (at, key))
        if len(heap) > _FEW + len(places) * 5 // 4:
            self.at = dict(places)  # one that has shrunk keeps its size
            self._heap = [(when, who) for who, when in places.items()]
            heapq.heapify(self._heap)

    @property
    def next(self) -> float | None:
        """Where the first one is, None if there is none."""
        at, heap = self.at, self._heap
        while heap:
            when, key = heap[0]
            if at.get(key) == when:
                return when
            heapq.heappop(heap)
        return None

    def pop(self) -> tuple[float, BundleKey]:
        """Take the first one; there must be one."""
        while True:
            at, key = heapq.heappop(self._heap)
            if self.at.get(key) == at:
                del self.at[key]
                return at, key

    def pop_until(self, now: float) -> Iterator[BundleKey]:
        """Take all up to ``now``, in order."""
        while (at := self.next) is not None and at <= now:
            yield self.pop()[1]
