"""Locks: who holds a lock on a file, read from /proc/locks without touching the file.

A living containerd holds a flock on its metadata file from before it sweeps dead bundles until it
dies (field-notes section 3). FREE is a proof and is said only where nothing can hide a lock; what
may be hidden is NONE. Paths and /proc flow in, a :class:`Lock` flows out; no exception escapes.
"""

import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import Final

from reconciler.kernel import AT_FDCWD, Stat, statx
from reconciler.model.ids import show
from reconciler.probe import reach
from reconciler.probe.process import MOST_MOUNTS, read_whole

_INITIAL_PID_NAMESPACE: Final = b"pid:[4026531836]"
"""Name of the first pid namespace: PROC_PID_INIT_INO of include/linux/proc_ns.h."""

_PLAIN: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"}
)
"""Filesystems whose locks are all local and whose stat tells the inode number that locks.c prints.

Not overlay (its inode is another one), not network or FUSE (locks may be held elsewhere).
"""


class LockState(Enum):
    """Whether somebody holds a lock on a file."""

    HELD = "held"
    FREE = "free"  # proven: the file is there and nobody holds it
    ABSENT = "no such file"
    NONE = "no answer"


@dataclass(frozen=True, slots=True)
class Lock:
    """The answer.

    Attributes:
        state: See :class:`LockState`.
        pid: Who took the lock, if that is known; it may be gone and its children hold the file.
        detail: Why there is no answer, for people.
    """

    state: LockState
    pid: int | None = None
    detail: str = ""


def lock_holder(path: bytes, proc: bytes = b"/proc") -> Lock:
    """Tell who holds a lock of any kind on a file.

    Args:
        path: The file; symlinks on the way are followed, the file itself may not be one.
        proc: Where /proc is mounted.
    """
    if why := reach.trouble(path):
        return Lock(LockState.NONE, detail=why)
    try:
        seen = statx(AT_FDCWD, path)
        return _holder(path, seen, proc)
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.filename == path:
            return Lock(LockState.ABSENT)
        return Lock(LockState.NONE, detail=str(error))
    except (OSError, ValueError) as error:
        return Lock(LockState.NONE, detail=str(error))


def _holder(path: bytes, seen: Stat, proc: bytes) -> Lock:
    if not stat.S_ISREG(seen.mode):
        return Lock(LockState.NONE, detail=f"{show(path)} is not a regular file")
    devices = {seen.dev}
    if (lock := _look_up(seen.ino, devices, proc)) is not None:
        return lock
    device, fstype = _filesystem(seen.mount_id, proc)
    devices.add(device)  # btrfs: locks show the filesystem's device, stat the subvolume's
    # The kernel gives /proc/locks in pages. If an earlier lock goes away between two of them, the
    # next one is skipped; so a lock is taken to be absent only when two passes missed it.
    for _ in range(2):
        if (lock := _look_up(seen.ino, devices, proc)) is not None:
            return lock
    return _absence(path, seen, fstype, proc)


def _absence(path: bytes, seen: Stat, fstype: str, proc: bytes) -> Lock:
    """Tell whether a lock that is not shown is not there."""
    if fstype not in _PLAIN:
        return Lock(LockState.NONE, detail=f"locks on {fstype} may not show in /proc/locks")
    # locks.c leaves out every lock whose owner has no pid in the pid namespace of this /proc.
    if os.readlink(os.path.join(proc, b"self/ns/pid")) != _INITIAL_PID_NAMESPACE:
        return Lock(
            LockState.NONE, detail="locks of processes outside this pid namespace are hidden"
        )
    again = statx(AT_FDCWD, path)
    if (again.dev, again.ino, again.mount_id) != (seen.dev, seen.ino, seen.mount_id):
        return Lock(LockState.NONE, detail=f"{show(path)} was replaced while it was looked at")
    return Lock(LockState.FREE)


def _look_up(inode: int, devices: set[int], proc: bytes) -> Lock | None:
    """Find the lock on an inode: ``1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF``.

    Raises:
        ValueError: A line is not like that; the kernel has learnt to say something else.
    """
    for line in read_whole(os.path.join(proc, b"locks")).splitlines():
        _, kind, *rest = line.split()
        if kind == b"->":
            continue  # waits for a lock
        pid, place = int(rest[2]), rest[3]
        major, minor, number = place.split(b":")
        if int(number) == inode and os.makedev(int(major, 16), int(minor, 16)) in devices:
            return Lock(LockState.HELD, pid if pid > 0 else None)
    return None


def _filesystem(mount_id: int, proc: bytes) -> tuple[int, str]:
    """Find a mount's device and filesystem type.

    Raises:
        ValueError: There is no such mount, or the line is damaged.
    """
    for line in read_whole(os.path.join(proc, b"self/mountinfo"), most=MOST_MOUNTS).splitlines():
        fields = line.split(b" ")
        if fields[0] == b"%d" % mount_id:
            major, minor = fields[2].split(b":")
            fstype = fields[fields.index(b"-") + 1]
            return os.makedev(int(major), int(minor)), fstype.decode("ascii", "replace")
    raise ValueError("the file's mount is not in mountinfo")
