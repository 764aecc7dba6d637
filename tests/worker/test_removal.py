"""What removal removes, what it leaves, and what it says about it."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from reconciler.model.ids import Identity, escape
from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.removal import hide, remove_mount_point, remove_tree
from reconciler.worker.step_log import Tally
from tests.support.canary import plant
from tests.support.opens import opened_of
from tests.worker.removing import Removed, identity, remove

ODD_NAMES = [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"tab\tback\\slash", b"n" * 255, b"...", b"*"]


def test_everything_goes_and_is_counted(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    (victim / "a" / "b" / "c").mkdir(parents=True)
    (victim / "a" / "file").write_bytes(b"x" * 10_000)
    (victim / "empty").touch()
    allocated = (victim / "a" / "file").stat().st_blocks * 512
    assert remove(parent) == Removed(entries=6, bytes=allocated)
    assert os.listdir(parent) == []


def test_a_file_with_another_name_frees_nothing(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "kept").write_bytes(b"x" * 10_000)
    (tmp_path / "victim" / "second").hardlink_to(tmp_path / "kept")
    assert remove(parent) == Removed(entries=2, bytes=0)
    assert (tmp_path / "kept").read_bytes() == b"x" * 10_000


def test_what_is_gone_is_no_trouble(parent: int) -> None:
    assert remove_tree(parent, b"victim", Identity(1, 2, 3), tally := Tally()) == 0
    assert tally.mutations == 0


@pytest.mark.fault("I8")
def test_another_object_of_the_name_is_left_alone(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    real = identity(parent, b"victim")
    for wrong in (
        Identity(real.dev, real.ino + 1, real.mount_id),
        Identity(real.dev + 1, real.ino, real.mount_id),
        Identity(real.dev, real.ino, real.mount_id + 1),
    ):
        with pytest.raises(Blocked) as caught:
            remove_tree(parent, b"victim", wrong, Tally())
        assert caught.value.reason is BlockReason.CHANGED
    assert (tmp_path / "victim" / "file").exists()


@pytest.mark.fault("I2")
@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"../x"])
def test_a_path_is_refused(parent: int, name: bytes) -> None:
    for call in (
        lambda: remove_tree(parent, name, Identity(1, 2, 3), Tally()),
        lambda: remove_mount_point(parent, name, Tally()),
        lambda: hide(parent, name, Identity(1, 2, 3), Tally()),
    ):
        with pytest.raises(ValueError, match="one name"):
            call()


@pytest.mark.fault("I23", "odd names")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_bytes(tmp_path: Path, parent: int, name: bytes) -> None:
    top = os.fsencode(tmp_path)
    os.makedirs(b"%s/%s/%s" % (top, name, name))
    os.close(os.open(b"%s/%s/%s/%s" % (top, name, name, name), os.O_CREAT))
    assert remove(parent, name).entries == 3
    assert os.listdir(parent) == []


@pytest.mark.fault("symlink inside")
def test_symlinks_go_and_their_targets_stay(tmp_path: Path, parent: int) -> None:
    canary = plant(tmp_path / "canary")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "to-directory").symlink_to(canary.root)
    (victim / "to-file").symlink_to(canary.root / "data-0")
    (victim / "relative").symlink_to("../canary/deep")
    (victim / "dangling").symlink_to("nowhere")
    (victim / "up").symlink_to("..")
    assert remove(parent).entries == 6
    assert canary.intact()


@pytest.mark.fault("id or namespace replaced by a symlink")
def test_an_id_that_is_a_symlink_is_not_entered(tmp_path: Path, parent: int) -> None:
    canary = plant(tmp_path / "canary")
    (tmp_path / "victim").symlink_to(canary.root)
    for expected in (identity(parent, b"victim"), identity(parent, b"canary")):
        with pytest.raises(Blocked) as caught:
            remove_tree(parent, b"victim", expected, Tally())
        assert caught.value.reason is BlockReason.CHANGED
    assert canary.intact()
    assert (tmp_path / "victim").is_symlink()


@pytest.mark.fault("I25", "FIFO, socket, device")
def test_fifos_sockets_and_devices_are_unlinked_unopened(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    os.mkfifo(victim / "log")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(victim / "socket"))
    special = 2
    if os.geteuid() == 0:
        os.mknod(victim / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        special += 1
    with opened_of(list(victim.iterdir())) as opened:
        assert remove(parent).entries == special + 1
    assert opened == []


@pytest.mark.fault("SIGTERM mid-removal")
def test_told_to_stop_it_stops_at_an_entry_and_goes_on_later(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    for number in range(10):
        (victim / "sub" / f"f{number}").touch()
    asked = 0

    def after_six() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    expected = identity(parent, b"victim")
    with pytest.raises(Blocked) as caught:
        remove_tree(parent, b"victim", expected, tally := Tally(stop=after_six))
    assert caught.value.reason is BlockReason.INTERRUPTED
    assert caught.value.path.startswith("victim/sub/f")
    assert tally.mutations == 10 - len(os.listdir(victim / "sub")) == 4
    assert remove(parent).entries == 8


def test_told_to_stop_before_it_begins_it_touches_nothing(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").mkdir()
    with pytest.raises(Blocked, match="interrupted"):
        remove_tree(parent, b"victim", identity(parent, b"victim"), Tally(stop=lambda: True))
    assert (tmp_path / "victim").is_dir()


def test_entries_that_come_back_once_are_removed_again(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "sub" / "a").touch()
    (victim / "z").mkdir()
    added: list[Path] = []

    def add_once() -> bool:
        for path in (victim / "late", victim / "sub" / "late"):
            if path not in added and path.parent.is_dir():
                path.touch()
                added.append(path)
        return False

    remove_tree(parent, b"victim", identity(parent, b"victim"), Tally(stop=add_once))
    assert len(added) == 2
    assert not victim.exists()


def test_a_directory_that_is_filled_for_ever_is_given_up(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "sub" / "first").touch()
    numbers = iter(range(1_000_000))

    def refill() -> bool:
        if (victim / "sub").is_dir():
            (victim / "sub" / f"again-{next(numbers)}").touch()
        return False

    with pytest.raises(Blocked, match="somebody fills it") as caught:
        remove_tree(parent, b"victim", identity(parent, b"victim"), Tally(stop=refill))
    assert caught.value.reason is BlockReason.MOUNT_BUSY
    assert caught.value.path == "victim/sub"
    remove(parent)
    assert os.listdir(parent) == []


@pytest.mark.fault("mount or symlink appearing mid-walk")
def test_a_listed_directory_that_became_a_symlink_is_unlinked(tmp_path: Path, parent: int) -> None:
    canary = plant(tmp_path / "canary")
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "file").touch()

    def swap() -> bool:
        if (victim / "sub").is_dir() and not (victim / "sub").is_symlink():
            (victim / "sub").rmdir()
            (victim / "sub").symlink_to(canary.root)
        return False

    expected = identity(parent, b"victim")
    os.listdir(parent)
    remove_tree(parent, b"victim", expected, Tally(stop=swap))
    assert canary.intact()
    assert not victim.exists()


def test_a_listed_file_that_became_a_directory_is_emptied(tmp_path: Path, parent: int) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").touch()

    def swap() -> bool:
        if (victim / "a").is_file():
            (victim / "a").unlink()
            (victim / "a" / "b").mkdir(parents=True)
        return False

    remove_tree(parent, b"victim", identity(parent, b"victim"), Tally(stop=swap))
    assert not victim.exists()


def test_a_former_mount_point_is_removed_by_rmdir_alone(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim" / "rootfs").mkdir(parents=True)
    (tmp_path / "victim" / "rootfs" / "written-below-the-mount").touch()
    (tmp_path / "victim" / "a" / "rootfs" / "x").mkdir(parents=True)
    with pytest.raises(Blocked) as caught:
        remove(parent, mount_points=frozenset({b"rootfs"}))
    assert caught.value.reason is BlockReason.NOT_EMPTY
    assert caught.value.path == "victim/rootfs"
    assert (tmp_path / "victim" / "rootfs" / "written-below-the-mount").exists()
    (tmp_path / "victim" / "rootfs" / "written-below-the-mount").unlink()
    remove(parent, mount_points=frozenset({b"rootfs"}))
    assert os.listdir(parent) == []


def test_remove_mount_point_keeps_what_is_in_it(tmp_path: Path, parent: int) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "data").mkdir(parents=True)
    with pytest.raises(Blocked) as caught:
        remove_mount_point(parent, b"rootfs", Tally())
    assert caught.value.reason is BlockReason.NOT_EMPTY
    (rootfs / "data").rmdir()
    tally = Tally()
    for gone in (1, 1):
        remove_mount_point(parent, b"rootfs", tally)
        assert tally.mutations == gone
    rootfs.symlink_to("/etc")
    remove_mount_point(parent, b"rootfs", tally)
    assert tally.mutations == 2
    assert Path("/etc").is_dir()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EBUSY, BlockReason.MOUNT_BUSY),
        (errno.EXDEV, BlockReason.FOREIGN_MOUNT),
        (errno.EROFS, BlockReason.READ_ONLY),
        (errno.EPERM, BlockReason.IMMUTABLE),
        (errno.EACCES, BlockReason.IMMUTABLE),
        (errno.ENOSPC, BlockReason.NO_SPACE),
        (errno.EDQUOT, BlockReason.NO_SPACE),
        (errno.EIO, BlockReason.IO),
        (errno.EMFILE, BlockReason.IO),
        (errno.ENOTEMPTY, BlockReason.NOT_EMPTY),
    ],
)
def test_every_error_has_a_reason(number: int, reason: BlockReason) -> None:
    blocked = blocked_by(OSError(number, os.strerror(number)), escape(b"a\nb"))
    assert blocked.reason is reason
    assert str(blocked) == f"{reason.value}: a\\x0ab ({os.strerror(number)})"
