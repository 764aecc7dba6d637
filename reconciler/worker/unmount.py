"""Unmount what is mounted on one name below a bundle, one layer after the other.

Called with a handle on the bundle, a path below it, and the mounts that were judged. It must never
unmount a mount nobody judged, never follow a symlink, never detach lazily unless that was asked
for (and never what has a mount below it), and never hold a handle on the mount itself, which would
make it busy. Whether a mount may go at all (foreign, tmpfs) was decided before.
"""

import os
from errno import EBUSY, EINVAL
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import escape
from reconciler.model.outcome import BlockReason
from reconciler.probe.mounts import MOUNTINFO, parse, read_table
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.step_log import Tally

_BOUND: Final = 32


class _Place(NamedTuple):
    """Where the mounts are: a name in a directory, and the path people know it by."""

    parent: int
    name: bytes
    path: str


def unmount_stack(
    bundle_fd: int, path: bytes, judged: frozenset[int], tally: Tally, *, lazy: bool = False
) -> int:
    """Take off every layer that is mounted at ``path``.

    Args:
        bundle_fd: Handle on the bundle directory.
        path: Relative to it; nothing on the way there may be a mount or a symlink.
        judged: Mount ids that may be unmounted.
        tally: Counts the layers taken off; none if nothing is mounted there, or the name is gone or
            is a symlink.
        lazy: Detach what is busy (MNT_DETACH) instead of giving up.

    Returns:
        How many layers were busy and only detached.

    Raises:
        Blocked: MOUNT_BUSY (:func:`reconciler.worker.holders.holders` names the holders);
            FOREIGN_MOUNT for one on it or below it that was not judged; IMMUTABLE for one that is
            not ours to unmount.

    """
    try:
        parent, name = _open_parent(bundle_fd, path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise blocked_by(error, escape(path)) from None
    try:
        place, detached = _Place(parent, name, escape(path)), 0
        for _ in range(_BOUND):
            top = _topmost(place)
            if top is None:
                return detached
            if top not in judged:
                raise Blocked(BlockReason.FOREIGN_MOUNT, place.path, "mounted since it was judged")
            detached += _take_one(place, top, tally, lazy=lazy)
        if _topmost(place) is not None:
            raise Blocked(
                BlockReason.MOUNT_BUSY, place.path, f"still mounted after {_BOUND} layers"
            )
        return detached
    finally:
        os.close(parent)


def _open_parent(bundle_fd: int, path: bytes) -> tuple[int, bytes]:
    """Open the directory that holds the mount point, and no mount; give its handle and the name."""
    above, _, name = path.rpartition(b"/")
    if name in {b"", b".", b".."}:
        msg = f"not the path of a mount point: {escape(path)!r}"
        raise ValueError(msg)
    if not above:
        return os.dup(bundle_fd), name
    return kernel.open_beneath(bundle_fd, above, directory=False), name


def _take_one(place: _Place, top: int, tally: Tally, *, lazy: bool) -> bool:
    """Take off one layer; true if it was busy and only detached."""
    try:
        tally.add(_unmount(place, top, kernel.UMOUNT_NOFOLLOW))
    except Blocked as blocked:
        if not lazy or blocked.reason is not BlockReason.MOUNT_BUSY:
            raise
    else:
        return False
    gone = _unmount(place, top, kernel.UMOUNT_NOFOLLOW | kernel.MNT_DETACH)
    tally.add(gone)
    return gone


def _topmost(place: _Place) -> int | None:
    """Give the id of the mount that covers the others; None if nothing is mounted."""
    try:
        seen = kernel.statx(place.parent, place.name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise blocked_by(error, place.path) from None
    return seen.mount_id if seen.is_mount_root else None


def _unmount(place: _Place, top: int, flags: int) -> bool:
    """Unmount one layer; false if somebody else was faster.

    Raises:
        Blocked: MOUNT_BUSY; or FOREIGN_MOUNT, where it is a mount below that keeps it busy.
    """
    try:
        # A path is all that umount takes; this one is a handle and one name, not followed.
        kernel.umount2(b"/proc/self/fd/%d/%s" % (place.parent, place.name), flags)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == EINVAL:
            if _topmost(place) != top:
                return False
            detail = "locked by another mount namespace"
            raise Blocked(BlockReason.IMMUTABLE, place.path, detail) from None
        if error.errno == EBUSY:
            _refuse_nested(place, top)
        raise blocked_by(error, place.path) from None
    return True


def _refuse_nested(place: _Place, top: int) -> None:
    """Raise if it is a mount below this one that keeps it busy."""
    try:
        entries = list(parse(read_table()))
    except OSError as error:
        raise blocked_by(error, escape(MOUNTINFO)) from None
    point = next((one.mount.point for one in entries if one.mount.mount_id == top), b"")
    for entry in entries:
        if entry.parent_id == top:
            path = place.path + escape(entry.mount.point[len(point) :])
            raise Blocked(BlockReason.FOREIGN_MOUNT, path, "mounted below")
