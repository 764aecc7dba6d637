"""The guards: pure rules as a table, and what is measured from right and wrong places."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.clock import SystemClock
from reconciler.model.evidence import Answer, ShimProcess
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import TASKS, Layout
from reconciler.model.observations import Guard
from reconciler.probe.processes import scan
from reconciler.worker.guards import NodeGuards, Preflight, refusals, unmeasured
from reconciler.worker.lock import DIRECTORY, InstanceLock, Taken, directory
from reconciler.worker.messages import PreflightReport, WorkerScope
from reconciler.worker.pool import Limits, WorkerPool
from reconciler.worker.preflight import Timed, measure, references
from tests.safety.ground import wait_for
from tests.support import hostile, mountns
from tests.support.children import WITHOUT_FIRST_THREAD, wait_for_its_first_thread_to_end
from tests.support.mountns import private_mounts

YES, NO, NONE = Answer.YES, Answer.NO, Answer.NONE

HERE = PreflightReport(
    reference="containerd (pid 7)",
    same_pids=YES,
    same_time=YES,
    same_mounts=YES,
    shared_tree=NONE,
    fstype="tmpfs",
    openat2=True,
)
GOOD = Preflight(HERE, tree=b"/run/containerd/io.containerd.runtime.v2.task", allow_disk=False)


def at(
    *, allow_disk: bool = False, **other: Answer | str | bool | tuple[str, ...] | None
) -> Preflight:
    """Stand as well as can be, but for this."""
    return replace(GOOD, report=msgspec.structs.replace(HERE, **other), allow_disk=allow_disk)


def test_a_good_place_is_not_refused() -> None:
    assert refusals(GOOD) == ()


@pytest.mark.parametrize(
    "fine",
    [
        at(same_mounts=NO, shared_tree=YES),
        at(same_mounts=NONE, shared_tree=YES),
        at(fstype="ext4", allow_disk=True),
        at(fstype=None),
    ],
)
def test_what_is_as_safe_is_not_refused_either(fine: Preflight) -> None:
    assert refusals(fine) == ()


@pytest.mark.fault("openat2 ENOSYS, EAGAIN")
@pytest.mark.parametrize(
    ("bad", "guard", "says"),
    [
        (at(same_pids=NO), Guard.PID_NAMESPACE, "hostPID"),
        (at(same_pids=NONE), Guard.PID_NAMESPACE, "cannot determine"),
        (at(same_time=NO), Guard.TIME_NAMESPACE, "time namespace"),
        (at(same_time=NONE), Guard.TIME_NAMESPACE, "cannot determine"),
        (at(same_mounts=NO), Guard.MOUNT_NAMESPACE, "PrivateTmp"),
        (at(same_mounts=NONE), Guard.MOUNT_NAMESPACE, "cannot determine"),
        (at(same_mounts=NO, shared_tree=NO), Guard.MOUNT_NAMESPACE, "Bidirectional"),
        (at(fstype="ext4"), Guard.STATE_ROOT, "allow_disk"),
        (at(fstype=""), Guard.STATE_ROOT, "cannot determine"),
        (at(fstype="", allow_disk=True), Guard.STATE_ROOT, "cannot determine"),
        (at(openat2=False), Guard.KERNEL, "openat2"),
        (at(lacking=("CAP_SYS_ADMIN",)), Guard.PRIVILEGES, "CAP_SYS_ADMIN"),
        (replace(GOOD, other=42), Guard.INSTANCE, "pid 42"),
        (replace(GOOD, other=0), Guard.INSTANCE, "another process"),
        (replace(GOOD, lock_trouble="read-only"), Guard.INSTANCE, "read-only"),
    ],
)
def test_each_flaw_is_refused_by_its_guard_in_one_line(
    bad: Preflight, guard: Guard, says: str
) -> None:
    (refusal,) = refusals(bad)
    assert refusal.guard is guard
    assert says in refusal.reason
    assert "\n" not in refusal.reason
    assert "; " in refusal.reason  # what is wrong, and what to do


def layout_at(base: Path) -> Layout:
    state = os.fsencode(base)
    os.makedirs(base / TASKS.decode(), exist_ok=True)
    return Layout(state, state, state + b"/c.sock", state)


def listen(base: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(base / "c.sock"))
    listener.listen()
    return listener


@contextmanager
def sleeping_in(directory: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process work in a directory, as a shim does in its bundle."""
    directory.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(command or ("sleep", "60"), cwd=directory) as process:
        try:
            yield process
        finally:
            process.kill()


KEY = BundleKey("default", "c1")
BUNDLE = f"{TASKS.decode()}/default/c1"


def compared_with(layout: Layout, *shims: ShimProcess) -> list[int]:
    return [one.pid for one in references(layout, shims)]


def test_containerd_is_compared_with_first_then_a_shim_then_pid_1(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    with sleeping_in(tmp_path / BUNDLE) as shim:
        ours = ShimProcess(KEY, shim.pid, escape(layout.address))
        assert compared_with(layout) == [1]
        assert compared_with(layout, ours) == [shim.pid, 1]
        with listen(tmp_path):
            assert compared_with(layout, ours) == [os.getpid(), shim.pid, 1]


def test_a_shim_is_known_by_the_bundle_it_works_in_and_not_by_its_address(tmp_path: Path) -> None:
    """A node in a container has containerd's usual paths, and its shims are seen from here."""
    layout = layout_at(tmp_path / "ours")
    with (
        sleeping_in(tmp_path / "ours" / BUNDLE) as ours,
        sleeping_in(tmp_path / "theirs" / BUNDLE) as theirs,
        sleeping_in(tmp_path) as somewhere,
    ):
        same = escape(layout.address)
        assert compared_with(layout, ShimProcess(KEY, theirs.pid, same)) == [1]
        shims = (
            ShimProcess(KEY, somewhere.pid, same),
            ShimProcess(KEY, somewhere.pid, "/another.sock"),
            ShimProcess(KEY, theirs.pid, same),
            ShimProcess(KEY, ours.pid, "/another.sock"),
        )
        assert compared_with(layout, *shims) == [ours.pid, somewhere.pid, 1]


def test_a_shim_whose_bundle_was_removed_under_it_may_still_be_ours(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    with sleeping_in(tmp_path / BUNDLE) as shim:
        (tmp_path / BUNDLE).rmdir()
        ours = ShimProcess(KEY, shim.pid, escape(layout.address))
        assert compared_with(layout, ours) == [shim.pid, 1]


@pytest.mark.safety
@pytest.mark.fault("a pretended shim in its own user and mount namespace")
@pytest.mark.kernel
def test_a_pretended_shim_is_never_compared_with(tmp_path: Path) -> None:
    """Not even in the very bundle: containerd's directories let anybody pass."""
    layout = layout_at(tmp_path)
    bundle = tmp_path / BUNDLE
    bundle.mkdir(parents=True)
    with hostile.attacked(hostile.own_namespaces, KEY.namespace, KEY.id, cwd=bundle):
        assert compared_with(layout, *(one for one in scan().shims if one.key == KEY)) == [1]


@pytest.mark.safety
@pytest.mark.kernel
def test_a_process_of_another_user_namespace_is_not_compared_with_for_its_address(
    tmp_path: Path,
) -> None:
    layout = layout_at(tmp_path)
    words = ["unshare", "-U", "sleep", "1000"]
    with sleeping_in(tmp_path, *words) as other, sleeping_in(tmp_path) as ours:
        own = os.readlink("/proc/self/ns/user")
        wait_for(lambda: os.readlink(f"/proc/{other.pid}/ns/user") != own)
        shims = [ShimProcess(KEY, one.pid, escape(layout.address)) for one in (other, ours)]
        assert compared_with(layout, *shims) == [ours.pid, 1]


def test_a_shim_that_has_just_ended_says_nothing(tmp_path: Path) -> None:
    """One killed between the pass over /proc and the question, whether or not it was reaped."""
    layout = layout_at(tmp_path)
    with sleeping_in(tmp_path / BUNDLE) as shim:
        scanned = ShimProcess(KEY, shim.pid, escape(layout.address))
        assert measured(layout, (scanned,)).reference == f"a shim (pid {shim.pid})"
        shim.kill()
        os.waitid(os.P_PID, shim.pid, os.WEXITED | os.WNOWAIT)
        assert measured(layout, (scanned,)).reference == "pid 1"
        shim.wait()
        assert measured(layout, (scanned,)).reference == "pid 1"


def test_a_process_that_has_left_its_namespaces_says_nothing(tmp_path: Path) -> None:
    """One that is being ended has none from some time before its pidfd says that it ended."""
    layout = layout_at(tmp_path)
    with sleeping_in(tmp_path / BUNDLE, sys.executable, "-c", WITHOUT_FIRST_THREAD) as shim:
        wait_for_its_first_thread_to_end(shim.pid)
        scanned = ShimProcess(KEY, shim.pid, escape(layout.address))
        report = measured(layout, (scanned,))
        assert report.reference == "pid 1"
        assert Answer.NO not in (report.same_pids, report.same_time, report.same_mounts)


@private_mounts
def test_an_own_mount_namespace_is_refused_unless_the_tree_is_shared(tmp_path: Path) -> None:
    """We have left the namespace of the process that made us and that stands for containerd."""
    layout = layout_at(tmp_path)
    shim = ShimProcess(BundleKey("default", "c1"), os.getppid())
    report = measured(layout, (shim,))
    assert report.reference.startswith("a shim")
    standing = Preflight(report, layout.tasks, allow_disk=True)
    assert [one.guard for one in refusals(standing)] == [Guard.MOUNT_NAMESPACE]


@pytest.mark.fault("I3")
@private_mounts
def test_a_tree_on_disk_is_refused_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "mem").mkdir()
    mountns.tmpfs(tmp_path / "mem")
    on_disk, in_memory = layout_at(tmp_path / "disk"), layout_at(tmp_path / "mem")
    assert measured(in_memory, ()).fstype == "tmpfs"
    report = measured(on_disk, ())
    if report.fstype == "tmpfs":
        pytest.skip("temporary files are on a tmpfs here")
    standing = Preflight(report, on_disk.tasks, allow_disk=False)
    assert Guard.STATE_ROOT in {one.guard for one in refusals(standing)}


CHECK = """
import sys
import anyio
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import WorkerPool
from reconciler.worker.guards import NodeGuards
from reconciler.model.layout import Layout

async def main():
    base = sys.argv[1].encode()
    layout = Layout(base, base, base + b"/c.sock", base)
    async with WorkerPool(WorkerScope(layout)) as pool:
        for one in await NodeGuards(layout, pool.preflight, None, allow_disk=True).check():
            print(one.guard.value)

anyio.run(main)
"""


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("options", "guards"),
    [
        ([], set()),
        (["--mount", "--propagation", "slave"], {"mount namespace"}),
        (["--mount", "--propagation", "private"], {"mount namespace"}),
        (["--pid", "--fork"], {"pid namespace", "time namespace", "mount namespace"}),
        (["--time", "--fork"], {"time namespace"}),
    ],
)
@pytest.mark.parametrize("containerd", [True, False])
def test_a_foreign_namespace_is_refused(
    tmp_path: Path, options: list[str], guards: set[str], containerd: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make namespaces")
    layout_at(tmp_path)
    command = ["unshare", *options, sys.executable, "-c", CHECK, str(tmp_path)]
    with listen(tmp_path) if containerd else socket.socket():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(done.stdout.splitlines())
    assert guards <= found if "--pid" in options and not containerd else found == guards
    assert bool(found) == bool(options)


def test_the_lock_is_one_per_tree_whatever_its_path(tmp_path: Path) -> None:
    first, second = (InstanceLock(os.fsencode(tmp_path / "locks")) for _ in range(2))
    try:
        assert first.take(1, 2) is None
        assert first.take(1, 2) is None
        assert second.take(1, 2) == Taken(os.getpid())
        assert second.take(1, 3) is None
        first.release()
        assert second.take(1, 2) is None
        assert first.take(1, 3) is None
    finally:
        first.release()
        second.release()


HOLD = """
import sys
from reconciler.worker.lock import InstanceLock
lock = InstanceLock(sys.argv[1].encode())
assert lock.take(1, 2) is None
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault("I20")
def test_the_kernel_frees_the_lock_of_a_killed_instance(tmp_path: Path) -> None:
    mine = InstanceLock(os.fsencode(tmp_path))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            assert mine.take(1, 2) == Taken(other.pid)
        finally:
            other.kill()
    assert mine.take(1, 2) is None
    mine.release()


def test_the_lock_directory_can_be_named() -> None:
    assert directory({}) == DIRECTORY
    assert directory({"RECONCILER_LOCK_DIR": "/elsewhere"}) == b"/elsewhere"


@pytest.mark.fault("I20", "second instance")
async def test_a_second_instance_is_refused_and_an_observer_is_not(tmp_path: Path) -> None:
    async def stand() -> PreflightReport:
        return HERE

    layout = layout_at(tmp_path)
    locks = os.fsencode(tmp_path / "locks")
    first, second = InstanceLock(locks), InstanceLock(locks)
    try:
        assert await NodeGuards(layout, stand, first).check() == ()
        (refusal,) = await NodeGuards(layout, stand, second).check()
        assert refusal.guard is Guard.INSTANCE
        assert await NodeGuards(layout, stand, None).check() == ()
    finally:
        first.release()
        second.release()


async def test_no_answer_from_the_worker_is_a_refusal_and_takes_no_lock(tmp_path: Path) -> None:
    async def stand() -> str:
        return "the pass over /proc did not end within 10 s"

    async def stand_well() -> PreflightReport:
        return HERE

    layout = layout_at(tmp_path)
    locks = os.fsencode(tmp_path / "locks")
    first, second = InstanceLock(locks), InstanceLock(locks)
    try:
        assert await NodeGuards(layout, stand, first).check() == unmeasured(await stand())
        assert await NodeGuards(layout, stand_well, second).check() == ()
    finally:
        first.release()
        second.release()


async def test_a_worker_measures_where_it_stands_itself(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    with listen(tmp_path):
        async with WorkerPool(WorkerScope(layout)) as pool:
            report = await pool.preflight()
    assert isinstance(report, PreflightReport)
    assert report.reference == f"containerd (pid {os.getpid()})"
    assert (report.same_pids, report.same_time, report.same_mounts) == (YES, YES, YES)
    assert report.openat2


def measured(layout: Layout, shims: tuple[ShimProcess, ...]) -> PreflightReport:
    return measure(layout, shims, Timed(SystemClock(), lambda _: None))


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


async def test_a_worker_that_hangs_or_died_is_no_answer(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    async with WorkerPool(WorkerScope(layout), limits=Limits(processes=2.0)) as pool:
        assert isinstance(await pool.preflight(), PreflightReport)
        assert pool.fork_server is not None
        pool.keep_fork_server()
        os.kill(child_of(pool.fork_server), signal.SIGSTOP)
        assert isinstance(await pool.preflight(), str)
        os.kill(pool.fork_server, signal.SIGKILL)
        assert isinstance(await pool.preflight(), str)
