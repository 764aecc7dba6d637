"""Filesystems that hang, crawl or are frozen: the loop turns, others go on, an end is an end.

What is measured is the whole program in this process, and in the end as a command.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override

from reconciler.assembly import Opened
from reconciler.model.observations import Observation, Stamp
from reconciler.model.outcome import Outcome
from tests.safety import straced
from tests.safety.frozen import frozen_disk, work_dir_began
from tests.safety.ground import Ground, environment, ground, wait_for
from tests.safety.watched import LAG, Watched, run
from tests.safety.working import hidden_of
from tests.support.bundles import Bundle
from tests.support.children import children_of, has_ended
from tests.support.deadfuse import dead_fuse
from tests.support.mountns import in_private_mounts, private_mounts, umount

pytestmark = pytest.mark.safety

STOP = 5.0


class Blocking(Watched):
    """Holds the loop up itself, once for each outcome."""

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        super().observed(stamp, observation)
        if isinstance(observation, Outcome):
            select.select([], [], [], LAG * 1.5)


@pytest.mark.fault("control: a loop that is held up")
@private_mounts
def test_a_loop_that_is_held_up_is_noticed(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        dead = on.dead("dead")
        assert run(on, lambda one: one.cleaned(dead), watched=Blocking()).lag > LAG


@pytest.mark.fault("I18", "dead FUSE on rootfs")
@pytest.mark.parametrize("place", ["rootfs", "extra", "work", "runc_state", "config.json"])
@private_mounts
def test_a_dead_filesystem_holds_nobody_up(tmp_path: Path, place: str) -> None:
    with ground(tmp_path) as on:
        others = [on.dead(f"other-{number}") for number in range(3)]
        stuck = on.dead("stuck")
        target = {"work": stuck.work, "runc_state": stuck.runc_state}.get(place, stuck.path / place)
        if place == "rootfs":
            umount(target)
        if place == "extra":
            target.mkdir()
        server = dead_fuse(target)
        try:
            watched = run(on, lambda one: one.cleaned(*others))
        finally:
            os.close(server)
        assert watched.lag < LAG
        assert on.harm() == []


@pytest.mark.fault("I18", "slow filesystem")
@private_mounts
def test_a_filesystem_that_crawls_holds_nobody_up(tmp_path: Path) -> None:
    """Every call of every worker takes a thousand times as long as it should."""
    straced.needed()

    with ground(tmp_path) as on:
        bundles = [on.dead(f"many-{number}") for number in range(8)]
        calls = "openat2,unlinkat,umount2,renameat2,statx,getdents64"

        def until(watched: Watched) -> bool:
            return watched.cleaned(*bundles)

        with slowed(calls, 20_000) as slow:
            watched = run(on, until, before=slow)
        assert watched.lag < LAG
        assert on.harm() == []


@contextmanager
def slowed(calls: str, microseconds: int) -> Iterator[Callable[[Opened], None]]:
    """Give a function that makes the calls of a session's first worker slow."""
    straces: list[subprocess.Popen[bytes]] = []

    def slow(session: Opened) -> None:
        fork_server = session.pool.fork_server
        command = ["strace", "-qq", "-f", "-p", str(fork_server), "-o", "/dev/null", "-e"]
        inject = f"inject={calls}:delay_enter={microseconds}"
        straces.append(subprocess.Popen([*command, inject], stderr=subprocess.DEVNULL))
        wait_for(lambda: f"TracerPid:\t{straces[0].pid}\n" in status_of(fork_server))

    try:
        yield slow
    finally:
        for strace in straces:
            strace.terminate()
            strace.wait()


def status_of(pid: int | None) -> str:
    return Path(f"/proc/{pid}/status").read_text()


# ------------------------------------------------------------------------------ frozen, stuck


@dataclass
class Command:
    """`run --enforce` under way."""

    child: "subprocess.Popen[bytes]"
    log: Path

    def workers(self) -> list[int]:
        """The processes below its fork server."""
        return [
            pid for fork_server in children_of(self.child.pid) for pid in children_of(fork_server)
        ]

    def end(self) -> float:
        """Send SIGTERM and give the seconds until its end."""
        begin = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(STOP * 3)
        took = time.monotonic() - begin
        assert code == 128 + signal.SIGTERM
        assert "Traceback" not in self.log.read_text()
        return took


@contextmanager
def command(on: Ground) -> Iterator[Command]:
    """Have `run --enforce` under way; it is killed in the end if it has not ended."""
    words = on.words("run", "--enforce", "--grace", "0s", "--threshold", "0s", "-v")
    log = on.site.base / "log"
    with log.open("wb") as stderr:  # not a pipe: a worker that cannot die would keep it open
        child = subprocess.Popen(
            words,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield Command(child, log)
    finally:
        child.kill()
        child.wait()


@pytest.mark.fault("I18", "frozen filesystem under work")
def test_a_frozen_filesystem_under_the_work_directory_holds_nobody_up(tmp_path: Path) -> None:
    in_private_mounts(lambda: _frozen(tmp_path))


def _frozen(base: Path) -> None:
    with ground(base) as on:
        stuck, others = on.dead("stuck"), [on.dead(f"other-{number}") for number in range(3)]
        _on_frozen_disk(on, stuck, others)
        assert on.harm() == []


def _on_frozen_disk(on: Ground, stuck: Bundle, others: list[Bundle]) -> None:
    namespace = stuck.work.parent

    def fill() -> None:
        for bundle in (stuck, *others):
            bundle.work.mkdir(parents=True, exist_ok=True)
        (stuck.work / "data").write_text("x" * 10_000)

    # The mount is above the namespace, where a disk would be: all work directories are frozen.
    top = namespace.parent
    alive = top / "alive"
    kept = sorted(alive.rglob("*"))
    with frozen_disk(top, fill) as thaw:
        watched = run(on, lambda one: all(work_dir_began(b) for b in (stuck, *others)))
        assert watched.lag < LAG
        thaw()
        done = run(on, lambda one: not any(b.path.exists() for b in (stuck, *others)))
        assert done.lag < LAG
        assert not stuck.work.exists()
    assert sorted(alive.rglob("*")) == kept


@pytest.mark.fault("I18", "SIGTERM with a stuck worker")
@private_mounts
def test_sigterm_ends_a_run_in_time_though_a_worker_is_stuck(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        large = on.dead("large", mounted=False)
        for number in range(60_000):
            os.mknod(large.path / f"{number}")
        with command(on) as running:
            wait_for(lambda: not large.path.exists())  # it has its hidden name
            stuck = running.workers()
            for pid in stuck:
                os.kill(pid, signal.SIGSTOP)
            assert hidden_of(large) is not None, "it was too fast to be stuck"
            assert running.end() < STOP
            wait_for(lambda: all(has_ended(pid) for pid in stuck))
        assert on.run("clean", "--grace", "0s", "--yes").code == 0
        assert hidden_of(large) is None
        assert on.harm() == []


@pytest.mark.fault("I18", "SIGTERM with a stuck worker", "frozen filesystem under work")
def test_sigterm_ends_a_run_in_time_though_a_disk_is_frozen(tmp_path: Path) -> None:
    in_private_mounts(lambda: _frozen_end(tmp_path))


def _frozen_end(base: Path) -> None:
    with ground(base) as on:
        stuck = on.dead("stuck")
        top = stuck.work.parent.parent

        def fill() -> None:
            stuck.work.mkdir(parents=True, exist_ok=True)
            (stuck.work / "data").write_text("x" * 10_000)

        with frozen_disk(top, fill) as thaw, command(on) as running:
            wait_for(lambda: work_dir_began(stuck))
            assert running.end() < STOP
            assert stuck.path.exists(), "the bundle goes last"
            thaw()
            assert on.run("clean", "--grace", "0s", "--yes").code == 0
            assert not stuck.path.exists()
        assert on.harm() == []
