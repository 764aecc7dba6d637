"""Signals: the first one ends a command in order, a second one at once.

What is under way stops at an entry boundary and says what it has done, before the loop ends.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskStatus

from reconciler.loop import Loop

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

StopWorkers = Callable[[], Awaitable[None]]
"""Lets the cleanups stop at an entry boundary, and returns when they have."""


@asynccontextmanager
async def ending_in_order(loop: Loop, stop_workers: StopWorkers | None) -> AsyncIterator[list[int]]:
    """Stop a loop at the first signal; gives a list that holds the signal from then on."""
    caught: list[int] = []

    async def end(*, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for caught_signal in signals:
                caught.append(int(caught_signal))
                break
        # From here on a second one finds the defaults restored.
        if stop_workers is not None:
            await stop_workers()
        loop.stop()

    async with anyio.create_task_group() as tasks:
        # Before the first turn: from then on an end in order is worth having.
        await tasks.start(end)
        yield caught
        tasks.cancel_scope.cancel()
