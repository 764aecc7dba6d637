"""The files of the configuration: what wakes us, and that nothing else does."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import watchfiles

from reconciler.daemon import config_files
from reconciler.daemon.config_files import ConfigFiles
from tests.support.handles import open_files

pytestmark = pytest.mark.kernel


@asynccontextmanager
async def watching(config: str) -> AsyncIterator[tuple["Heard", list[str]]]:
    """Watch a file; give what is heard of it, and the troubles."""
    found = Heard()
    troubles: list[str] = []

    async def follow() -> None:
        async for name in ConfigFiles(config).changes(troubles.append):
            found.receive(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        yield found, troubles
        tasks.cancel_scope.cancel()


class Heard:
    """The files that were said to have changed, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._more = anyio.Event()

    def receive(self, name: str) -> None:
        self.names.append(name)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, count: int) -> None:
        with anyio.fail_after(40):
            while len(self.names) < count:
                await self._more.wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_files, "QUIET", 0.2)


async def test_at_rest_there_is_no_thread_and_nothing_to_wake_for(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    before = threading.active_count(), len(os.listdir("/proc/self/task"))
    async with watching(str(config)) as (found, _):
        assert (threading.active_count(), len(os.listdir("/proc/self/task"))) == before
        loop = asyncio.get_running_loop()
        waits = [timer.when() - loop.time() for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # not public
        assert min(waits) > config_files._COMPARE - 10, "it compares now and then, and that is all"
        config.write_text("a = 1")
        await found.until(1)
    assert found.names == [str(config)]


async def test_an_unrelated_file_beside_it_is_no_change(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    async with watching(str(config)) as (found, _):
        (tmp_path / "other.toml").write_text("x")
        config.write_text("a = 1")
        await found.until(1)
        (tmp_path / "other.toml").unlink()
        config.unlink()
        await found.until(2)
    assert found.names == [str(config)] * 2


async def test_a_directory_that_comes_goes_and_comes_again_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    config = folder / "config.toml"
    async with watching(str(config)) as (found, troubles):
        folder.mkdir()
        config.write_text("a = 1")
        await found.until(1)
        folder.rename(tmp_path / "old")
        await found.until(2)
        folder.mkdir()
        config.write_text("a = 2")
        await found.until(3)
        config.write_text("a = 3")
        await found.until(4)
    assert troubles == []


async def test_a_file_is_heard_of_by_whichever_name_its_directory_has(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "z").symlink_to("a")
    config = tmp_path / "z" / "config.toml"
    config.write_text("")
    ways = config_files.names_on_the_way([str(config)])
    assert len(config_files.directories(ways)) == 3, "two of them are one"
    async with watching(str(config)) as (found, _):
        (tmp_path / "a" / "config.toml").write_text("a = 1")
        await found.until(1)


class Batches:
    """A stand-in for watchfiles' `awatch`: says at what time what has changed, and no more."""

    def __init__(self, said: list[tuple[float, str]]) -> None:
        self.now = 0.0
        self._said = said

    async def __call__(self, *_: str, **__: object) -> AsyncGenerator[set[tuple[int, str]], None]:
        for at, name in self._said:
            self.now = at
            yield {(1, name)} if name else set()


@pytest.mark.parametrize(
    ("said", "rests_at"),
    [
        ([(0.1, ""), (0.2, ""), (0.3, "")], 0.2),
        ([(0.1, "mine"), (0.2, ""), (0.29, ""), (0.31, ""), (0.4, "")], 0.31),
        ([(0.1, "mine"), (0.25, "mine"), (0.3, "other"), (0.45, "other"), (0.5, "")], 0.45),
        ([(at / 10, "mine") for at in range(1, 30)], 1.0),
    ],
    ids=["at once", "after a change", "others' changes do not count", "never"],
)
async def test_a_file_is_read_once_it_has_come_to_rest(
    monkeypatch: pytest.MonkeyPatch, said: list[tuple[float, str]], rests_at: float
) -> None:
    batches = Batches(said)
    monkeypatch.setattr(watchfiles, "awatch", batches)
    monkeypatch.setattr(anyio, "current_time", lambda: batches.now)
    await config_files._come_to_rest(frozenset({"mine"}))
    assert batches.now == rests_at


async def test_a_name_beside_it_that_is_not_utf8_stops_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    before = threading.active_count()
    async with watching(str(config)) as (found, troubles):
        config.write_text("a = 1")
        with anyio.fail_after(40):
            while threading.active_count() == before:  # until watchfiles has begun
                await anyio.lowlevel.checkpoint()
        (tmp_path / os.fsdecode(b"\xff")).write_text("x")
        await found.until(1)
        config.write_text("a = 2")
        await found.until(2)
    assert troubles == []


async def test_with_too_few_handles_it_says_so_and_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_files, "_SPARE", sys.maxsize)
    before = open_files()
    async with watching(str(tmp_path / "config.toml")) as (_, troubles):
        assert open_files() <= before
    assert len(troubles) == 1
    assert "too few to spare one" in troubles[0]
