"""Faults of the catalogue that no other test shows, each beside live tasks and canaries."""

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from reconciler.model.outcome import Outcome, Result, StepResult
from tests.safety.ground import NOW, Ground, ground, wait_for
from tests.safety.populated import populate
from tests.safety.working import working
from tests.support.bundles import CGROUPS, Bundle
from tests.support.canary import plant
from tests.support.mountns import MS_BIND, MS_RDONLY, MS_REMOUNT, mount, private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

WARNED = StepResult.WARNING


def in_work(on: Ground, bundle: Bundle) -> Outcome:
    """Have a worker clean it."""

    async def main() -> Outcome:
        async with working(on, "whole") as work:
            return await work.do(bundle)

    return anyio.run(main)


def hierarchy(name: str) -> Path:
    """Where one controller of version 1 is mounted."""
    if not (CGROUPS / name).is_dir():
        pytest.skip(f"no cgroup hierarchy of version 1 for {name}")
    return CGROUPS / name


# ------------------------------------------------------------------------------------ removal


@pytest.mark.fault(".id existing when we rename", "hidden .id")
@private_mounts
def test_a_hidden_directory_of_the_id_is_neither_in_the_way_nor_touched(tmp_path: Path) -> None:
    """containerd's own rename would fail on it for ever."""
    with ground(tmp_path) as on:
        dead = on.dead("dead")
        on.canaries.append(plant(dead.path.parent / f".{dead.path.name}"))
        ran = on.run("clean", *NOW)
        assert ran.code == 0, ran
        assert (dead.left(), dead.mounts()) == ([], [])
        assert "hidden-bundle" in on.run("scan", "-o", "json").out
        assert on.harm() == []


@contextmanager
def frozen(group: Path) -> Iterator[None]:
    state = group / "freezer.state"
    state.write_text("FROZEN")
    wait_for(lambda: state.read_text().strip() == "FROZEN")
    try:
        yield
    finally:
        state.write_text("THAWED")


@pytest.mark.fault("cgroup frozen", "cgroup populated")
@private_mounts
def test_a_frozen_task_lives(tmp_path: Path) -> None:
    """It neither answers nor runs, and nobody may take that for death."""
    with ground(tmp_path) as on:
        paused = on.dead("paused")
        group = next(g for g in paused.cgroups if hierarchy("freezer") in g.parents)
        process = populate((group,))
        left = paused.left()
        try:
            with frozen(group):
                verdict = on.run("scan", "-o", "json").verdicts()[paused.path.name]
                assert on.run("clean", *NOW).code == 0
                assert (paused.left(), len(paused.mounts())) == (left, 1)
            assert verdict == "orphaned"
            assert process.alive
        finally:
            process.end()
        assert on.harm() == []


@pytest.mark.fault("cgroup read-only")
@private_mounts
def test_cgroups_that_cannot_be_removed_are_a_warning(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        dead = on.dead("dead")
        for place in sorted(CGROUPS.iterdir()):
            mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        outcome = in_work(on, dead)
        for place in sorted(CGROUPS.iterdir()):
            mount(None, place, None, MS_REMOUNT | MS_BIND)
        assert outcome.result is Result.CLEANED, outcome
        (told,) = (one for one in outcome.steps if one.step == "cgroup")
        assert told.result is WARNED, told
        assert os.strerror(errno.EROFS).lower() in told.detail.lower()
        assert set(dead.left()) == set(dead.cgroups)
        assert on.harm() == []


# ------------------------------------------------------------------------------------ liveness


@pytest.mark.fault("wedged shim", "live container", "stopped task")
@private_mounts
def test_a_shim_that_hangs_lives(tmp_path: Path) -> None:
    """Stopped, and its backlog full: it accepts nobody, and is nobody's leftover."""
    with ground(tmp_path) as on:
        dead, clients = on.dead("dead"), []
        for live in on.live:
            os.kill(live.shim.pid, signal.SIGSTOP)
            while True:
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                clients.append(client)
                if client.connect_ex(os.fsencode(live.bundle.socket)) == errno.EAGAIN:
                    break
        try:
            verdicts = on.run("scan", "-o", "json").verdicts()
            assert on.run("clean", *NOW).code == 0
        finally:
            for live in on.live:
                os.kill(live.shim.pid, signal.SIGCONT)
            for client in clients:
                client.close()
        names = [live.bundle.path.name for live in on.live]
        assert [verdicts[name] for name in names] == ["running", "stopped"]
        assert dead.left() == []
        assert on.harm() == []


@pytest.mark.fault("sandbox without task")
@private_mounts
def test_a_sandbox_whose_task_was_never_made_is_containerds(tmp_path: Path) -> None:
    """2.x: a shim serves the sandbox, and no file names an init, nor even a spec."""
    with ground(tmp_path) as on:
        sandbox = on.live[1].bundle
        for name in ("init.pid", "config.json", "options.json", "runtime", "log.json"):
            (sandbox.path / name).unlink()
        (sandbox.runc_state / "state.json").unlink()
        on.remember()
        dead = on.dead("dead")
        assert on.run("scan", "-o", "json").verdicts()[sandbox.path.name] in {"stopped", "starting"}
        assert on.run("clean", *NOW, "--settle", "0s").code == 0
        assert dead.left() == []
        assert on.harm() == []


@pytest.mark.fault("host-pid container whose init is gone", "I14")
@private_mounts
def test_processes_that_outlive_their_init_keep_the_bundle(tmp_path: Path) -> None:
    """Without a pid namespace of its own a container does not end with its init."""
    with ground(tmp_path) as on:
        task = on.dead("host-pid")
        member = populate(tuple(g for g in task.cgroups if "pids" in g.parts))
        left = task.left()
        try:
            assert on.run("scan", "-o", "json").verdicts()[task.path.name] == "orphaned"
            assert on.run("clean", *NOW).code == 0
            assert (task.left(), len(task.mounts())) == (left, 1)
            assert member.alive
        finally:
            member.end()
        assert on.harm() == []


# ------------------------------------------------------------------------------------ no room


@contextmanager
def confined(pid: int, controller: str, limit: str, value: str) -> Iterator[None]:
    """Have a process in a cgroup of its own with a limit; in the end it is back where it was."""
    top = hierarchy(controller)
    group = top / f"reconciler-test-limit-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / limit).write_text(value)
        yield
    finally:
        for one in (group / "cgroup.procs").read_text().split():
            (top / "cgroup.procs").write_text(one)
        deadline = time.monotonic() + 10
        while group.exists():
            try:
                group.rmdir()
            except OSError:
                assert time.monotonic() < deadline, "its cgroup stays busy"


@pytest.mark.fault("OOM kill")
@private_mounts
def test_a_worker_without_memory_is_killed_and_the_next_one_does_it(tmp_path: Path) -> None:
    async def main(on: Ground) -> list[Outcome]:
        async with working(on, "whole") as work:
            bundle = on.dead("dead")
            for number in range(20_000):
                (bundle.path / f"entry-{number}").touch()
            with confined(await work.worker(), "memory", "memory.limit_in_bytes", "65536"):
                first = await work.do(bundle)
            return [first, await work.do(bundle)]

    with ground(tmp_path) as on:
        first, second = anyio.run(main, on)
        assert first.result is Result.FAILED, first
        assert "SIGKILL" in first.detail
        assert second.result is Result.CLEANED, second
        assert on.harm() == []


@pytest.mark.fault("pids.max")
@private_mounts
def test_where_no_process_can_be_made_nothing_is_lost(tmp_path: Path) -> None:
    async def main(on: Ground) -> list[Outcome]:
        async with working(on, "whole") as work:
            bundle, fork_server = on.dead("dead"), work.pool.fork_server
            assert fork_server is not None
            with confined(fork_server, "pids", "pids.max", "1"):
                first = await work.do(bundle)
                assert bundle.path.exists()
            return [first, await work.do(bundle)]

    with ground(tmp_path) as on:
        first, second = anyio.run(main, on)
        assert first.result is Result.FAILED, first
        assert first.steps == ()
        assert second.result is Result.CLEANED, second
        assert on.harm() == []
