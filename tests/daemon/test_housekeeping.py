"""Keeping the checkpoint: written when there is news, fresh while a grace runs, quiet otherwise."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
import structlog
from msgspec.structs import replace
from typing_extensions import override

from reconciler.clock import Bell
from reconciler.daemon import checkpoint
from reconciler.daemon.housekeeping import Housekeeping
from reconciler.daemon.notify import ServiceLog
from reconciler.decide.track import Track
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Resync, ResyncKind, Stamp
from reconciler.model.policy import Policy
from reconciler.ports import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 60.0


class Steps(Clock):
    """A clock that ends each wait at once, and keeps what it was asked to wait until."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    @override
    def monotonic(self) -> float:
        return self.now

    @override
    def wall(self) -> float:
        return self.now

    @override
    async def wait(self, bell: Bell, until: float | None) -> None:
        assert until is not None
        self.waits.append(until)
        self.now = until
        self.meanwhile()
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def clock() -> Steps:
    return Steps()


def keeper(path: Path, clock: Clock, *tracks: Track) -> Housekeeping:
    service_log = ServiceLog(structlog.wrap_logger(None), clock)
    return Housekeeping(str(path), lambda: tracks, clock, service_log, pause=lambda: PAUSE)


def track(since: float | None) -> Track:
    made = Track(BundleKey("ns", "a"), Identity(1, 2, 3), first_seen=0.0)
    made.leftover_since = since
    made.policy = replace(Policy(), grace=150.0)
    return made


async def settle() -> None:
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def run(kept: Housekeeping, *, news: bool) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        await settle()
        if news:
            kept.observed(Stamp(1000.0, 1000.0), Resync(ResyncKind.TIMER))
            await settle()
        tasks.cancel_scope.cancel()


async def test_nothing_is_written_and_nobody_woken_while_nothing_is_learnt(
    tmp_path: Path, clock: Steps
) -> None:
    await run(keeper(tmp_path / "checkpoint", clock, track(None)), news=False)
    assert clock.waits == []
    assert os.listdir(tmp_path) == []


async def test_news_are_written_down_once(tmp_path: Path, clock: Steps) -> None:
    await run(keeper(tmp_path / "checkpoint", clock, track(None)), news=True)
    assert clock.waits == [1000.0 + PAUSE]
    assert json.loads((tmp_path / "checkpoint").read_bytes())["written"] == 1000.0 + PAUSE


async def test_what_comes_before_the_writing_is_no_reason_for_another(
    tmp_path: Path, clock: Steps
) -> None:
    kept = keeper(tmp_path / "checkpoint", clock, track(None))

    def more_news() -> None:
        kept.observed(Stamp(1000.0, 1000.0), Resync(ResyncKind.TIMER))

    clock.meanwhile = more_news
    await run(kept, news=True)
    assert clock.waits == [1000.0 + PAUSE]


async def test_while_a_grace_runs_it_stays_fresh_enough_to_go_on_with(
    tmp_path: Path, clock: Steps
) -> None:
    await run(keeper(tmp_path / "checkpoint", clock, track(1000.0)), news=True)
    assert clock.waits == [1060.0, 1120.0, 1180.0], "until the grace of 150 s is over"
    assert max(b - a for a, b in zip(clock.waits, clock.waits[1:], strict=False)) < checkpoint.FRESH
