"""The agenda: which bundle to think about next, and when. A heap with lazy deletion, pure."""

import heapq
from collections.abc import Iterator

from reconciler.model.ids import BundleKey


class Agenda:
    """At most one appointment per bundle; setting a new one replaces the old.

    Cost is logarithmic in the number of appointments. Stale heap entries are dropped when they
    surface, and the heap is rebuilt when they outnumber the live ones.
    """

    def __init__(self) -> None:
        self._at: dict[BundleKey, float] = {}
        self._heap: list[tuple[float, BundleKey]] = []

    def set(self, key: BundleKey, at: float | None) -> None:
        """Appoint ``key`` at ``at``, or cancel if None."""
        if self._at.get(key) == at:
            return
        if at is None:
            del self._at[key]
        else:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 64 + 2 * len(self._at):
            self._at = dict(self._at)  # one that has shrunk keeps its size
            self._heap = [(when, who) for who, when in self._at.items()]
            heapq.heapify(self._heap)

    def at(self, key: BundleKey) -> float | None:
        """When ``key`` is appointed, None if it is not."""
        return self._at.get(key)

    @property
    def next(self) -> float | None:
        """The earliest appointment."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[BundleKey]:
        """Take every appointment that has come, in order."""
        while True:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now:
                return
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            yield key

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
