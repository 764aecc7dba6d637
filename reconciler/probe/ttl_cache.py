"""TTL cache: an answer that is kept for a moment, longer the dearer it was. Asks nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from reconciler.ports import Clock

K = TypeVar("K")
T = TypeVar("T")


class TTLCache(Generic[K, T]):
    """The last answer to a question about something; no answer is not kept.

    It is kept for so many seconds from when it was asked for, or for ``cost`` times as long as
    asking took, where that is longer.
    """

    def __init__(
        self, clock: "Clock", ask: Callable[[K], T], seconds: float, *, cost: float = 0.0
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._seconds = seconds
        self._cost = cost
        self._known: tuple[K, T] | None = None
        self._until = 0.0

    def amend(self, answer: T) -> None:
        """Replace the answer that is kept by a better one, for no longer than it would be kept."""
        if self._known is not None:
            self._known = self._known[0], answer

    def keep(self, about: K, answer: T, since: float) -> None:
        """Take an answer that came with that to another question, asked at ``since``."""
        self._known, self._until = (about, answer), since + self._seconds

    def get(self, about: K, *, anew: bool = False) -> T:
        """Give the answer; ``anew`` has it asked again, as another question has."""
        now = self._clock.monotonic()
        if anew or self._known is None or self._known[0] != about or now >= self._until:
            self._known = None
            answer = self._ask(about)
            took = self._clock.monotonic() - now
            self._known = about, answer
            self._until = now + max(self._seconds, took * self._cost)
            return answer
        return self._known[1]
