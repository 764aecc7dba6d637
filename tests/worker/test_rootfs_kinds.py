"""Whatever a snapshotter mounts on rootfs: it is taken off, and its data are where they were.

Data lost with an unmount are those of a filesystem in memory whose last mount it is; there the
bundle is blocked. What this kernel or machine cannot mount is not among the cases: see `kinds`.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from reconciler.model.outcome import BlockReason
from tests.support import canary, mountns
from tests.support.bundles import Bundle
from tests.support.canary import Canary
from tests.support.deadfuse import dead_fuse
from tests.support.inline import assert_blocked, assert_cleaned, assert_untouched, inline_worker
from tests.support.mountns import bind, private_mounts, tmpfs, umount

pytestmark = pytest.mark.safety

_LOOP_CTL_GET_FREE: Final = 0x4C82
_IMAGE: Final = 128 << 20


@dataclass(frozen=True)
class Place:
    """A bundle's rootfs, and room for what is mounted there.

    Attributes:
        top: A directory on a disk.
        rootfs: Where to mount.
    """

    top: Path
    rootfs: Path

    def directory(self, name: str) -> Path:
        path = self.top / name
        path.mkdir()
        return path

    def memory(self, name: str = "memory") -> Path:
        """Mount a tmpfs outside of the state tree."""
        path = self.directory(name)
        tmpfs(path)
        return path


Intact = Callable[[], bool]
Kind = Callable[[Place], Intact]


# ------------------------------------------------------------------------- nothing is lost


def overlay(place: Place) -> Intact:
    layers = [place.directory(name) for name in ("lower", "upper", "work")]
    kept = [canary.plant(layer / "etc") for layer in layers[:2]]
    mountns.overlay(layers[0], layers[1], layers[2], place.rootfs)
    return lambda: all(one.intact() for one in kept)


def native_on_disk(place: Place) -> Intact:
    kept = canary.plant(place.directory("snapshot"))
    bind(kept.root, place.rootfs)
    return kept.intact


def native_in_memory(place: Place) -> Intact:
    snapshot = place.memory() / "snapshots" / "1" / "fs"
    snapshot.mkdir(parents=True)
    kept = canary.plant(snapshot)
    bind(snapshot, place.rootfs)
    return kept.intact


def native_whose_snapshot_was_removed(place: Place) -> Intact:
    """containerd removes snapshots of containers that are gone; the mount holds an empty one."""
    memory = place.memory()
    snapshot = memory / "fs"
    snapshot.mkdir()
    kept = canary.plant(memory / "others")
    bind(snapshot, place.rootfs)
    snapshot.rmdir()
    return kept.intact


def native_shown_by_a_second_bind(place: Place) -> Intact:
    """The mount of the whole is gone; another bind of the same directory goes on showing it."""
    memory = place.memory()
    (memory / "fs").mkdir()
    second = place.directory("second")
    bind(memory / "fs", second)
    bind(memory / "fs", place.rootfs)
    umount(memory)
    return canary.plant(second / "data").intact


def whole_tmpfs_that_is_mounted_twice(place: Place) -> Intact:
    memory = place.memory()
    kept = canary.plant(memory / "data")
    bind(memory, place.rootfs)
    return kept.intact


def stack_of_snapshots(place: Place) -> Intact:
    intact = [native_in_memory(place), native_on_disk(place), overlay(place)]
    return lambda: all(one() for one in intact)


def fuse_without_a_server(place: Place) -> Intact:
    dead_fuse(place.rootfs)
    return lambda: True


def ext4_in_a_file(place: Place) -> Intact:
    return _image(place, "ext4", "-q", "-F")


def xfs_in_a_file(place: Place) -> Intact:
    return _image(place, "xfs", "-q", "-d", "size=320m")


def btrfs_subvolume(place: Place) -> Intact:
    """The btrfs snapshotter mounts a subvolume: mountinfo's root is its path."""
    disk = place.directory("disk")
    image = _make_image(place, "btrfs", "-q")
    _run("mount", "-o", "loop", image, disk)
    _run("btrfs", "-q", "subvolume", "create", disk / "snapshot")
    kept = canary.plant(disk / "snapshot" / "data")
    _run("mount", "-o", "subvol=snapshot", _device_of(disk), place.rootfs)
    return kept.intact


def erofs_image(place: Place) -> Intact:
    return _packed(place, "erofs", "mkfs.erofs", "--quiet", reverse=True)


def squashfs_image(place: Place) -> Intact:
    return _packed(place, "squashfs", "mksquashfs", "-quiet", reverse=False)


def device_mapper(place: Place) -> Intact:
    image = _make_image(place, "ext4", "-q", "-F")
    loop = _output("losetup", "--find", "--show", image)
    name = f"reconciler-test-{os.getpid()}"
    sectors = _IMAGE // 512
    try:
        _run("dmsetup", "create", name, "--table", f"0 {sectors} linear {loop} 0")
        device = f"/dev/mapper/{name}"
        kept = _fill(place, device)
    finally:
        _run("losetup", "--detach", loop)  # as soon as nobody uses it any more

    def intact() -> bool:
        found = _is_on(place, device, kept)
        _run("dmsetup", "remove", name)
        return found

    return intact


# ------------------------------------------------------------------------- it would be lost


def whole_tmpfs(place: Place) -> Intact:
    tmpfs(place.rootfs)
    return canary.plant(place.rootfs / "data").intact


def whole_ramfs(place: Place) -> Intact:
    mountns.mount("ramfs", place.rootfs, "ramfs")
    return canary.plant(place.rootfs / "data").intact


def directory_of_a_tmpfs_that_is_mounted_nowhere_else(place: Place) -> Intact:
    """By its root field a bind of a directory, and all that is left of its filesystem."""
    memory = place.memory()
    (memory / "fs").mkdir()
    bind(memory / "fs", place.rootfs)
    umount(memory)
    return canary.plant(place.rootfs / "data").intact


def whole_tmpfs_of_which_others_show_a_part(place: Place) -> Intact:
    tmpfs(place.rootfs)
    (place.rootfs / "part").mkdir()
    bind(place.rootfs / "part", place.directory("elsewhere"))
    return canary.plant(place.rootfs / "data").intact


def directory_beside_that_which_others_show(place: Place) -> Intact:
    """A name that begins alike is no directory above."""
    memory = place.memory()
    for name in ("fs", "fs2"):
        (memory / name).mkdir()
    bind(memory / "fs", place.directory("elsewhere"))
    bind(memory / "fs2", place.rootfs)
    umount(memory)
    return canary.plant(place.rootfs / "data").intact


def directory_that_only_another_bundle_shows(place: Place) -> Intact:
    """Both might be cleaned at the same moment, each counting on the other."""
    memory = place.memory()
    (memory / "fs").mkdir()
    bind(memory / "fs", place.rootfs)
    other = place.rootfs.parent.parent / "other" / "rootfs"
    other.mkdir(parents=True)
    bind(memory / "fs", other)
    umount(memory)
    return canary.plant(place.rootfs / "data").intact


def stack_with_a_tmpfs_below(place: Place) -> Intact:
    intact = whole_tmpfs(place)
    overlay(place)
    umounted = False

    def is_intact() -> bool:
        nonlocal umounted
        if not umounted:
            umount(place.rootfs)
            umounted = True
        return intact()

    return is_intact


# -------------------------------------------------------------------------- what there is


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _make_image(place: Place, fstype: str, *options: str, size: int = _IMAGE) -> Path:
    image = place.top / f"{fstype}.img"
    with image.open("wb") as file:
        file.truncate(size)
    _run(f"mkfs.{fstype}", *options, image)
    return image


def _image(place: Place, fstype: str, *options: str) -> Intact:
    size = 512 << 20 if fstype == "xfs" else _IMAGE
    image = _make_image(place, fstype, *options, size=size)
    kept = _fill(place, image)
    return lambda: _is_on(place, image, kept)


def _fill(place: Place, source: Path | str) -> Canary:
    _mount(source, place.rootfs)
    return canary.plant(place.rootfs / "data")


def _mount(source: Path | str, target: Path) -> None:
    options = ("-o", "loop") if isinstance(source, Path) else ()
    _run("mount", *options, source, target)


def _is_on(place: Place, source: Path | str, kept: Canary) -> bool:
    """Mount it again, somewhere else, and compare."""
    again = place.directory("again")
    _mount(source, again)
    found = canary.snapshot(again / "data")
    planted = {again / path.relative_to(place.rootfs): one for path, one in kept.planted.items()}
    umount(again)
    return found == planted


def _packed(place: Place, fstype: str, program: str, *options: str, reverse: bool) -> Intact:
    source = place.directory("source")
    canary.plant(source / "data")
    image = place.top / f"{fstype}.img"
    paths = (image, source) if reverse else (source, image)
    _run(program, *(options if reverse else ()), *paths, *(() if reverse else options))
    before = image.read_bytes()
    _run("mount", "-t", fstype, "-o", "loop,ro", image, place.rootfs)
    return lambda: image.read_bytes() == before


def _device_of(mounted: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(line.split(" - ")[1].split(" ")[1] for line in lines if f" {mounted} " in line)


@cache
def _has_loops() -> bool:
    """Return whether a file can be mounted here; asks for no device that is not there."""
    if os.geteuid() != 0:
        return False
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        os.close(os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        os.close(control)
    return True


def _mounts(fstype: str, *programs: str) -> bool:
    known = Path("/proc/filesystems").read_text().split()
    return fstype in known and _has_loops() and all(shutil.which(one) for one in programs)


def kinds() -> list[Kind]:
    """List what keeps its data and can be mounted here."""
    optional: list[tuple[Kind, bool]] = [
        (fuse_without_a_server, os.access("/dev/fuse", os.W_OK)),
        (ext4_in_a_file, _mounts("ext4", "mkfs.ext4")),
        (xfs_in_a_file, _mounts("xfs", "mkfs.xfs")),
        (btrfs_subvolume, _mounts("btrfs", "mkfs.btrfs", "btrfs")),
        (erofs_image, _mounts("erofs", "mkfs.erofs")),
        (squashfs_image, _mounts("squashfs", "mksquashfs")),
        (
            device_mapper,
            _mounts("ext4", "mkfs.ext4", "dmsetup") and os.path.exists("/dev/mapper/control"),
        ),
    ]
    return [*ALWAYS, *(kind for kind, is_there in optional if is_there)]


ALWAYS: Final[tuple[Kind, ...]] = (
    overlay,
    native_on_disk,
    native_in_memory,
    native_whose_snapshot_was_removed,
    native_shown_by_a_second_bind,
    whole_tmpfs_that_is_mounted_twice,
    stack_of_snapshots,
)
LOSING: Final[tuple[Kind, ...]] = (
    whole_tmpfs,
    whole_ramfs,
    directory_of_a_tmpfs_that_is_mounted_nowhere_else,
    whole_tmpfs_of_which_others_show_a_part,
    directory_beside_that_which_others_show,
    directory_that_only_another_bundle_shows,
    stack_with_a_tmpfs_below,
)


def _place(base: Path, bundle: Bundle) -> Place:
    top = base / "disk"
    top.mkdir()
    return Place(top, bundle.rootfs)


@pytest.mark.fault("I1")
@pytest.mark.parametrize("kind", kinds())
@private_mounts
def test_a_rootfs_whose_data_stay_is_taken_off(tmp_path: Path, kind: Kind) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(mounted=False, cgroups=False)
        intact = kind(_place(tmp_path, bundle))
        assert bundle.mounts()
        assert_cleaned(inline.clean(bundle), bundle)
        assert intact()


@pytest.mark.fault("I1")
@pytest.mark.parametrize("kind", LOSING)
@private_mounts
def test_a_rootfs_whose_data_would_be_lost_is_left(tmp_path: Path, kind: Kind) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(mounted=False, cgroups=False)
        intact = kind(_place(tmp_path, bundle))
        left, mounts = bundle.left(), bundle.mounts()
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
        assert "unmounting would destroy" in outcome.detail
        assert_untouched(outcome, bundle, left)
        assert bundle.mounts() == mounts
        assert intact()
