"""The only module that reads a clock. Everything else takes the time as an argument."""

import time
from typing import Protocol


class Bell(Protocol):
    """Something to wait for (``anyio.Event``)."""

    async def wait(self) -> None:
        """Return once it has rung."""
        ...


class Deadline:
    """A moment, so many seconds from now, from which on there is no time left."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it has come."""
        return time.monotonic() > self._at

    @property
    def left(self) -> float:
        """Seconds until then; 0 once it has come."""
        return max(0.0, self._at - time.monotonic())


class SystemClock:
    """The kernel's clocks; implements `ports.Clock`."""

    def monotonic(self) -> float:
        """Seconds since the boot, suspension not counted (CLOCK_MONOTONIC)."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch (CLOCK_REALTIME)."""
        return time.time()

    async def wait(self, bell: Bell, until: float | None) -> None:
        """Wait until the bell rings or the monotonic clock reads ``until``; None for no limit."""
        import anyio  # here, because workers read the clock and start twice as fast without it

        left = None if until is None else max(0.0, until - time.monotonic())
        with anyio.move_on_after(left):
            await bell.wait()
