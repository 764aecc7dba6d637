"""Groups: remove a dead container's control groups, by rmdir alone and only if nothing runs there.

A path that came out of a file is believed only as far as the cgroup mount goes: it is resolved
below a handle on a mounted cgroup hierarchy, without symlinks, and its last part must carry the
container's id. No process is ever moved or signalled here (design section 3, step 5; I14).
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from reconciler import kernel
from reconciler.act.blocked import Blocked
from reconciler.act.record import Kept, Tally
from reconciler.model.ids import show
from reconciler.model.outcome import BlockReason

_MOUNT: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_LIMIT: Final = 1 << 16
_DEPTH: Final = 64  # the kernel's own default limit is unlimited; nothing real is this deep


def remove_group(mount: bytes, path: bytes, id_: bytes, tally: Tally) -> bool:
    """Remove one container's group in one hierarchy, with the empty groups below it.

    Args:
        mount: Where the hierarchy is mounted.
        path: The group, relative to that mount.
        id_: The container's id.
        tally: Counts what was removed.

    Returns:
        Whether there was such a group.

    Raises:
        Kept: It does not carry the id, or ``mount`` is no cgroup hierarchy.
        Blocked: It holds a process: somebody lives after all.
        OSError: The kernel refused.
    """
    parts = [part for part in path.split(b"/") if part]
    if not parts or not carries(parts[-1], id_):
        raise Kept(f"cgroup {show(path)} does not carry the id")
    try:
        parent = _open_parent(mount, b"/".join(parts[:-1]) or b".")
    except FileNotFoundError:
        return False
    try:
        return _remove(parent, parts[-1], tally, _DEPTH)
    finally:
        os.close(parent)


def carries(name: bytes, id_: bytes) -> bool:
    """Tell whether a group's name is that of a container: the id, or systemd's scope of it."""
    scope = name.removesuffix(b".scope")
    return name == id_ or (scope != name and (scope == id_ or scope.endswith(b"-" + id_)))


def _open_parent(mount: bytes, path: bytes) -> int:
    top = os.open(mount, _MOUNT)
    try:
        if kernel.fs_type(top) not in {kernel.CGROUP_MAGIC, kernel.CGROUP2_MAGIC}:
            raise Kept(f"{show(mount)} is no cgroup hierarchy")
        return kernel.open_beneath(top, path)
    finally:
        os.close(top)


def _remove(parent: int, name: bytes, tally: Tally, depth: int) -> bool:
    try:
        group = kernel.open_beneath(parent, name)
    except FileNotFoundError:
        return False
    try:
        if depth == 0:
            raise Kept(f"cgroups too deep below {show(name)}")
        if _is_populated(group):
            raise Blocked(BlockReason.CGROUP, name, "a process has appeared in it")
        for below in _subgroups(group):
            _remove(group, below, tally, depth - 1)
    finally:
        os.close(group)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    tally.add()
    return True


def _subgroups(group: int) -> Iterator[bytes]:
    for entry in os.listdir(group):
        name = os.fsencode(entry)
        if stat.S_ISDIR(os.stat(name, dir_fd=group, follow_symlinks=False).st_mode):
            yield name


def _is_populated(group: int) -> bool:
    """Ask version 2's events, which speak for the groups below too, else version 1's tasks."""
    try:
        events = kernel.read_beneath(group, b"cgroup.events", _LIMIT)
    except FileNotFoundError:
        return bool(kernel.read_beneath(group, b"tasks", _LIMIT).strip())
    return b"populated 0" not in events.splitlines()
