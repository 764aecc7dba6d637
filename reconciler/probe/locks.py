"""Locks: who holds a lock on a file, read from /proc/locks without touching the file.

A living containerd holds a flock on its metadata file from before it sweeps dead bundles until it
dies (field-notes section 3). FREE is a proof and is said only where nothing can hide a lock; what
may be hidden is NONE. Paths and /proc flow in, a :class:`Lock` flows out; no exception escapes.

Anybody may hold locks, and the kernel takes quadratic time to tell of many: a minute for 200,000.
So whoever is likely to hold it is asked first, by his own descriptors, and the list of all locks is
read as it comes and within a budget. To be called in a worker.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Final

import msgspec

from reconciler.clock import Deadline
from reconciler.kernel import AT_FDCWD, Stat, statx
from reconciler.model.ids import escape
from reconciler.probe import reach
from reconciler.probe.beneath import identity_of
from reconciler.probe.mounts import mount_numbered
from reconciler.probe.process import read_whole

_INITIAL_PID_NAMESPACE: Final = b"pid:[4026531836]"
"""Name of the first pid namespace: PROC_PID_INIT_INO of include/linux/proc_ns.h."""

_PLAIN: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"}
)
"""Filesystems whose locks are all local and whose stat tells the inode number that locks.c prints.

Not overlay (its inode is another one), not network or FUSE (locks may be held elsewhere).
"""


BUDGET: Final = 2.0
"""Seconds that reading the list of locks may take, all passes together."""

_CHUNK: Final = 1 << 16
_LONGEST: Final = 1 << 12  # bytes of a line
_MOST_HANDLES: Final = 1 << 16  # of one process


class LockState(Enum):
    """Whether somebody holds a lock on a file."""

    HELD = "held"
    FREE = "free"  # proven: the file is there and nobody holds it
    ABSENT = "no such file"
    NONE = "no answer"
    TOO_MANY = "too many locks"  # no answer, because somebody holds very many of other files


class Lock(msgspec.Struct, frozen=True):
    """The answer.

    Attributes:
        state: See :class:`LockState`.
        pid: Who took the lock, if that is known; it may be gone and its children hold the file.
        detail: Why there is no answer, for people.
        doubt: Of a free one, why it may not be the lock of the containerd that owns the tree;
            empty only if somebody has made sure (:mod:`reconciler.probe.owner`).
    """

    state: LockState
    pid: int | None = None
    detail: str = ""
    doubt: str = "nobody has asked whose tree it is"


def lock_holder(
    path: bytes, proc: bytes = b"/proc", *, likely: Iterable[int] = (), budget: float = BUDGET
) -> Lock:
    """Find who holds a lock of any kind on a file.

    Symlinks on the way are followed, the file itself may not be one. The ``likely`` holders are
    asked first; reading the list of all locks may take ``budget`` seconds.
    """
    if why := reach.trouble(path):
        return Lock(LockState.NONE, detail=why)
    try:
        seen = statx(AT_FDCWD, path)
        held = (_held_by(pid, path, seen, proc) for pid in likely)
        return next(filter(None, held), None) or _holder(path, seen, proc, budget)
    except _TooManyError:
        return Lock(LockState.TOO_MANY, detail="there are too many locks to look through")
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.filename == path:
            return Lock(LockState.ABSENT)
        return Lock(LockState.NONE, detail=str(error))
    except (OSError, ValueError) as error:
        return Lock(LockState.NONE, detail=str(error))


class _TooManyError(Exception):
    """The budget is used up."""


def _held_by(pid: int, path: bytes, seen: Stat, proc: bytes) -> Lock | None:
    """Find the lock among a process's own descriptors; None proves nothing.

    proc_pid_fdinfo(5) tells the locks of each open file, and costs no more than that process has.
    """
    place = os.path.join(proc, b"%d" % pid)
    name = b"/" + os.path.basename(path)
    try:
        for number, handle in enumerate(os.listdir(place + b"/fd")):
            if number >= _MOST_HANDLES:
                return None
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(place + b"/fd/" + handle).endswith(name):
                    data = read_whole(place + b"/fdinfo/" + handle)
                    said = (line[5:] for line in data.split(b"\n") if line.startswith(b"lock:"))
                    if (lock := _find(said, seen.ino, {seen.dev})) is not None:
                        return lock
    except OSError:
        return None
    return None


def _holder(path: bytes, seen: Stat, proc: bytes, budget: float) -> Lock:
    if not stat.S_ISREG(seen.mode):
        return Lock(LockState.NONE, detail=f"{escape(path)} is not a regular file")
    listed, deadline = os.path.join(proc, b"locks"), Deadline(budget)
    devices = {seen.dev}
    if (lock := _find(_lines(listed, deadline), seen.ino, devices)) is not None:
        return lock
    device, fstype = _filesystem(seen.mount_id, proc)
    devices.add(device)  # btrfs: locks show the filesystem's device, stat the subvolume's
    # The kernel gives /proc/locks in pages. If an earlier lock goes away between two of them, the
    # next one is skipped; so a lock is taken to be absent only when two passes missed it.
    for _ in range(2):
        if (lock := _find(_lines(listed, deadline), seen.ino, devices)) is not None:
            return lock
    return _absence(path, seen, fstype, proc)


def _absence(path: bytes, seen: Stat, fstype: str, proc: bytes) -> Lock:
    """Return whether a lock that is not shown is not there."""
    if fstype not in _PLAIN:
        return Lock(LockState.NONE, detail=f"locks on {fstype} may not show in /proc/locks")
    # locks.c leaves out every lock whose owner has no pid in the pid namespace of this /proc.
    if os.readlink(os.path.join(proc, b"self/ns/pid")) != _INITIAL_PID_NAMESPACE:
        return Lock(
            LockState.NONE, detail="locks of processes outside this pid namespace are hidden"
        )
    again = statx(AT_FDCWD, path)
    if identity_of(again) != identity_of(seen):
        return Lock(LockState.NONE, detail=f"{escape(path)} was replaced while it was looked at")
    return Lock(LockState.FREE)


def _lines(path: bytes, deadline: Deadline) -> Iterator[bytes]:
    """Give the lines of the list of all locks as it comes.

    Raises:
        _TooManyError: It took too long.
        ValueError: A line is not as expected.
    """
    with open(path, "rb", buffering=0) as listed:
        rest = b""
        while data := listed.read(_CHUNK):
            if deadline.is_over:
                raise _TooManyError
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if len(rest) > _LONGEST:
                raise ValueError("a line without end")
        if rest:
            yield rest


def _find(lines: Iterable[bytes], inode: int, devices: set[int]) -> Lock | None:
    """Find the lock on an inode: ``1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF``.

    Raises:
        ValueError: A line is not like that; the kernel has learnt to say something else.
    """
    for line in lines:
        _, kind, *rest = line.split()
        if kind == b"->":
            continue  # waits for a lock
        pid, place = int(rest[2]), rest[3]
        major, minor, number = place.split(b":")
        if int(number) == inode and os.makedev(int(major, 16), int(minor, 16)) in devices:
            return Lock(LockState.HELD, pid if pid > 0 else None)
    return None


def _filesystem(mount_id: int, proc: bytes) -> tuple[int, str]:
    """Find a mount's device and filesystem type; ValueError if there is no such mount."""
    entry = mount_numbered(mount_id, proc)
    if entry is None:
        raise ValueError("the file's mount is not in mountinfo")
    return entry.mount.device, entry.mount.fstype.decode("ascii", "replace")
