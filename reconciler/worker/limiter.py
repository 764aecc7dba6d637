"""Job limiter: how many bundles are worked on at the same time.

A cleanup is bound by processor time, so more workers than processors only make each other wait,
and each pays for a fork, passes over /proc and mount tables of its own. But a job that hangs, in a
hook or in the kernel, uses no processor, and must not hold up the others. So there are as many jobs
as processors, and one that is slow does not count among them, up to the number that was configured.
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

_SLOW_SECONDS: Final = 0.1
_SLOWEST_SECONDS: Final = 0.5
"""A job is slow once it has taken so long, and later, but not later than that, where the usual job
of the last ones takes longer: then it may be processors that all of them wait for."""

_TIMES: Final = 8.0
"""How many times as long as the usual job a slow one takes."""

_FEWEST: Final = 2
"""With a single one everybody would wait while an unmount waits for the kernel."""


class JobLimiter:
    """Lets ``total_tokens`` jobs begin at most, of which so many ``quick`` ones.

    Attributes:
        total_tokens: As of anyio's limiter; another number holds from the next job on.
    """

    def __init__(self, total_tokens: int, *, quick: int | None = None) -> None:
        self.total_tokens = total_tokens
        self._quick = quick or max(_FEWEST, len(os.sched_getaffinity(0)))
        self._next = anyio.Lock(fast_acquire=True)
        self._ended = anyio.Event()
        self._usual_seconds = 0.0
        self._slow_at: dict[object, float] = {}
        """From when each job that is under way is slow."""

    @asynccontextmanager
    async def job(self) -> AsyncIterator[None]:
        """Wait until a job may begin, in order of the requests; it is under way inside."""
        async with self._next:  # so that one alone waits for the end of another
            while seconds := self._seconds_to_wait():
                with anyio.move_on_after(seconds):
                    await self._ended.wait()
            job, began = object(), anyio.current_time()
            slow = max(_SLOW_SECONDS, min(_TIMES * self._usual_seconds, _SLOWEST_SECONDS))
            self._slow_at[job] = began + slow
        try:
            yield
        finally:
            del self._slow_at[job]
            self._usual_seconds += (anyio.current_time() - began - self._usual_seconds) / _TIMES
            self._ended.set()
            self._ended = anyio.Event()

    def _seconds_to_wait(self) -> float:
        """Say for how long no job may begin if none ends; 0 if one may."""
        if len(self._slow_at) >= self.total_tokens:
            return math.inf
        now = anyio.current_time()
        quick = sorted(at for at in self._slow_at.values() if at > now)
        surplus = len(quick) - self._quick
        return quick[surplus] - now if surplus >= 0 else 0.0
