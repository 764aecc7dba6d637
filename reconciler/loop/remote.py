"""Remote looks: what our own looks leave out is looked at by others, who may hang in our place.

A look that had to leave something out is made again by them. While that lasts nothing is said of
the bundle; if it does not end in time, our own partial look must do, in which whatever needs the
rest is "no answer", and nobody is sent to that place again for a while that grows. So a place that
hangs costs one deadline, keeps one of them at most, and delays no bundle that has nothing there.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import anyio
import msgspec

from reconciler.model.evidence import Look, PartialLook
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.ports import RemoteInspector, Stages

PART: Final = "looks"
"""What a fault of whoever looks is counted as."""

BATCH: Final = 50
"""Looks that are asked for at a time."""

PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0
"""Seconds for which a place is left alone after it gave no answer; doubled each time, to this."""

_MOST: Final = 1000  # combinations of places; whoever is forgotten is asked again

Places = frozenset[str]
Start = Callable[[Callable[[], Awaitable[None]]], None]


class Place(msgspec.Struct):
    """What several looks need, and whether it has answered.

    Attributes:
        lock: Held by who is waiting for its answer.
        until: It is not asked before.
        pause: For how long, the last time; 0 if it answered.
    """

    lock: anyio.Lock = msgspec.field(default_factory=anyio.Lock)
    until: float = float("-inf")
    pause: float = 0.0


class RemoteLooks:
    """The looks of one loop that others make, if there is anybody.

    Args:
        stages: Who they are, and what times the pauses.
        start: Runs something beside the loop.
        receive: Called with every look that was made.
        again: Told of every bundle that is to be looked at by ourselves again.
    """

    def __init__(
        self,
        stages: Stages,
        start: Start,
        receive: Callable[[BundleKey, Look | None], None],
        again: Callable[[BundleKey], None],
    ) -> None:
        self._lookers = stages.far
        self._clock = stages.clock
        self._part = stages.supervisor.part(PART)
        self._start = start
        self._receive = receive
        self._again = again
        self._places: dict[BundleKey, Places] = {}
        self._waiting: dict[Places, dict[BundleKey, None]] = {}
        self._known: dict[Places, Place] = {}

    def whole(self, key: BundleKey, look: Look | PartialLook | None) -> Look | PartialLook | None:
        """Give a look of ours back; if it is still a partial one, others make it again."""
        if isinstance(look, PartialLook):
            return look if self._take(key, look.places) else look.look
        self.forget(key)
        return look

    def _take(self, key: BundleKey, places: Places) -> bool:
        self._places[key] = places
        if self._lookers is None or self._is_silent(places):
            return False
        waiting = self._waiting.get(places)
        if waiting is None:
            waiting = self._waiting[places] = {}
            self._start(partial(self._look, self._lookers, places, waiting))
        waiting[key] = None
        return True

    def forget(self, key: BundleKey) -> None:
        """Take a bundle for whole, or gone: an earlier look of others at it is void."""
        if self._places:
            self._places.pop(key, None)

    async def refusal(self, key: BundleKey, identity: Identity) -> Outcome | None:
        """Say what keeps a bundle from being worked on: that a place it needs does not answer."""
        places = self._places.get(key)
        if places is None or self._lookers is None:
            return None
        if await self._ask(self._lookers, places, (key,)) is not None:
            return None
        why = f"{', '.join(sorted(places))} gives no answer"
        return Outcome(key, identity, Result.BLOCKED, BlockReason.HUNG, why)

    async def _look(
        self, lookers: RemoteInspector, places: Places, waiting: dict[BundleKey, None]
    ) -> None:
        try:
            while waiting:
                keys = tuple(waiting)[:BATCH]
                for key in keys:
                    del waiting[key]
                looks = await self._ask(lookers, places, keys)
                if looks is None:
                    for key in (*keys, *waiting):
                        self._again(key)
                    return
                for key, look in zip(keys, looks, strict=True):
                    if self._places.get(key) == places:
                        self._receive(key, look)
        finally:
            del self._waiting[places]

    async def _ask(
        self, lookers: RemoteInspector, places: Places, keys: Sequence[BundleKey]
    ) -> Sequence[Look | None] | None:
        """Ask, one at a time; None if there was no answer, or had been none a moment ago."""
        place = self._known.get(places)
        if place is None:
            place = self._known[places] = Place()
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        async with place.lock:
            if self._is_silent(places):
                return None
            looks: Sequence[Look | None] | None = None
            with self._part:
                looks = await lookers.look(keys, places)
            if looks is None:
                place.pause = min(max(PAUSE, place.pause * 2), LONGEST_PAUSE)
                place.until = self._clock.monotonic() + place.pause
            else:
                place.pause = 0.0
            return looks

    def _is_silent(self, places: Places) -> bool:
        place = self._known.get(places)
        return place is not None and self._clock.monotonic() < place.until
