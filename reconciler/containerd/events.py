"""Events: containerd's own notices that a task changed, as hints; its coming and going, as doubt.

They only save time: all of them may be lost (principle 3). Tasks flow in from a subscription that
is renewed for as long as this runs, observations flow out.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from reconciler.containerd.answers import NoAnswerError
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, HintKind, Resync, ResyncKind
from reconciler.ports import Clock, Emit
from reconciler.supervision import RESTARTS

if TYPE_CHECKING:
    from reconciler.containerd.client import ContainerdClient


class Events:
    """Implements `ports.Source`.

    Args:
        client: Whom to subscribe to.
        clock: Times the attempts.
    """

    def __init__(self, client: "ContainerdClient", clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled; containerd may come and go meanwhile."""
        received = _Subscriber(emit)
        while True:
            with suppress(NoAnswerError):
                await self._client.subscribe(received.subscribed, received.touched)
            delay = received.ended()
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + delay)


class _Subscriber:
    """What becomes of one subscription after the other."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._first = True
        self._listening = False
        self._failures = 0

    def subscribed(self) -> None:
        self._listening = True
        if not self._first:  # it came; what it swept was not reported
            self._emit(Resync(ResyncKind.CONTAINERD))

    def touched(self, key: BundleKey) -> None:
        self._failures = 0
        self._emit(Hint(key, HintKind.CONTAINERD))

    def ended(self) -> float:
        """Note that it went, and give the seconds until the next attempt."""
        if self._listening:
            self._emit(Resync(ResyncKind.CONTAINERD))
        self._first = self._listening = False
        self._failures += 1
        return RESTARTS.after(self._failures)
