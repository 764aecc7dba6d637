"""Asking the node's witnesses: not too often, one question at a time, none forgotten. Pure."""

from collections.abc import Iterable
from typing import Final

from reconciler.model.decisions import AskNode
from reconciler.model.ids import BundleKey

RECHECK: Final = "recheck"
"""A request without an occasion, repeated as long as something is unsure: nobody waits for it."""

PAUSE: Final = 0.5
"""Seconds from an answer to the next question, on average: a sweep costs milliseconds on a large
node."""

BURST: Final = 4
"""Questions that something waits for may follow each other at once, so many; then they pause. A
task that dies raises two: its shim and its init are seen to go one after the other."""

_BACKLOG: Final = BURST * PAUSE
_NEVER: Final = float("-inf")

LULL: Final = 1.0
LONGEST: Final = 10.0
"""Seconds: while the bundles of a listing are looked at for the first time, no further question is
asked until the last was, or none for so long, or it lasts too long. One answer tells then what each
look wants to know; to ask a large node again and again meanwhile costs more than to look at it."""


class FirstLooks:
    """The bundles that listings have shown and nobody has looked at yet."""

    def __init__(self) -> None:
        self._waiting: set[BundleKey] = set()
        self._until = self._at_most = _NEVER

    def listed(self, keys: Iterable[BundleKey], now: float) -> None:
        """Take note of bundles that were not known before."""
        count = len(self._waiting)
        self._waiting.update(keys)
        if len(self._waiting) > count:
            self._until, self._at_most = now + LULL, now + LONGEST

    def done(self, key: BundleKey, now: float) -> None:
        """Take note that a bundle was looked at, or is gone."""
        if key in self._waiting:
            self._waiting.discard(key)
            self._until = min(now + LULL, self._at_most)
            if not self._waiting:
                self._waiting = set()  # one that has shrunk keeps its size

    @property
    def until(self) -> float:
        """Until when a question is better put off; in the past if none is."""
        return self._until if self._waiting else _NEVER


class Asking:
    """Coalesces wishes for a fresh word from /proc and containerd.

    Args:
        first_looks: While they last only the first question is asked.
    """

    def __init__(self, first_looks: FirstLooks) -> None:
        self._first_looks = first_looks
        self._wanted_at: float | None = None
        self._why = ""
        self._under_way = False
        self._urgent = False
        self._awaited_at = self._received = self._rested_at = _NEVER

    @property
    def pending(self) -> bool:
        """Whether a question that something waits for is under way or still to be asked."""
        return self._awaited_at > self._received

    @property
    def wake(self) -> float | None:
        """When a waiting question may be asked."""
        return None if self._under_way or self._wanted_at is None else self._may_ask_at

    @property
    def _may_ask_at(self) -> float:
        """Each answer costs a pause; what is urgent may run up a backlog of them."""
        rested_at = self._rested_at - _BACKLOG if self._urgent else self._rested_at
        is_first = self._received == _NEVER
        return rested_at if is_first else max(rested_at, self._first_looks.until)

    def want(self, why: str, at: float, *, awaited: bool = True) -> None:
        """Request an answer asked for no earlier than ``at`` (monotonic seconds).

        ``awaited``: whether it can show anything that an earlier answer could not.
        """
        if awaited and why != RECHECK and at > self._awaited_at:
            self._awaited_at = at
        if at > self._received and (self._wanted_at is None or at > self._wanted_at):
            self._wanted_at, self._why = at, why
            self._urgent = self._urgent or why != RECHECK

    def ask(self, now: float) -> AskNode | None:
        """Ask now if there is a request and the time has come."""
        if self._wanted_at is None or self._under_way or now < self._may_ask_at:
            return None
        self._under_way = True
        return AskNode(self._why)

    def answered(self, since: float, now: float) -> None:
        """Receive the answer to a question asked at ``since``."""
        self._under_way = False
        self._received = max(self._received, since)
        backlog = min(max(self._rested_at, now) - now, _BACKLOG)
        self._rested_at = now + backlog + PAUSE
        if self._wanted_at is not None and self._wanted_at <= since:
            self._wanted_at = None
            self._urgent = False
