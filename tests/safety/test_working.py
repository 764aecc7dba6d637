"""Shards that are cut short leave nothing behind: no process, directory, cgroup or open pipe."""

import gc
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.safety import faulting, killing
from tests.safety.working import in_shards
from tests.support.bundles import CGROUPS, RUN, top_cgroup
from tests.support.children import children_of, has_ended

pytestmark = pytest.mark.kernel


class OutOfTimeError(Exception):
    """What pytest's timeout raises in the midst of whatever the test does."""


def below(pid: int) -> set[int]:
    """Everybody whom this process has started, and whom they have, and so on."""
    found: set[int] = set()
    for child in children_of(pid):
        try:
            found |= {child} | below(child)
        except (FileNotFoundError, ProcessLookupError):
            found.discard(child)
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"reconciler.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def out_of_time_when_workers_work() -> Iterator[set[int]]:
    """Interrupt the main thread as a timeout does; gives everybody who was there by then."""
    found: set[int] = set()

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        before = below(os.getpid())
        while time.monotonic() < deadline:
            now = below(os.getpid()) - before
            if sum(map(is_worker, now)) > 1:  # the fork server, and a worker of its own
                found.update(now)
                break
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def out_of_time(*_: object) -> None:
        raise OutOfTimeError

    usual = signal.signal(signal.SIGUSR1, out_of_time)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield found
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, usual)


@pytest.mark.parametrize("kind", [faulting.Report, killing.Report], ids=["faulting", "killing"])
def test_shards_that_are_cut_short_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    before = set(CGROUPS.glob("*/" + top_cgroup(RUN + "*")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    try:
        with out_of_time_when_workers_work() as found, pytest.raises(OutOfTimeError):
            in_shards(kind, of=1)
        assert found, "no worker was at work in time"
        assert [pid for pid in found if not has_ended(pid)] == []
        assert list(tmp_path.iterdir()) == []
        assert set(CGROUPS.glob("*/" + top_cgroup(RUN + "*"))) <= before
        gc.collect()  # an open pipe is told by a warning, which is an error
    finally:
        for pid in found:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)
