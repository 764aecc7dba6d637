"""Piles of looks: others make a part of them, where there are so many that starting them pays.

Nothing is decided and nothing is read here. The loop's looks that wait are taken by the handful,
what comes back is handed on, and whatever others gave no answer about is looked at by ourselves.
Where both happened to look at a bundle, the later look counts.
"""

from collections.abc import Callable
from typing import Final

from reconciler.model.evidence import Look, PartialLook
from reconciler.model.ids import BundleKey
from reconciler.model.observations import HintKind
from reconciler.ports import BatchInspector

PILE: Final = 1000
"""Looks that wait from which on others help: to start them takes as long as some hundred."""

BATCH: Final = 300
"""Looks a helper is given at a time: enough to keep it busy for some turns of the loop."""

Receive = Callable[[BundleKey, Look | PartialLook | None], None]


class Helpers:
    """Those who help with one loop's looks, if there are any.

    Attributes:
        waiting: The looks to be made, and why; we begin at its beginning, they at its end. To be
            replaced only while they are :attr:`resting`: whatever they took and give no answer
            about comes back to it.
    """

    def __init__(
        self, lookers: BatchInspector | None, waiting: dict[BundleKey, HintKind], receive: Receive
    ) -> None:
        self._lookers = lookers
        self.waiting = waiting
        self._receive = receive
        self._taken: dict[BundleKey, HintKind] = {}
        self._at_work = 0

    @property
    def missing(self) -> int:
        """How many more should :meth:`help`."""
        if self._lookers is None or len(self.waiting) < PILE:
            return 0
        return self._lookers.many - self._at_work

    @property
    def resting(self) -> bool:
        """Whether nobody is helping."""
        return not self._at_work

    def overtake(self, key: BundleKey) -> None:
        """We are about to look at it ourselves: an earlier look that is under way is void."""
        self._taken.pop(key, None)

    async def help(self) -> None:
        """Look at handfuls until there is no pile any more, or one of them was not answered."""
        if self._lookers is None:
            return
        self._at_work += 1
        try:
            while len(self.waiting) > BATCH:
                if not await self._take_handful(self._lookers):
                    break
        finally:
            self._at_work -= 1

    async def _take_handful(self, lookers: BatchInspector) -> bool:
        taken = dict(self.waiting.popitem() for _ in range(BATCH))
        self._taken |= taken
        looks = await lookers.look(tuple(taken))
        if looks is None:
            self._lookers = None  # what hung once may hang again
            for key, why in taken.items():
                if self._taken.pop(key, None) is not None:
                    self.waiting.setdefault(key, why)
            return False
        for key, look in zip(taken, looks, strict=True):
            if self._taken.pop(key, None) is not None:
                self._receive(key, look)
        return True
