"""What other mount namespaces have mounted in the state tree, and would lose by our rmdir.

The kernel keeps a mount point from being removed in the namespace it is mounted in; in all others
it is detached without a word (vfs_rmdir, detach_mounts). A bind or an overlay loses nothing by
that, its filesystem stays; one that lives in memory ends with its last mount. So only those count.

One pass asks one process of each mount namespace for its table, and is a moment old when it is
used: what is mounted there after it, or by a process whose table cannot be read, is not seen.
Namespaces that somebody made in a user namespace of their own do not count: anybody can, and could
keep every bundle from being cleaned. For the same reason nothing bounds how many processes and
namespaces are looked at but the kernel: whoever fills up a bound hides the rest, or blocks all.
A pass is whole or ends with an error. Reads only; opens nothing but /proc.
"""

import os
from collections.abc import Iterator
from errno import EFBIG, EINVAL, ENOENT, ESRCH
from typing import Final, NamedTuple

from reconciler.decide.foreign_mounts import VOLATILE
from reconciler.probe.mounts import MountEntry, mount_at, parse, read_table
from reconciler.probe.process import MOST_MOUNTS, PROC

_GONE: Final = frozenset({ENOENT, ESRCH, EINVAL})  # EINVAL: it has left its namespaces already
_DEEPEST: Final = 64  # mounts above each other
_TYPES: Final = frozenset(name.encode() for name in VOLATILE)


class Elsewhere(NamedTuple):
    """A mount of a filesystem in memory, seen in another mount namespace.

    Attributes:
        path: Where in the state tree: ``<namespace>/<id>/...``.
        pid: A process of that namespace.
        fstype: Filesystem type.
        device: Device number of the filesystem.
        root: Directory of it that is mounted.
    """

    path: bytes
    pid: int
    fstype: str
    device: int
    root: bytes


def mounted_elsewhere(tree: bytes, proc: bytes = PROC) -> tuple[Elsewhere, ...]:
    """Pass over all mount namespaces once; ``tree`` is the state tree's real path.

    Raises:
        OSError: It cannot be known: where the tree lies, or what one of them has mounted.
    """
    place = _place_of(tree, proc)
    return tuple(one for pid, table in _tables(proc) for one in _find(table, place, pid))


class _Place(NamedTuple):
    """A directory by its filesystem: in every namespace the same."""

    device: int
    path: bytes


def _place_of(tree: bytes, proc: bytes) -> _Place:
    entry = mount_at(tree, proc)
    if entry is None:
        raise OSError(ENOENT, "the state directory's mount is not in the mount table", tree)
    mount = entry.mount
    return _Place(mount.device, _below(mount.root, tree[len(mount.point.rstrip(b"/")) :]))


def _tables(proc: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the table of one process for each other mount namespace of our user namespace."""
    own = proc + b"/self/ns/"
    seen = {os.readlink(own + b"mnt")}
    user = _link(own + b"user")
    for pid, who, space in _spaces(proc):
        if space in seen or _link(b"%s/%s/ns/user" % (proc, who)) != user:
            continue
        table = _read(who, proc)
        if not table:
            continue  # it has just ended; another one of the namespace may tell
        seen.add(space)
        yield pid, table


def _spaces(proc: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Give each process, what to look at below /proc, and its mount namespace.

    A first thread that has ended is in none; its process is where the other threads are.
    """
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        space = _link(b"%s/%s/ns/mnt" % (proc, name))
        if space is not None:
            yield int(name), name, space
            continue
        for who in _threads(name, proc):
            space = _link(b"%s/%s/ns/mnt" % (proc, who))
            if space is not None:
                yield int(name), who, space


def _threads(name: bytes, proc: bytes) -> list[bytes]:
    above = b"%s/task/" % name
    try:
        with os.scandir(proc + b"/" + above) as threads:
            return [above + thread.name for thread in threads]
    except OSError:
        return []  # it is gone


def _find(table: bytes, place: _Place, pid: int) -> Iterator[Elsewhere]:
    if b" %d:%d " % (os.major(place.device), os.minor(place.device)) not in table:
        return  # most containers have nothing of the state directory's filesystem
    entries = {entry.mount.mount_id: entry for entry in parse(table)}
    for entry in entries.values():
        mount = entry.mount
        if mount.fstype not in _TYPES:
            continue
        path = _path_in(entry, entries, place)
        if path:
            yield Elsewhere(path, pid, mount.fstype.decode(), mount.device, mount.root)


def _path_in(entry: MountEntry, entries: dict[int, MountEntry], place: _Place) -> bytes:
    """Tell where in the tree something is mounted, itself or what it is mounted on; empty if not.

    A name in a path may be hidden by a mount above it; the chain of mounts is what the kernel has.
    """
    child = entry
    for _ in range(_DEEPEST):
        parent = entries.get(child.parent_id)
        if parent is None or parent is child:
            return b""
        if parent.mount.device == place.device:
            below = child.mount.point[len(parent.mount.point.rstrip(b"/")) :]
            inside = place.path + b"/"
            path = _below(parent.mount.root, below)
            if path.startswith(inside):
                return path[len(inside) :]
        child = parent
    return b""


def _below(root: bytes, path: bytes) -> bytes:
    return (root.rstrip(b"/") + b"/" + path.strip(b"/")).rstrip(b"/")


def _link(path: bytes) -> bytes | None:
    """Read a link; None if its process is gone, not ours to see, or this kernel has none."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _read(who: bytes, proc: bytes) -> bytes:
    """Read the table of a process or a thread; empty if it has ended or is not ours to see."""
    try:
        return read_table(who, proc, most=MOST_MOUNTS)
    except PermissionError:
        return b""
    except OSError as error:
        if error.errno in _GONE:
            return b""
        why = error.strerror
        if error.errno == EFBIG:
            why = f"more than {MOST_MOUNTS >> 20} MiB; unmount there what nobody needs"
        raise OSError(error.errno, f"the mount table of pid {who.decode()}: {why}") from None
