"""A clock that jumps: time passes only when every task waits, and then at once."""

import math

import anyio
import anyio.lowlevel

from reconciler.clock import Bell

_STILL = 5
"""Turns of the event loop without a change after which everybody is taken to be waiting."""


class VirtualClock:
    """Implements `ports.Clock` in virtual time; for loops that run on doubles without real I/O.

    Exactly one task, the loop under test, waits on this clock. Doubles that want to take time
    call :meth:`take`.
    """

    def __init__(self, mono: float = 100_000.0, wall: float = 1_700_000_000.0) -> None:
        self.now = mono
        self._offset = wall - mono
        self._takers: list[tuple[float, anyio.Event]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._offset

    def jump_wall(self, seconds: float) -> None:
        self._offset += seconds

    async def take(self, seconds: float) -> None:
        """Let a double take its time."""
        rung = anyio.Event()
        self._takers.append((self.now + seconds, rung))
        await rung.wait()

    async def wait(self, bell: Bell, until: float | None) -> None:
        rung = False

        async def listen() -> None:
            nonlocal rung
            await bell.wait()
            rung = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for _ in range(_STILL):
                await anyio.lowlevel.checkpoint()
            while not rung:
                taker = min(self._takers, default=(math.inf, None), key=lambda taker: taker[0])
                end = math.inf if until is None else until
                if taker[1] is not None and taker[0] <= end:
                    self._takers.remove((taker[0], taker[1]))
                    self.now = max(self.now, taker[0])
                    taker[1].set()
                    for _ in range(_STILL):
                        await anyio.lowlevel.checkpoint()
                    continue
                if end is math.inf:
                    raise AssertionError("everybody waits and nothing will ever happen")
                self.now = max(self.now, end)
                break
            tasks.cancel_scope.cancel()
