"""The end of a process is told once, soon, and to everybody whom it concerns."""

import ctypes
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, HintKind, Resync, ResyncKind
from reconciler.watch.exits import ExitWatch
from tests.support.handles import open_files
from tests.support.mountns import in_private_mounts
from tests.watch.support import Inbox, running, turn, wake_ups

pytestmark = pytest.mark.kernel

CLONE_NEWPID = 0x20000000
KEY = BundleKey("ns", "c1")
OTHER = BundleKey("ns", "c2")
Start = Callable[[], subprocess.Popen[bytes]]


@contextmanager
def processes() -> Iterator[Start]:
    """Start processes that sleep, and end those that are left."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"]))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def set_next_pid(pid: int) -> None:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))


@pytest.fixture
def start() -> Iterator[Start]:
    with processes() as begin:
        yield begin


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def test_every_role_has_its_own_hint(start: Start) -> None:
    init, shim, holder = start(), start(), start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=init.pid, shim=shim.pid)
        watch.expect_holders(KEY, [holder.pid])
        for process, kind in (
            (init, HintKind.INIT_EXIT),
            (shim, HintKind.SHIM_EXIT),
            (holder, HintKind.HOLDER_EXIT),
        ):
            inbox.forget()
            end(process)
            await inbox.hint("ns", "c1", kind)
            assert inbox.received == [Hint(KEY, kind)]
    assert len(watch) == 0


async def test_a_shared_shim_concerns_all_its_bundles_and_costs_one_handle(start: Start) -> None:
    shim = start()
    keys = [BundleKey("ns", f"c{number}") for number in range(30)]
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        for key in keys:
            watch.expect(key, init=None, shim=shim.pid)
        assert len(watch) == 1
        end(shim)
        await inbox.until(lambda: len(inbox.received) == 30)
    assert set(inbox.hints(HintKind.SHIM_EXIT)) == set(keys)


async def test_a_process_dead_already_is_told_at_once_and_only_once(start: Start) -> None:
    process = start()
    end(process)
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        for _ in range(3):  # a look after each hint would say the same again
            watch.expect(KEY, init=process.pid, shim=None)
        await inbox.hint("ns", "c1", HintKind.INIT_EXIT)
        assert inbox.received == [Hint(KEY, HintKind.INIT_EXIT)]


async def test_what_died_before_it_ran_is_told_when_it_runs(start: Start) -> None:
    process = start()
    end(process)
    watch, inbox = ExitWatch(), Inbox()
    watch.expect(KEY, init=process.pid, shim=None)
    async with running(watch, inbox):
        await inbox.hint("ns", "c1", HintKind.INIT_EXIT)


async def test_a_zombie_is_told_once_and_does_not_spin(start: Start) -> None:
    zombie = start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=zombie.pid, shim=None)
        zombie.kill()  # and nobody reaps it
        await inbox.hint("ns", "c1", HintKind.INIT_EXIT)
        for _ in range(5):
            watch.expect(KEY, init=None, shim=None)
            watch.expect(KEY, init=zombie.pid, shim=None)
            await turn()
        assert len(watch) == 0
    assert inbox.received == [Hint(KEY, HintKind.INIT_EXIT)]


async def test_a_zombie_looked_at_again_and_again_is_told_once(start: Start) -> None:
    zombie = start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=None, shim=zombie.pid)
        zombie.kill()
        await inbox.hint("ns", "c1", HintKind.SHIM_EXIT)
        for _ in range(20):
            watch.expect(KEY, init=None, shim=zombie.pid)
            await turn()
    assert inbox.received == [Hint(KEY, HintKind.SHIM_EXIT)]


async def test_another_init_takes_the_place_of_the_first(start: Start) -> None:
    first, second = start(), start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=first.pid, shim=None)
        watch.expect(KEY, init=second.pid, shim=None)
        end(first)
        end(second)
        await inbox.hint("ns", "c1", HintKind.INIT_EXIT)
    assert inbox.received == [Hint(KEY, HintKind.INIT_EXIT)]


async def test_what_is_forgotten_is_not_told(start: Start) -> None:
    shim = start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=None, shim=shim.pid)
        watch.expect(OTHER, init=None, shim=shim.pid)
        watch.forget(KEY)
        end(shim)
        await inbox.hint("ns", "c2", HintKind.SHIM_EXIT)
        watch.forget(OTHER)
        watch.forget(OTHER)
    assert inbox.received == [Hint(OTHER, HintKind.SHIM_EXIT)]


async def test_the_end_of_containerd_is_a_doubt(start: Start) -> None:
    first, second = start(), start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect_containerd(first.pid)
        watch.expect_containerd(None)  # it gave no answer: that ends no watch
        end(first)
        await inbox.resync(ResyncKind.CONTAINERD)
        watch.expect_containerd(first.pid)
        watch.expect_containerd(second.pid)
        assert inbox.received == [Resync(ResyncKind.CONTAINERD)]
        end(second)
        await inbox.until(lambda: len(inbox.received) == 2)


async def test_what_exceeds_the_budget_is_counted_and_taken_in_later(start: Start) -> None:
    some = [start() for _ in range(5)]
    watch, inbox = ExitWatch(budget=2), Inbox()
    async with running(watch, inbox):
        for number, process in enumerate(some):
            watch.expect(BundleKey("ns", f"{number}"), init=process.pid, shim=None)
        assert (len(watch), len(watch._unwatched)) == (2, 3)
        for process in some:
            process.kill()  # in any order: each frees a handle for one that waits
        await inbox.until(lambda: len(inbox.received) == 5)
        assert (len(watch), len(watch._unwatched)) == (0, 0)


async def test_what_waits_for_a_handle_can_be_forgotten(start: Start) -> None:
    first, second = start(), start()
    watch, inbox = ExitWatch(budget=1), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=first.pid, shim=None)
        watch.expect(OTHER, init=second.pid, shim=None)
        assert len(watch._unwatched) == 1
        watch.forget(KEY)
        assert (len(watch), len(watch._unwatched)) == (1, 0)
        watch.forget(OTHER)
        assert (len(watch), len(watch._unwatched)) == (0, 0)


@pytest.mark.parametrize("pid", [0, -1, 1 << 31, 1 << 70])
async def test_a_pid_that_cannot_be_is_ignored(pid: int) -> None:
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=pid, shim=pid)
        assert (len(watch), len(watch._unwatched)) == (0, 0)
    assert inbox.received == []


def test_without_a_handle_left_it_counts_and_does_not_fail(start: Start) -> None:
    """Really without: a child with a limit of few open files."""
    process = start()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            import resource

            watch = ExitWatch()
            # Room for two above whatever is open, also where the numbers below have no gap.
            limit = 3 + max(int(number) for number in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            spare = [os.dup(0) for _ in range(limit) if _can_dup()]
            watch.expect(KEY, init=process.pid, shim=None)
            assert (len(watch), len(watch._unwatched)) == (0, 1)
            for _ in range(2):
                os.close(spare.pop())
            watch.expect(KEY, init=process.pid, shim=None)
            assert (len(watch), len(watch._unwatched)) == (1, 0)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def _can_dup() -> bool:
    try:
        os.close(os.dup(0))
    except OSError:
        return False
    return True


def test_another_process_of_the_same_number_is_told_anew() -> None:
    """In a pid namespace of its own, where the next number can be chosen."""

    async def reuse() -> None:
        watch, inbox = ExitWatch(), Inbox()
        async with running(watch, inbox):
            with processes() as start:
                first = start()
                watch.expect(KEY, init=first.pid, shim=None)
                end(first)
                await inbox.hint("ns", "c1", HintKind.INIT_EXIT)
                set_next_pid(first.pid)
                second = start()
                assert second.pid == first.pid
                watch.expect(KEY, init=None, shim=None)
                watch.expect(KEY, init=second.pid, shim=None)
                assert len(watch) == 1
                end(second)
                await inbox.until(lambda: len(inbox.received) == 2)

    def in_pid_namespace() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
        child = os.fork()  # the first one there; it may run a loop, the other end waits
        if child == 0:
            code = 1
            try:
                anyio.run(reuse)
                code = 0
            except BaseException:  # noqa: BLE001 -- told by the exit code, and here
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    in_private_mounts(in_pid_namespace)


async def test_cancelling_closes_everything(start: Start) -> None:
    some = [start() for _ in range(10)]
    before = open_files()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        for number, process in enumerate(some):
            watch.expect(BundleKey("ns", f"{number}"), init=process.pid, shim=process.pid)
        assert len(open_files() - before) >= 11
    assert open_files() <= before


async def test_a_forked_child_keeps_no_end_alive(start: Start) -> None:
    """A handle inherited by a fork must not be told of again and again."""
    process = start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=process.pid, shim=None)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        try:
            end(process)
            await inbox.hint("ns", "c1", HintKind.INIT_EXIT)
            await turn()
            assert inbox.received == [Hint(KEY, HintKind.INIT_EXIT)]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 -- it was just killed


async def test_nothing_wakes_up_between_ends(start: Start) -> None:
    process = start()
    watch, inbox = ExitWatch(), Inbox()
    async with running(watch, inbox):
        watch.expect(KEY, init=process.pid, shim=None)
        await turn()
        turns = await wake_ups(0.3)
    assert turns <= 2
