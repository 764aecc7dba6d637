"""Debris that somebody asked to have removed now: it waits no longer than two looks take. Pure.

A request is for an object, not for a name: what bears the name by then may be another. It shortens
the wait, and stands for the action that `[debris]` says of a kind; rules, brakes, guards, age and
both inventories stay. It ends when its place is found to be no debris, or not found at all, and
when other policies come into force. What came of it is kept for who asked, as much as there is
room for.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from reconciler.decide.due import BETWEEN_LOOKS
from reconciler.model.debris import DebrisResult, Inventory, Place, PlaceKey, RequestedPlace
from reconciler.model.policy import Policy

MOST: Final = 4000
"""Places that are remembered, asked for or done: two inventories' worth."""


class DebrisRequests:
    """Which places were asked for, and what came of them."""

    def __init__(self) -> None:
        self._asked: dict[PlaceKey, tuple[RequestedPlace, float]] = {}
        self._done: dict[PlaceKey, tuple[Place, DebrisResult]] = {}
        self._seen: set[PlaceKey] = set()

    def add(
        self, places: Iterable[RequestedPlace], debris: Mapping[PlaceKey, Place], now: float
    ) -> None:
        """Take in what was asked for; ``debris`` is known to be some already."""
        for one in places:
            self._done.pop(one.key, None)
            if len(self._asked) < MOST or one.key in self._asked:
                self._asked[one.key] = one, now
        self._seen = {key for key in self._asked if key in self._seen or self._is_in(debris, key)}

    def holds(self, place: Place) -> bool:
        """Return whether this very object was asked for."""
        asked = self._asked.get(place.key)
        return asked is not None and asked[0].means(place.identity)

    def hurried(self, place: Place, policy: Policy) -> Policy:
        """Give the policy of a place with the waits that a request leaves of it."""
        if not self.holds(place):
            return policy
        return replace(policy, grace=min(policy.grace, BETWEEN_LOOKS), threshold=0.0)

    def settle(self, inventory: Inventory, debris: Mapping[PlaceKey, Place]) -> None:
        """Take in an inventory, and what of it is debris: nothing else of it is asked for still.

        It says nothing of what was asked for after it began, of kinds that it did not look for,
        and of what it may have had no room to name.
        """
        for key, (_, at) in list(self._asked.items()):
            if self._is_in(debris, key):
                self._seen.add(key)
                continue
            is_told_of = at <= inventory.since and key.kind in inventory.looked
            if is_told_of and (key in self._seen or not inventory.more):
                del self._asked[key]
                self._seen.discard(key)

    def _is_in(self, debris: Mapping[PlaceKey, Place], key: PlaceKey) -> bool:
        return key in debris and self.holds(debris[key])

    def ended(self, place: Place, came: DebrisResult) -> None:
        """Take in what came of an attempt on a place."""
        if self.holds(place):
            self._done[place.key] = place, came
            while len(self._done) > MOST:
                del self._done[next(iter(self._done))]

    def clear(self) -> None:
        """Forget what was asked for: other policies are in force."""
        self._asked.clear()
        self._seen.clear()

    @property
    def keys(self) -> frozenset[PlaceKey]:
        """What is asked for."""
        return frozenset(self._asked)

    @property
    def unseen(self) -> int:
        """How many of them no inventory has told of since."""
        return len(self._asked) - len(self._seen)

    @property
    def done(self) -> list[tuple[Place, DebrisResult]]:
        """What came of the last attempts."""
        return list(self._done.values())
