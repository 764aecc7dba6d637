"""Workplace: what one worker keeps between jobs, so that many bundles cost less than each alone.

What it keeps is a moment old at most, and only things of which an older answer can do no harm: a
dead bundle does not come back to life, and its id cannot be used again while it stands.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from reconciler.act.fifos import FifoDirs, open_fifos
from reconciler.act.record import Began
from reconciler.act.users import SocketUsers
from reconciler.clock import SystemClock
from reconciler.model.evidence import Sweep
from reconciler.model.layout import Layout
from reconciler.probe.surroundings import Surroundings
from reconciler.probe.sweep import sweep

FRESH_SECONDS: Final = 1.0

T = TypeVar("T")


class Workplace:
    """One worker's clock, its ways to speak to the parent, and what it remembers.

    Args:
        clock: The only source of time.
        began: Tells the parent which step begins.
        ask_delete: Has the parent ask containerd to delete the task of the bundle at hand; gives
            what went wrong, empty if nothing did, None if there was no answer.
        stop: Whether we were told to stop.
    """

    def __init__(
        self,
        clock: SystemClock,
        began: Began,
        ask_delete: Callable[[], str | None],
        stop: Callable[[], bool],
    ) -> None:
        self.clock = clock
        self.began = began
        self.ask_delete = ask_delete
        self.stop = stop
        self.users = SocketUsers(clock)
        self.fifo_dirs = FifoDirs()
        self._sweep = Fresh(clock, sweep)
        self._open_fifos = Fresh(clock, open_fifos)
        self._around: Surroundings | None = None

    def sweep(self, *, anew: bool = False) -> Sweep:
        """Give a pass over /proc, a second old at most."""
        return self._sweep.get(anew=anew)

    def around(self, layout: Layout, swept: Sweep) -> Surroundings:
        """Give the node as it is now, with every containerd address a shim was started with."""
        addresses = tuple(sorted({shim.address for shim in swept.shims if shim.address}))
        around = self._around
        if around is None or (around.layout, around.addresses) != (layout, addresses):
            if around is not None:
                around.close()
            around = self._around = Surroundings(layout, addresses)
        around.refresh()
        return around

    def open_fifos(self) -> frozenset[bytes]:
        """Give the names of the stream FIFOs that somebody has open."""
        return self._open_fifos.get()


class Fresh(Generic[T]):
    """The answer to a question, asked again only once it is older than a second."""

    def __init__(self, clock: SystemClock, ask: Callable[[], T]) -> None:
        self._clock = clock
        self._ask = ask
        self._answer: T | None = None
        self._until = 0.0

    def get(self, *, anew: bool = False) -> T:
        """Give the answer."""
        now = self._clock.monotonic()
        if anew or self._answer is None or now >= self._until:
            self._answer = self._ask()
            self._until = now + FRESH_SECONDS
        return self._answer
