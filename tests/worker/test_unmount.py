"""What is unmounted, what is not, and who is named for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.model.outcome import BlockReason, Holder
from reconciler.probe.beneath import identity_of
from reconciler.worker import unmount
from reconciler.worker.blocked import Blocked
from reconciler.worker.holders import holders
from reconciler.worker.removal import remove_tree
from reconciler.worker.step_log import Tally
from reconciler.worker.unmount import unmount_stack
from tests.support.canary import plant
from tests.support.deadfuse import dead_fuse
from tests.support.mountns import bind, enter_private_mounts, private_mounts, tmpfs, umount

pytestmark = pytest.mark.safety

ODD_NAMES = [b"new\nline", b"\xff\xfe", b"-rf", b"a b", b"tab\tback\\slash", b"n" * 255, b"rootfs"]


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def bundle(top: Path, layers: int = 0) -> int:
    """Make a bundle with so many layers on rootfs; give a handle on it."""
    (top / "bundle" / "rootfs").mkdir(parents=True)
    for number in range(layers):
        tmpfs(top / "bundle" / "rootfs")
        (top / "bundle" / "rootfs" / f"layer-{number}").touch()
    return opened(top / "bundle")


def stack(fd: int, path: bytes = b"rootfs") -> frozenset[int]:
    """Give the ids of all mounts at a path below a bundle, as a look at the table would."""
    point = os.readlink(b"/proc/self/fd/%d" % fd) + b"/" + path
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return frozenset(int(line[0]) for line in lines if line[4].encode() == point)


def take_off(
    fd: int, path: bytes, judged: frozenset[int], *, lazy: bool = False
) -> tuple[int, int]:
    """Unmount a stack; give how many layers went, and how many of them were only detached."""
    tally = Tally()
    detached = unmount_stack(fd, path, judged, tally, lazy=lazy)
    return tally.mutations, detached


@contextmanager
def process(
    *command: str | Path,
    cwd: str | bytes | Path | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run something that waits for the end of its input, and end it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
        preexec_fn=preexec_fn,  # noqa: PLW1509 - there are no threads here
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.fault("I12", "stacked mounts")
@private_mounts
def test_a_stack_of_five_goes(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=5)
    assert take_off(fd, b"rootfs", stack(fd)) == (5, 0)
    assert not kernel.statx(fd, b"rootfs").is_mount_root
    assert take_off(fd, b"rootfs", frozenset()) == (0, 0)


@pytest.mark.fault("I12", "stacked mounts")
@private_mounts
def test_a_stack_deeper_than_the_bound_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = bundle(tmp_path, layers=5)
    monkeypatch.setattr(unmount, "_BOUND", 3)
    with pytest.raises(Blocked, match="after 3 layers"):
        unmount_stack(fd, b"rootfs", stack(fd), tally := Tally())
    assert tally.mutations == 3
    monkeypatch.setattr(unmount, "_BOUND", 2)
    assert take_off(fd, b"rootfs", stack(fd)) == (2, 0)


@private_mounts
def test_nothing_mounted_is_nothing_to_do(tmp_path: Path) -> None:
    fd = bundle(tmp_path)
    (tmp_path / "bundle" / "file").touch()
    for name in (b"rootfs", b"file", b"absent", b"absent/rootfs"):
        assert take_off(fd, name, frozenset()) == (0, 0)


@pytest.mark.parametrize("path", [b"", b".", b"..", b"a/..", b"rootfs/", b"/"])
def test_what_is_no_name_is_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="mount point"):
        unmount_stack(0, path, frozenset(), Tally())


@private_mounts
def test_a_mount_nobody_judged_stays(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=1)
    judged = stack(fd)
    canary = plant(tmp_path / "canary")
    bind(canary.root, tmp_path / "bundle" / "rootfs")
    with pytest.raises(Blocked, match="mounted since") as caught:
        unmount_stack(fd, b"rootfs", judged, tally := Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert tally.mutations == 0
    assert len(stack(fd)) == 2
    assert canary.intact()


@pytest.mark.fault("I13", "foreign mount")
@private_mounts
def test_a_mount_below_is_named_and_stays_even_where_detaching_is_allowed(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=2)
    nested = tmp_path / "bundle" / "rootfs" / "my data"
    nested.mkdir()
    canary = plant(tmp_path / "canary")
    bind(canary.root, nested)
    for lazy in (False, True):
        with pytest.raises(Blocked) as caught:
            unmount_stack(fd, b"rootfs", stack(fd), Tally(), lazy=lazy)
        assert caught.value.reason is BlockReason.FOREIGN_MOUNT
        assert caught.value.path == "rootfs/my data"
    assert (nested / "data-0").exists()
    assert canary.intact()


@pytest.mark.fault("I12")
@private_mounts
def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    tmpfs(target)
    canary = plant(target / "canary")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "rootfs").symlink_to(target)
    (tmp_path / "bundle" / "dir").symlink_to(tmp_path)
    fd = opened(tmp_path / "bundle")
    everything = frozenset(range(100_000))
    assert take_off(fd, b"rootfs", everything) == (0, 0)
    with pytest.raises(Blocked) as caught:
        unmount_stack(fd, b"dir/target", everything, Tally())
    assert caught.value.reason is BlockReason.CHANGED
    assert canary.intact()
    assert os.path.ismount(target)


@private_mounts
def test_nothing_behind_another_mount_is_unmounted(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=1)
    (tmp_path / "bundle" / "rootfs" / "a").mkdir()
    tmpfs(tmp_path / "bundle" / "rootfs" / "a")
    with pytest.raises(Blocked) as caught:
        unmount_stack(fd, b"rootfs/a", stack(fd, b"rootfs/a"), Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT


@private_mounts
def test_a_mount_deeper_in_the_bundle_goes_by_its_path(tmp_path: Path) -> None:
    fd = bundle(tmp_path)
    (tmp_path / "bundle" / "a" / "b").mkdir(parents=True)
    tmpfs(tmp_path / "bundle" / "a" / "b")
    assert take_off(fd, b"a/b", stack(fd, b"a/b")) == (1, 0)


@pytest.mark.parametrize("name", ODD_NAMES)
@private_mounts
def test_names_are_bytes(tmp_path: Path, name: bytes) -> None:
    fd = bundle(tmp_path)
    where = os.fsencode(tmp_path) + b"/bundle/" + name
    os.makedirs(where, exist_ok=True)
    tmpfs(where)
    judged = frozenset({kernel.statx(fd, name).mount_id})
    with process("sleep", "60", cwd=where) as sleeper:
        with pytest.raises(Blocked) as caught:
            unmount_stack(fd, name, judged, Tally())
        assert caught.value.reason is BlockReason.MOUNT_BUSY
        assert holders(fd, name) == (Holder(sleeper.pid, "sleep", "cwd"),)
    assert take_off(fd, name, judged) == (1, 0)


HOLD = {
    "cwd": "os.chdir({!r})",
    "root": "os.chroot({!r})",
    "fd": "kept = open({!r} + '/log', 'w')",
}


@contextmanager
def holding(rootfs: Path, how: str) -> Iterator[int]:
    """Run a process that keeps a mount busy in one way and no other; give its pid."""
    code = "import os, sys; {}; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code.format(HOLD.get(how, "").format(str(rootfs)))]
    if how == "exe":
        shutil.copy(shutil.which("cat") or "", rootfs / "mine")
        command = [str(rootfs / "mine")]
    with process(*command) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        if how == "exe":
            running.stdin.write(b"\n")
            running.stdin.flush()
        running.stdout.readline()
        yield running.pid


@pytest.mark.fault("busy rootfs")
@pytest.mark.parametrize("how", ["cwd", "root", "exe", "fd"])
@private_mounts
def test_who_keeps_it_busy_is_named_and_once_it_ends_it_goes(tmp_path: Path, how: str) -> None:
    fd = bundle(tmp_path, layers=2)
    judged = stack(fd)
    with holding(tmp_path / "bundle" / "rootfs", how) as pid:
        with pytest.raises(Blocked, match="mount busy: rootfs") as caught:
            unmount_stack(fd, b"rootfs", judged, Tally())
        assert caught.value.reason is BlockReason.MOUNT_BUSY
        assert [(one.pid, one.how) for one in holders(fd, b"rootfs")] == [(pid, how)]
        assert len(stack(fd)) == 2, "nothing is detached"
    assert take_off(fd, b"rootfs", judged) == (2, 0)
    assert holders(fd, b"rootfs") == ()


@private_mounts
def test_what_is_busy_is_detached_only_where_that_is_asked_for(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=3)
    with process("sleep", "60", cwd=tmp_path / "bundle" / "rootfs"):
        got = take_off(fd, b"rootfs", stack(fd), lazy=True)
    assert got == (3, 1)
    assert stack(fd) == frozenset()


@private_mounts
def test_layers_taken_off_before_a_busy_one_are_counted(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=1)
    with process("sleep", "60", cwd=tmp_path / "bundle" / "rootfs"):
        for _ in range(2):
            tmpfs(tmp_path / "bundle" / "rootfs")
        with pytest.raises(Blocked):
            unmount_stack(fd, b"rootfs", stack(fd), tally := Tally())
        assert tally.mutations == 2


@private_mounts
def test_a_copy_in_another_mount_namespace_is_named_where_nobody_else_is(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=1)
    with process("sleep", "60", preexec_fn=enter_private_mounts) as elsewhere:
        (found,) = holders(fd, b"rootfs")
        assert found == Holder(elsewhere.pid, "sleep", "mount namespace")
        with process("sleep", "60", cwd=tmp_path / "bundle" / "rootfs") as user:
            (found,) = holders(fd, b"rootfs")
            assert found.pid == user.pid
    umount(tmp_path / "bundle" / "rootfs")


@private_mounts
def test_a_directory_whose_name_only_begins_the_same_is_not_held(tmp_path: Path) -> None:
    fd = bundle(tmp_path, layers=1)
    (tmp_path / "bundle" / "rootfs-2").mkdir()
    with process("sleep", "60", cwd=tmp_path / "bundle" / "rootfs-2"):
        assert holders(fd, b"rootfs") == ()


def test_holders_of_nothing_are_none(tmp_path: Path) -> None:
    fd = opened(tmp_path)
    assert holders(fd, b"absent") == ()
    assert holders(fd, b"absent", proc=b"/nonexistent") == ()
    os.close(fd)


@pytest.mark.fault("dead FUSE on rootfs")
@private_mounts
def test_a_mount_whose_server_is_dead_holds_nothing_up(tmp_path: Path) -> None:
    fd = bundle(tmp_path)
    victim = opened(tmp_path)
    server = dead_fuse(tmp_path / "bundle" / "rootfs")
    expected = identity_of(kernel.statx(victim, b"bundle"))
    with pytest.raises(Blocked) as caught:
        remove_tree(victim, b"bundle", expected, Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert holders(fd, b"rootfs") == ()
    assert take_off(fd, b"rootfs", stack(fd)) == (1, 0)
    remove_tree(victim, b"bundle", expected, Tally())
    assert os.listdir(victim) == []
    os.close(server)
