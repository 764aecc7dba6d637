"""The worker pool: every job gets an outcome, whatever happens to the process that does it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import anyio
import pytest

from reconciler.errors import InvariantError
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.worker import running_job
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import Limits, WorkerPool
from tests.support.bundles import DOWN, Bundle, Site, identify, site
from tests.support.children import children_of, has_ended
from tests.support.mountns import private_mounts

NOBODY = Identity(1, 2, 3)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.002)


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- processes set no event
            await anyio.sleep(0.002)


async def handed_over(pool: WorkerPool, bundle: Bundle) -> None:
    """Wait until a worker has the job."""

    def is_there() -> bool:
        job = pool._under_way.get(bundle.key)
        return job is not None and job.worker is not None

    await eventually(is_there)


def fork_server_of(pool: WorkerPool) -> int:
    assert pool.fork_server is not None
    return pool.fork_server


async def first_worker(pool: WorkerPool) -> int:
    """Have a worker made, and give its pid; it is idle then."""
    assert (await pool.scan()).answered
    (pid,) = children_of(fork_server_of(pool))
    return pid


def clean(pool: WorkerPool, bundle: Bundle) -> Callable[[], Coroutine[object, None, Outcome]]:
    return partial(pool.clean, bundle.key, bundle.identity, DOWN)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process still; it may be gone at the end, or be going this very moment."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        yield
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGCONT)
    finally:
        os.close(handle)


class Later:
    """An outcome that will be there."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    async def get(self, ask: Callable[[], Awaitable[Outcome]]) -> None:
        self.outcome = await ask()


def run(
    main: Callable[[Site, WorkerPool], Awaitable[None]],
    base: Path,
    *,
    limits: Limits | None = None,
    runc: str = "runc",
    parallel: int = 8,
) -> None:
    async def whole() -> None:
        with site(base) as made:
            scope = WorkerScope(made.layout, runc)
            async with WorkerPool(scope, limits=limits, parallel=parallel) as pool:
                await main(made, pool)

    anyio.run(whole)


@private_mounts
def test_cleans_a_dead_bundle_whole(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        outcome = await pool.clean(bundle.key, bundle.identity, DOWN)
        assert outcome.result is Result.CLEANED, outcome
        assert bundle.left() == []
        assert bundle.mounts() == []

    run(main, tmp_path)


@pytest.mark.fault("I18")
@private_mounts
def test_a_hung_worker_blocks_its_bundle_and_no_other(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        hanging, other = made.bundle("c1"), made.bundle("c2")
        worker = await first_worker(pool)
        with stopped(worker):
            later = Later()
            async with anyio.create_task_group() as tasks:
                begin = time.monotonic()
                tasks.start_soon(later.get, clean(pool, hanging))
                await handed_over(pool, hanging)
                outcome = await clean(pool, other)()
                assert outcome.result is Result.CLEANED, outcome
                assert later.outcome is None
            took = time.monotonic() - begin
        assert later.outcome is not None
        assert (later.outcome.result, later.outcome.reason) == (Result.BLOCKED, BlockReason.HUNG)
        assert 0.8 < took < 2.0
        wait_until(lambda: has_ended(worker))
        outcome = await clean(pool, hanging)()
        assert outcome.result is Result.CLEANED, outcome

    run(main, tmp_path, limits=Limits(job=0.8))


@private_mounts
def test_a_killed_worker_is_a_failed_outcome_that_names_the_signal(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        worker = await first_worker(pool)
        os.kill(worker, signal.SIGSTOP)
        later = Later()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later.get, clean(pool, bundle))
            await handed_over(pool, bundle)
            os.kill(worker, signal.SIGKILL)
        assert later.outcome is not None
        assert later.outcome.result is Result.FAILED
        assert "SIGKILL" in later.outcome.detail
        outcome = await clean(pool, bundle)()
        assert outcome.result is Result.CLEANED, outcome

    run(main, tmp_path)


@private_mounts
def test_a_worker_that_ended_while_idle_is_not_missed(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        worker = await first_worker(pool)
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: has_ended(worker))
        outcome = await clean(pool, bundle)()
        assert outcome.result is Result.CLEANED, outcome

    run(main, tmp_path)


@private_mounts
def test_a_dead_fork_server_fails_its_jobs_and_is_replaced(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        worker, fork_server = await first_worker(pool), fork_server_of(pool)
        os.kill(worker, signal.SIGSTOP)
        later = Later()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later.get, clean(pool, bundle))
            await handed_over(pool, bundle)
            os.kill(fork_server, signal.SIGKILL)
        assert later.outcome is not None
        assert later.outcome.result is Result.FAILED
        assert "fork server" in later.outcome.detail
        await eventually(lambda: has_ended(worker))
        outcome = await clean(pool, bundle)()
        assert outcome.result is Result.CLEANED, outcome
        assert fork_server_of(pool) != fork_server

    run(main, tmp_path)


@private_mounts
def test_a_fork_server_that_hangs_is_replaced_once_a_job_ran_out_of_time(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        fork_server = fork_server_of(pool)
        os.kill(fork_server, signal.SIGSTOP)
        outcome = await clean(pool, bundle)()
        assert (outcome.result, outcome.reason) == (Result.BLOCKED, BlockReason.HUNG)
        outcome = await clean(pool, bundle)()
        assert outcome.result is Result.CLEANED, outcome
        assert has_ended(fork_server)

    run(main, tmp_path, limits=Limits(job=0.8))


@pytest.mark.fault("SIGTERM with a stuck worker")
@private_mounts
def test_stop_ends_a_stuck_job_in_time_and_lets_nothing_begin(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        stuck, other = made.bundle("c1"), made.bundle("c2")
        worker = await first_worker(pool)
        with stopped(worker):
            later = Later()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(later.get, clean(pool, stuck))
                await handed_over(pool, stuck)
                begin = time.monotonic()
                await pool.stop()
            assert time.monotonic() - begin < 1.0
        assert later.outcome is not None
        assert (later.outcome.result, later.outcome.reason) == (
            Result.BLOCKED,
            BlockReason.INTERRUPTED,
        )
        outcome = await clean(pool, other)()
        assert (outcome.result, outcome.reason) == (Result.BLOCKED, BlockReason.INTERRUPTED)
        assert other.left()

    run(main, tmp_path, limits=Limits(stop=0.3))


@pytest.mark.fault("SIGTERM mid-removal")
@private_mounts
def test_stop_ends_a_long_removal_at_an_entry_and_the_next_run_goes_on(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        for number in range(40_000):
            os.mknod(bundle.path / f"{number}")
        bundle = replace(bundle, identity=identify(bundle.path))
        later = Later()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later.get, clean(pool, bundle))
            await eventually(lambda: not bundle.path.exists())  # it has its hidden name
            await pool.stop()
        assert later.outcome is not None
        assert (later.outcome.result, later.outcome.reason) == (
            Result.BLOCKED,
            BlockReason.INTERRUPTED,
        )
        last = later.outcome.steps[-1]
        assert last.step == "bundle"
        assert last.mutations > 0  # it said so itself: it was not killed
        (hidden,) = bundle.path.parent.iterdir()
        assert last.mutations + len(list(hidden.iterdir())) > 40_000
        async with WorkerPool(WorkerScope(made.layout)) as another:
            key = BundleKey("default", hidden.name)
            outcome = await another.finish(key, bundle.identity)
        assert outcome.result is Result.CLEANED, outcome
        assert not hidden.exists()

    run(main, tmp_path)


@private_mounts
def test_a_cancelled_call_ends_its_worker(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        worker = await first_worker(pool)
        with stopped(worker):
            with anyio.move_on_after(0.1) as scope:
                await clean(pool, bundle)()
            assert scope.cancelled_caught
            await eventually(lambda: has_ended(worker))
        assert bundle.left()

    run(main, tmp_path)


@private_mounts
def test_as_many_at_a_time_as_told(tmp_path: Path) -> None:
    """Each of eight hooks waits until there are as many as told, and then for a fifth more."""

    def at_a_time(parallel: int, base: Path) -> int:
        base.mkdir()
        runc, log = base / "runc", base / "log"
        runc.write_text(
            f"""#!/bin/sh
            echo 1 >> {log}
            for one in $(seq 400); do
                test $(grep -c ^1 {log}) -ge {parallel} && break || sleep 0.05
            done
            sleep 0.2; echo -1 >> {log}; rm -r "$2/$5"
            """
        )
        runc.chmod(0o755)

        async def main(made: Site, pool: WorkerPool) -> None:
            hook: list[dict[str, object]] = [{"path": "/bin/true"}]
            bundles = [made.bundle(f"c{n}", hooks=hook, cgroups=False) for n in range(8)]
            laters = [Later() for _ in bundles]
            async with anyio.create_task_group() as tasks:
                for later, bundle in zip(laters, bundles, strict=True):
                    tasks.start_soon(later.get, clean(pool, bundle))
            assert all(one.outcome and one.outcome.result is Result.CLEANED for one in laters)

        run(main, base, runc=str(runc), parallel=parallel)
        return max(accumulate(map(int, log.read_text().split())))

    assert at_a_time(8, tmp_path / "eight") == 8
    assert at_a_time(2, tmp_path / "two") == 2


@private_mounts
def test_one_bundle_is_never_cleaned_twice_at_a_time(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clean(pool, bundle))
            await handed_over(pool, bundle)
            with pytest.raises(InvariantError, match="already"):
                await clean(pool, bundle)()

    run(main, tmp_path)


@private_mounts
def test_a_sweep_that_hangs_is_no_answer(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        worker = await first_worker(pool)
        with stopped(worker):
            assert not (await pool.scan()).answered
        assert (await pool.scan()).answered

    run(main, tmp_path, limits=Limits(processes=0.5))


@private_mounts
def test_a_program_replaced_on_disk_fails_loudly(tmp_path: Path) -> None:
    async def main(made: Site, pool: WorkerPool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running_job, "VERSION", "another")
            outcome = await pool.clean(BundleKey("default", "c1"), NOBODY, DOWN)
        assert outcome.result is Result.FAILED
        assert "restart" in outcome.detail

    run(main, tmp_path)


@private_mounts
def test_nothing_is_left_running_at_the_end(tmp_path: Path) -> None:
    pids: list[int] = []

    async def main(made: Site, pool: WorkerPool) -> None:
        worker = await first_worker(pool)
        pids.extend((fork_server_of(pool), worker))

    run(main, tmp_path)
    assert len(pids) == 2
    assert all(has_ended(pid) for pid in pids)


PARENT = """
import anyio, sys
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import WorkerPool
from reconciler.model.layout import Layout

async def main():
    async with WorkerPool(WorkerScope(Layout())) as pool:
        assert (await pool.scan()).answered
        print(pool.fork_server, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def test_fork_server_and_workers_end_with_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            fork_server = int(parent.stdout.readline())
            pids = [fork_server, *children_of(fork_server)]
            assert len(pids) == 2
        finally:
            parent.kill()
    wait_until(lambda: all(has_ended(pid) for pid in pids))
