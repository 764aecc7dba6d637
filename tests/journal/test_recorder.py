"""The recorder against real files and a real writer: nothing it meets delays or stops the run."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from reconciler.clock import SystemClock
from reconciler.errors import UsageError
from reconciler.journal import recorder as recorder_module
from reconciler.journal.lines import Given, Lost
from reconciler.journal.reader import Journal
from reconciler.journal.recorder import FileRecorder, Options, check_target, is_being_written
from reconciler.model.evidence import Runtime, RuntimeState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, Looked, Observation, Stamp
from reconciler.model.policy import Policies
from tests.decide.world import dead
from tests.support.lag import Stopwatch

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()


def stamp() -> Stamp:
    return Stamp(CLOCK.monotonic(), CLOCK.wall())


def name(n: int) -> BundleKey:
    return BundleKey("ns", f"bundle-{n:06}")


def items(path: Path, warnings: list[str] | None = None) -> list[Given | Lost]:
    said: list[str] = [] if warnings is None else warnings
    return [i for i in Journal(path, said.append).items() if isinstance(i, Given | Lost)]


def received(item: Given | Lost) -> Observation:
    assert isinstance(item, Given), item
    assert item.observation is not None, item
    return item.observation


def key_of(item: Given) -> BundleKey:
    assert isinstance(item.observation, Hint | Looked), item
    return item.observation.key


def writer(recorder: FileRecorder) -> subprocess.Popen[bytes]:
    assert recorder._writer is not None
    return recorder._writer


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        await anyio.sleep(0.005)


def starts(
    path: Path, *, max_size: int = 64 * 1000**2, keep: int = 4, compress: bool = True
) -> FileRecorder:
    options = Options(path, max_size=max_size, keep=keep, compress=compress)
    return FileRecorder(options, CLOCK, Policies())


async def test_what_was_heard_is_in_the_file_when_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        for n in range(1000):
            recorder.observed(stamp(), Looked(name(n), dead(n)))
    read = items(path)
    assert [received(item) for item in read] == [Looked(name(n), dead(n)) for n in range(1000)]
    assert recorder.lost == 0
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_record_reaches_the_file_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        recorder.observed(stamp(), Hint(name(1)))
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)


async def test_files_are_rotated_compressed_and_read_as_one_run(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path, max_size=20_000, keep=50) as recorder:
        for n in range(2000):
            recorder.observed(stamp(), Looked(name(n), dead(n)))
            if n % 50 == 0:
                await anyio.lowlevel.checkpoint()
    await until(lambda: not any(file.endswith(".new") for file in names(tmp_path)))
    assert len([file for file in names(tmp_path) if file.endswith(".gz")]) > 5
    read = items(path)
    assert [key_of(i) for i in read if isinstance(i, Given)] == [name(n) for n in range(2000)]


async def test_only_so_many_files_are_kept_and_the_rest_says_that_it_begins_late(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path, max_size=20_000, keep=2, compress=False) as recorder:
        for n in range(2000):
            recorder.observed(stamp(), Looked(name(n), dead(n)))
            if n % 50 == 0:
                await anyio.lowlevel.checkpoint()
    assert names(tmp_path) == ["run.jsonl", "run.jsonl.1", "run.jsonl.2"]
    journal = Journal(path, pytest.fail)
    assert not journal.is_whole
    last = [i for i in journal.items() if isinstance(i, Given)][-1]
    assert key_of(last) == name(1999)


async def test_the_journal_of_an_earlier_run_is_kept_and_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for run in range(2):
        async with starts(path, compress=False) as recorder:
            recorder.observed(stamp(), Hint(name(run)))
    assert [received(i) for i in items(path)] == [Hint(name(1))]
    assert [received(i) for i in items(tmp_path / "run.jsonl.1")] == [Hint(name(0))]


@pytest.mark.parametrize("kind", ["text", "symlink", "directory", "fifo"])
async def test_whatever_is_no_journal_is_never_moved_nor_written(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "thing", tmp_path / "other"
    other.write_bytes(b"precious")
    match kind:
        case "text":
            path.write_bytes(b"precious")
        case "symlink":
            path.symlink_to(other)
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            raise AssertionError(kind)
    before = path.lstat()
    async with starts(path) as recorder:
        recorder.observed(stamp(), Hint(name(1)))
        await until(lambda: recorder.trouble)
    assert path.lstat().st_ino == before.st_ino
    assert other.read_bytes() == b"precious"
    with pytest.raises(UsageError):
        check_target(path)


async def test_a_journal_that_another_process_writes_is_never_moved(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path, keep=0) as first:
        first.observed(stamp(), Hint(name(1)))
        await until(lambda: path.exists() and is_being_written(path))
        async with starts(path, keep=0) as second:
            second.observed(stamp(), Hint(name(2)))
            await until(lambda: second.trouble)
            assert "another process writes" in second.trouble
        first.observed(stamp(), Hint(name(3)))
    assert [received(i) for i in items(path)] == [Hint(name(1)), Hint(name(3))]
    assert not is_being_written(path)


@pytest.mark.fault("disk full under the journal")
async def test_a_full_disk_loses_records_says_how_many_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        recorder.observed(stamp(), Looked(name(0), dead(0)))
        await until(lambda: path.exists() and path.stat().st_size > 500)
        limit = path.stat().st_size + 5000
        resource.prlimit(writer(recorder).pid, resource.RLIMIT_FSIZE, (limit, -1))
        for n in range(1, 200):
            recorder.observed(stamp(), Looked(name(n), dead(n)))
        await until(lambda: recorder.trouble)
        resource.prlimit(writer(recorder).pid, resource.RLIMIT_FSIZE, (-1, -1))
        given = 200
        end = time.monotonic() + 10
        while b'"policies"' not in path.read_bytes().partition(b"\n")[2]:
            assert time.monotonic() < end, recorder.trouble
            recorder.observed(stamp(), Looked(name(given), dead(given)))
            given += 1
            await anyio.sleep(0.01)
        for _ in range(50):
            recorder.observed(stamp(), Looked(name(given), dead(given)))
            given += 1
    read = items(path)
    losses = [item for item in read if isinstance(item, Lost)]
    found = [key_of(item) for item in read if isinstance(item, Given)]
    lost = sum(loss.count for loss in losses)
    assert lost + len(found) == given, "every record is there or counted"
    assert recorder.lost == lost
    assert found[-1] == name(given - 1)
    assert any("large" in loss.reason or "space" in loss.reason for loss in losses)
    assert losses[-1].policies == Policies()


async def test_a_writer_that_hangs_delays_nothing_and_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_BUFFER", 200_000)
    monkeypatch.setattr(recorder_module, "_PATIENCE", 0.3)
    path = tmp_path / "run.jsonl"
    slowest = 0.0
    async with starts(path) as recorder:
        await until(path.exists)
        os.kill(writer(recorder).pid, signal.SIGSTOP)
        for n in range(10_000):
            stopwatch = Stopwatch()
            recorder.observed(stamp(), Looked(name(n), dead(n)))
            slowest = max(slowest, stopwatch.read())
            if n % 100 == 0:
                await anyio.lowlevel.checkpoint()
        assert recorder._buffered <= 200_000
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert slowest < 0.25
    assert recorder.lost > 1000
    assert writer(recorder).poll() is not None


async def test_a_slow_writer_that_catches_up_tells_of_its_loss_and_all_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_BUFFER", 200_000)
    path = tmp_path / "run.jsonl"
    given = 0
    async with starts(path) as recorder:
        await until(path.exists)
        os.kill(writer(recorder).pid, signal.SIGSTOP)
        while recorder.lost < 100:
            recorder.observed(stamp(), Looked(name(given), dead(given)))
            given += 1
            if given % 100 == 0:
                await anyio.lowlevel.checkpoint()
        os.kill(writer(recorder).pid, signal.SIGCONT)
        await until(lambda: recorder._buffered == 0)
        for _ in range(100):
            recorder.observed(stamp(), Looked(name(given), dead(given)))
            given += 1
            await anyio.lowlevel.checkpoint()
    read = items(path)
    found = [key_of(item) for item in read if isinstance(item, Given)]
    lost = sum(item.count for item in read if isinstance(item, Lost))
    assert lost + len(found) == given
    assert found[-1] == name(given - 1)


async def test_a_writer_that_dies_ends_the_journal_and_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        recorder.observed(stamp(), Hint(name(0)))
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
        os.kill(writer(recorder).pid, signal.SIGKILL)
        await until(lambda: recorder.trouble)
        for n in range(100):
            recorder.observed(stamp(), Hint(name(n)))
    assert recorder.lost >= 99
    assert [received(i) for i in items(path)] == [Hint(name(0))]


async def test_text_that_is_no_unicode_is_counted_and_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    bad = replace(dead(1), runtime=Runtime(RuntimeState.KNOWN, "\udc80"))
    async with starts(path) as recorder:
        recorder.observed(stamp(), Looked(name(1), bad))
        recorder.observed(stamp(), Looked(name(2), dead(2)))
    read = items(path)
    assert [type(item) for item in read] == [Lost, Given]
    assert recorder.lost == 1


async def test_the_journal_survives_when_the_run_is_killed(tmp_path: Path) -> None:
    """Whatever reached the writer is written: it ends when its other end does, not before."""
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        recorder.observed(stamp(), Hint(name(0)))
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(writer(recorder).pid, number)
        recorder.observed(stamp(), Hint(name(1)))
        await until(lambda: path.read_bytes().count(b"\n") == 3)
        assert writer(recorder).poll() is None
