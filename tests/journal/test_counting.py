"""What a journal misses is counted once, also where the line that tells of it is lost in turn."""

import os
import resource
import signal
from pathlib import Path

import anyio
import pytest

from reconciler.journal import recorder as recorder_module
from reconciler.journal import writer as writer_module
from reconciler.journal.lines import Given, Lost
from reconciler.journal.recorder import FileRecorder
from reconciler.model.observations import Looked
from tests.decide.world import dead
from tests.journal.test_recorder import items, name, stamp, starts, until, writer

pytestmark = pytest.mark.anyio


class Giver:
    """Gives a recorder records, and makes it miss every third of them."""

    def __init__(self, recorder: FileRecorder) -> None:
        self.count = 0
        self._recorder = recorder

    def give(self, times: int) -> None:
        for _ in range(times):
            self.count += 1
            self._recorder.observed(stamp(), Looked(name(self.count), dead(self.count)))
            if self.count % 3 == 0:
                self._recorder.missed()


def told(path: Path) -> tuple[int, int]:
    """Count the records in a journal, and those that it says are missing."""
    read = items(path)
    missing = sum(item.count for item in read if isinstance(item, Lost))
    return sum(isinstance(item, Given) for item in read), missing


async def test_a_line_of_losses_that_a_full_disk_takes(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        given = Giver(recorder)
        await until(lambda: path.exists() and path.stat().st_size > 500)
        process = writer(recorder).pid
        resource.prlimit(process, resource.RLIMIT_FSIZE, (path.stat().st_size + 5000, -1))
        while not recorder.trouble or given.count < 100:
            given.give(10)
            await anyio.sleep(0.001)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (-1, -1))
        given.give(1)
    found, missing = told(path)
    assert missing > given.count / 3, "some were lost by the disk, too"
    assert found + missing == given.count
    assert recorder.lost == missing


async def test_a_line_of_losses_that_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_BUFFER", 20_000)
    path = tmp_path / "run.jsonl"
    async with starts(path) as recorder:
        given = Giver(recorder)
        await until(path.exists)
        os.kill(writer(recorder).pid, signal.SIGSTOP)
        while recorder.lost < given.count / 3 + 100:
            given.give(100)
            await anyio.lowlevel.checkpoint()
        os.kill(writer(recorder).pid, signal.SIGCONT)
        await until(lambda: recorder._buffered == 0)
        given.give(1)
    found, missing = told(path)
    assert found + missing == given.count
    assert recorder.lost == missing


async def test_what_waits_for_a_writer_that_is_gone(tmp_path: Path) -> None:
    recorder = starts(tmp_path / "run.jsonl")
    given = Giver(recorder)
    given.give(30)
    recorder._listener.flush()
    assert recorder.lost == 10, "those that were missed"
    recorder._break("the writer is gone")
    assert recorder.lost == 30


def test_only_records_are_records() -> None:
    record, loss = b'{"mono":1}\n', b'{"lost":7,"reason":""}\n'
    header = writer_module.MAGIC + b',"schema":2}\n'
    lines = header + record + loss + record + writer_module.ROTATE + header
    assert writer_module.records(lines) == 2
    assert writer_module.missing(lines) == 9
    assert writer_module.records(b"") == writer_module.missing(b"") == 0
