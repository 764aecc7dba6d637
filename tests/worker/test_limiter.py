"""How many jobs begin: as many as processors, and one more for each that is slow."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from reconciler.worker import limiter
from reconciler.worker.limiter import JobLimiter

NEVER = 1e9


class Jobs:
    """Jobs of one limiter that end when they are told to."""

    def __init__(self, limited: JobLimiter, tasks: anyio.abc.TaskGroup) -> None:
        self._limited = limited
        self._tasks = tasks
        self._ends: dict[int, anyio.Event] = {}
        self.begun: list[int] = []
        self.under_way: set[int] = set()

    async def ask(self, *numbers: int) -> None:
        for number in numbers:
            self._ends[number] = anyio.Event()
            self._tasks.start_soon(self._job, number)
        await anyio.wait_all_tasks_blocked()

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await anyio.wait_all_tasks_blocked()

    async def _job(self, number: int) -> None:
        async with self._limited.job():
            self.begun.append(number)
            self.under_way.add(number)
            await self._ends[number].wait()
            self.under_way.remove(number)


@asynccontextmanager
async def jobs(limited: JobLimiter) -> AsyncIterator[Jobs]:
    async with anyio.create_task_group() as tasks:
        yield Jobs(limited, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
def slow_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_(seconds: float) -> None:
        monkeypatch.setattr(limiter, "_SLOW_SECONDS", seconds)
        monkeypatch.setattr(limiter, "_SLOWEST_SECONDS", seconds)

    set_(NEVER)
    return set_


@pytest.mark.usefixtures("slow_after")
async def test_no_more_than_processors_begin_and_the_others_follow_in_order() -> None:
    async with jobs(JobLimiter(8, quick=2)) as made:
        await made.ask(1, 2, 3, 4)
        assert made.begun == [1, 2]
        await made.end(2)
        assert made.begun == [1, 2, 3]
        await made.end(1)
        await made.end(3)
        assert (made.begun, made.under_way) == ([1, 2, 3, 4], {4})


async def test_those_that_are_slow_hold_up_nobody_until_there_are_as_many_as_told(
    slow_after: Callable[[float], None],
) -> None:
    slow_after(0.0)
    async with jobs(JobLimiter(4, quick=2)) as made:
        await made.ask(*range(6))
        assert made.begun == [0, 1, 2, 3]
        await made.end(1)
        assert made.begun == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("slow_after")
async def test_one_that_becomes_slow_while_others_wait_lets_the_next_begin() -> None:
    limited = JobLimiter(8, quick=1)
    async with jobs(limited) as made, anyio.create_task_group() as tasks:
        limited._usual_seconds = 0.0
        limiter._SLOW_SECONDS = 0.001  # type: ignore[misc]  # given back by the fixture
        await made.ask(1)
        limiter._SLOW_SECONDS = NEVER  # type: ignore[misc]  # likewise
        tasks.start_soon(made.ask, 2, 3)
        with anyio.fail_after(10):
            while made.begun != [1, 2]:
                await anyio.lowlevel.checkpoint()
        await made.ask()
        assert made.begun == [1, 2]


@pytest.mark.usefixtures("slow_after")
async def test_as_few_as_told_begin_from_the_next_one_on() -> None:
    limited = JobLimiter(8, quick=4)
    async with jobs(limited) as made:
        await made.ask(1, 2, 3)
        limited.total_tokens = 1
        await made.ask(4)
        await made.end(1)
        await made.end(2)
        assert made.begun == [1, 2, 3]
        await made.end(3)
        assert made.begun == [1, 2, 3, 4]


@pytest.mark.usefixtures("slow_after")
async def test_one_that_is_cancelled_while_it_waits_leaves_its_turn_to_the_next() -> None:
    limited = JobLimiter(8, quick=1)
    async with jobs(limited) as made:
        await made.ask(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made._job, 1)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await made.ask(2)
        await made.end(1)
        assert made.begun == [1, 2]


async def test_where_all_take_long_it_takes_longer_to_be_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All wait for processors, maybe: more workers would only wait, too."""
    now = 0.0
    monkeypatch.setattr(anyio, "current_time", lambda: now)
    limited = JobLimiter(8, quick=1)

    async def slow_after(seconds: float) -> float:
        nonlocal now
        async with limited.job():
            (slow_at,) = limited._slow_at.values()
            began, now = now, now + seconds
        return slow_at - began

    assert await slow_after(0.05) == pytest.approx(0.1)
    assert [await slow_after(0.05) for _ in range(40)][-1] == pytest.approx(0.4, rel=0.05)
    assert [await slow_after(60.0) for _ in range(40)][-1] == pytest.approx(0.5)
