"""A daemon to which nothing happens sleeps, and so do the processes it made."""

import time
from pathlib import Path

import pytest

from tests.daemon.running import Site, running, until
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel

WINDOW = 5.0
"""Seconds: only time can show that nothing happens. `tests.bench daemon` watches for a minute."""


def test_nothing_wakes_it_while_nothing_changes(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    site.write(cleanup__grace="0s", watch__relist="1h")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="due")
        daemon.wait_for("guards.checked")
        until(lambda: _sleeps_for_a_while(daemon.process.pid), "it sleeps", 50)
        assert daemon.end()[0] == 0


def _sleeps_for_a_while(pid: int) -> bool:
    before = _wake_ups(pid)
    time.sleep(WINDOW)
    return _wake_ups(pid) == before


def _wake_ups(pid: int) -> dict[Path, str]:
    """Tell for each thread of the family how often it has gone to sleep."""
    family = [pid]
    for one in family:
        family += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    threads = [thread for one in family for thread in Path(f"/proc/{one}/task").iterdir()]
    return {thread: _switches(thread) for thread in threads}


def _switches(thread: Path) -> str:
    lines = (thread / "status").read_text().splitlines()
    return next(line for line in lines if line.startswith("voluntary_ctxt_switches:"))
