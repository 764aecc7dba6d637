"""Removal meets mounts: nothing behind one is touched, and what is in the way is named."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked
from reconciler.worker.removal import hide, remove_mount_point, remove_tree
from reconciler.worker.step_log import Tally
from tests.support.canary import Canary, plant
from tests.support.mountns import (
    MNT_DETACH,
    MS_RDONLY,
    MS_REMOUNT,
    bind,
    mount,
    overlay,
    private_mounts,
    tmpfs,
    umount,
)
from tests.worker.removing import identity

pytestmark = pytest.mark.safety


def bundle(top: Path) -> Path:
    """Make a bundle with a little of everything; its parent is ``top``."""
    victim = top / "victim"
    (victim / "rootfs" / "data").mkdir(parents=True)
    (victim / "extra").mkdir()
    (victim / "config.json").write_text("{}")
    (victim / "init.pid").write_text("1")
    os.mkfifo(victim / "log")
    return victim


def same_filesystem(top: Path, target: Path) -> Canary:
    canary = plant(top / "canary")
    bind(canary.root, target)
    return canary


def other_filesystem(top: Path, target: Path) -> Canary:
    (top / "other").mkdir()
    tmpfs(top / "other")
    canary = plant(top / "other" / "canary")
    bind(canary.root, target)
    return canary


def a_tmpfs(top: Path, target: Path) -> Canary:
    tmpfs(target)
    return plant(target / "canary")


def an_overlay(top: Path, target: Path) -> Canary:
    (top / "layers").mkdir()
    tmpfs(top / "layers")
    for name in ("upper", "work"):
        (top / "layers" / name).mkdir()
    plant(top / "layers" / "lower")
    overlay(top / "layers" / "lower", top / "layers" / "upper", top / "layers" / "work", target)
    return plant(target / "canary")


def a_stack(top: Path, target: Path) -> Canary:
    canary = same_filesystem(top, target)
    tmpfs(target)
    return canary


MOUNTS = [same_filesystem, other_filesystem, a_tmpfs, an_overlay, a_stack]
PLACES = ["extra", "rootfs", "rootfs/data"]


@pytest.mark.fault("I1", "foreign mount", "same-filesystem bind")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", MOUNTS, ids=lambda make: make.__name__)
@private_mounts
def test_a_mount_below_blocks_and_keeps_its_data(
    tmp_path: Path, make: Callable[[Path, Path], Canary], place: str
) -> None:
    victim = bundle(tmp_path)
    canary = make(tmp_path, victim / place)
    parent = os.open(tmp_path, os.O_RDONLY)
    before = None if make is a_stack else canary.intact()
    with pytest.raises(Blocked) as caught:
        remove_tree(parent, b"victim", identity(parent), Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert caught.value.path == f"victim/{place}"
    assert before is None or canary.intact()
    umount(victim / place, MNT_DETACH)
    if make is a_stack:
        with pytest.raises(Blocked):
            remove_tree(parent, b"victim", identity(parent), Tally())
        umount(victim / place, MNT_DETACH)
    remove_tree(parent, b"victim", identity(parent), Tally())
    assert not victim.exists()
    if make in {same_filesystem, other_filesystem, a_stack}:
        assert canary.intact()


@pytest.mark.fault("I1", "file bind over config.json")
@pytest.mark.parametrize("place", ["config.json", "rootfs/data/file"])
@private_mounts
def test_a_file_mounted_over_a_file_blocks_and_is_kept(tmp_path: Path, place: str) -> None:
    victim = bundle(tmp_path)
    (victim / place).touch()
    canary = plant(tmp_path / "canary")
    bind(canary.root / "data-0", victim / place)
    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Blocked) as caught:
        remove_tree(parent, b"victim", identity(parent), Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert caught.value.path == f"victim/{place}"
    assert canary.intact()
    assert (victim / place).read_bytes() == (canary.root / "data-0").read_bytes()


@pytest.mark.fault("I1", "I3")
@private_mounts
def test_a_bundle_that_is_a_mount_point_itself_is_not_entered(tmp_path: Path) -> None:
    victim = bundle(tmp_path)
    parent = os.open(tmp_path, os.O_RDONLY)
    below = identity(parent)
    canary = same_filesystem(tmp_path, victim)
    for expected in (below, identity(parent)):
        with pytest.raises(Blocked) as caught:
            remove_tree(parent, b"victim", expected, Tally())
        assert caught.value.reason is BlockReason.FOREIGN_MOUNT
        with pytest.raises(Blocked) as caught:
            hide(parent, b"victim", expected, Tally())
        assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert canary.intact()


@private_mounts
def test_a_former_mount_point_that_is_still_one_is_kept(tmp_path: Path) -> None:
    victim = bundle(tmp_path)
    (victim / "rootfs" / "data").rmdir()
    canary = same_filesystem(tmp_path, victim / "rootfs")
    parent = os.open(victim, os.O_RDONLY)
    with pytest.raises(Blocked) as caught:
        remove_mount_point(parent, b"rootfs", Tally())
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert canary.intact()


@pytest.mark.fault("I1", "mount or symlink appearing mid-walk")
@pytest.mark.parametrize("moment", range(1, 8))  # a bundle has seven entries
@private_mounts
def test_a_mount_that_appears_at_any_moment_of_the_walk_is_not_entered(
    tmp_path: Path, moment: int
) -> None:
    victim = bundle(tmp_path)
    canary = plant(tmp_path / "canary")
    asked = 0

    def mount_now() -> bool:
        nonlocal asked
        asked += 1
        if asked == moment:
            for place in (victim, victim / "extra", victim / "rootfs", victim / "rootfs" / "data"):
                if place.is_dir():
                    bind(canary.root, place)
            if (victim / "config.json").exists():
                bind(canary.root / "data-0", victim / "config.json")
        return False

    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Blocked) as caught:
        remove_tree(parent, b"victim", identity(parent), Tally(stop=mount_now))
    assert caught.value.reason is BlockReason.FOREIGN_MOUNT
    assert asked >= moment
    assert canary.intact()


@pytest.mark.fault("read-only filesystem")
@private_mounts
def test_a_read_only_filesystem_blocks(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    bundle(tmp_path)
    mount(None, tmp_path, None, MS_REMOUNT | MS_RDONLY)
    parent = os.open(tmp_path, os.O_RDONLY)
    expected = identity(parent)
    tally = Tally()
    for call in (
        lambda: remove_tree(parent, b"victim", expected, tally),
        lambda: hide(parent, b"victim", expected, tally),
    ):
        with pytest.raises(Blocked) as caught:
            call()
        assert caught.value.reason is BlockReason.READ_ONLY
        assert tally.mutations == 0
    assert identity(parent) == expected


@pytest.mark.fault("immutable file")
@private_mounts
def test_an_immutable_file_blocks_and_is_named_and_goes_once_it_may(tmp_path: Path) -> None:
    victim = bundle(tmp_path)
    wanted = victim / "rootfs" / "data" / "keep"
    wanted.touch()
    if subprocess.run(["chattr", "+i", wanted], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable files")
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Blocked) as caught:
            remove_tree(parent, b"victim", identity(parent), Tally())
    finally:
        subprocess.run(["chattr", "-i", wanted], check=True)
    assert caught.value.reason is BlockReason.IMMUTABLE
    assert caught.value.path == "victim/rootfs/data/keep"
    remove_tree(parent, b"victim", identity(parent), Tally())
    assert not victim.exists()


@pytest.mark.fault("FIFO, socket, device")
@private_mounts
def test_devices_are_unlinked(tmp_path: Path) -> None:
    victim = bundle(tmp_path)
    os.mknod(victim / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    os.mknod(victim / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    parent = os.open(tmp_path, os.O_RDONLY)
    remove_tree(parent, b"victim", identity(parent), Tally())
    assert not victim.exists()


@pytest.mark.fault("state filesystem full (bytes, inodes)")
@private_mounts
def test_a_full_filesystem_does_not_hinder_removal(tmp_path: Path) -> None:
    tmpfs(tmp_path, "size=64k,nr_inodes=12")
    bundle(tmp_path)
    with pytest.raises(OSError, match="No space"):
        (tmp_path / "victim" / "big").write_bytes(b"x" * 100_000)
    with pytest.raises(OSError, match="No space"):  # noqa: PT012 - which of them is the first
        for number in range(12):
            (tmp_path / f"name-{number}").touch()
    parent = os.open(tmp_path, os.O_RDONLY)
    expected = identity(parent)
    hidden = hide(parent, b"victim", expected, Tally())
    assert hidden is not None
    remove_tree(parent, hidden, expected, Tally())
    assert not list(tmp_path.glob("*victim*")) + list(tmp_path.glob(".*"))
