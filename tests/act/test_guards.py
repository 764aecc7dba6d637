"""The guards: pure rules as a table, and what is measured from right and wrong places."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.act.guards import Standing, refusals
from reconciler.act.lock import DIRECTORY, InstanceLock, Taken, directory
from reconciler.act.standing import Post, find_reference, measure
from reconciler.model.evidence import Answer, ShimProcess, Sweep
from reconciler.model.ids import BundleKey
from reconciler.model.layout import TASKS, Layout
from reconciler.model.observations import Guard
from tests.support import mountns
from tests.support.mountns import private_mounts

YES, NO, NONE = Answer.YES, Answer.NO, Answer.NONE

GOOD = Standing(
    reference="containerd (pid 7)",
    same_pids=YES,
    same_time=YES,
    same_mounts=YES,
    shared_tree=NONE,
    tree=b"/run/containerd/io.containerd.runtime.v2.task",
    fstype="tmpfs",
    allow_disk=False,
    openat2=True,
)


def test_a_good_place_is_not_refused() -> None:
    assert refusals(GOOD) == ()


@pytest.mark.parametrize(
    "fine",
    [
        replace(GOOD, same_mounts=NO, shared_tree=YES),
        replace(GOOD, same_mounts=NONE, shared_tree=YES),
        replace(GOOD, fstype="ext4", allow_disk=True),
        replace(GOOD, fstype=None),
    ],
)
def test_what_is_as_safe_is_not_refused_either(fine: Standing) -> None:
    assert refusals(fine) == ()


@pytest.mark.parametrize(
    ("bad", "guard", "says"),
    [
        (replace(GOOD, same_pids=NO), Guard.PID_NAMESPACE, "hostPID"),
        (replace(GOOD, same_pids=NONE), Guard.PID_NAMESPACE, "cannot tell"),
        (replace(GOOD, same_time=NO), Guard.TIME_NAMESPACE, "time namespace"),
        (replace(GOOD, same_time=NONE), Guard.TIME_NAMESPACE, "cannot tell"),
        (replace(GOOD, same_mounts=NO), Guard.MOUNT_NAMESPACE, "PrivateTmp"),
        (replace(GOOD, same_mounts=NONE), Guard.MOUNT_NAMESPACE, "cannot tell"),
        (replace(GOOD, same_mounts=NO, shared_tree=NO), Guard.MOUNT_NAMESPACE, "Bidirectional"),
        (replace(GOOD, fstype="ext4"), Guard.STATE_ROOT, "allow_disk"),
        (replace(GOOD, fstype=""), Guard.STATE_ROOT, "cannot tell"),
        (replace(GOOD, fstype="", allow_disk=True), Guard.STATE_ROOT, "cannot tell"),
        (replace(GOOD, openat2=False), Guard.KERNEL, "openat2"),
        (replace(GOOD, lacking=("CAP_SYS_ADMIN",)), Guard.PRIVILEGES, "CAP_SYS_ADMIN"),
        (replace(GOOD, other=42), Guard.INSTANCE, "pid 42"),
        (replace(GOOD, other=0), Guard.INSTANCE, "another process"),
        (replace(GOOD, lock_trouble="read-only"), Guard.INSTANCE, "read-only"),
    ],
)
def test_each_flaw_is_refused_by_its_guard_in_one_line(
    bad: Standing, guard: Guard, says: str
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


def look(layout: Layout, lock: InstanceLock | None = None, *, allow_disk: bool = True) -> set[str]:
    standing = measure(layout, (), lock, allow_disk=allow_disk)
    return {refusal.guard.value for refusal in refusals(standing)}


def test_containerd_is_compared_with_first_then_a_shim_then_pid_1(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    key = BundleKey(b"default", b"c1")
    shims = (ShimProcess(key, 77, b"/another.sock"), ShimProcess(key, 78, layout.address))
    assert find_reference(layout, ()).pid == 1
    assert find_reference(layout, shims).pid == 78
    with listen(tmp_path):
        assert find_reference(layout, shims).pid == os.getpid()


@private_mounts
def test_an_own_mount_namespace_is_refused_unless_the_tree_is_shared(tmp_path: Path) -> None:
    """We have left the namespace of the process that made us and that stands for containerd."""
    layout = layout_at(tmp_path)
    shim = ShimProcess(BundleKey(b"default", b"c1"), os.getppid())
    standing = measure(layout, (shim,), None, allow_disk=True)
    assert standing.reference.startswith("a shim")
    assert [one.guard for one in refusals(standing)] == [Guard.MOUNT_NAMESPACE]


@private_mounts
def test_a_tree_on_disk_is_refused_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "mem").mkdir()
    mountns.tmpfs(tmp_path / "mem")
    on_disk, in_memory = layout_at(tmp_path / "disk"), layout_at(tmp_path / "mem")
    assert measure(in_memory, (), None, allow_disk=False).fstype == "tmpfs"
    standing = measure(on_disk, (), None, allow_disk=False)
    if standing.fstype == "tmpfs":
        pytest.skip("temporary files are on a tmpfs here")
    assert Guard.STATE_ROOT in {one.guard for one in refusals(standing)}


CHECK = """
import sys
from reconciler.act.guards import refusals
from reconciler.act.standing import measure
from reconciler.model.layout import Layout
base = sys.argv[1].encode()
layout = Layout(base, base, base + b"/c.sock", base)
for one in refusals(measure(layout, (), None, allow_disk=True)):
    print(one.guard.value)
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
from reconciler.act.lock import InstanceLock
lock = InstanceLock(sys.argv[1].encode())
assert lock.take(1, 2) is None
print("held", flush=True)
sys.stdin.read()
"""


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


async def test_a_second_instance_is_refused_and_an_observer_is_not(tmp_path: Path) -> None:
    async def sweep() -> Sweep:
        return Sweep(answered=True)

    layout = layout_at(tmp_path)
    locks = os.fsencode(tmp_path / "locks")
    first, second = InstanceLock(locks), InstanceLock(locks)
    try:
        before = await Post(layout, sweep, first, allow_disk=True).check()
        assert Guard.INSTANCE not in {one.guard for one in before}
        after = await Post(layout, sweep, second, allow_disk=True).check()
        assert Guard.INSTANCE in {one.guard for one in after}
        observing = await Post(layout, sweep, None, allow_disk=True).check()
        assert Guard.INSTANCE not in {one.guard for one in observing}
    finally:
        first.release()
        second.release()
