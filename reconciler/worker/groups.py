"""Groups: remove a dead container's control groups, by rmdir alone and only if nothing runs there.

A path that came out of a file is believed only as far as the cgroup mount goes: it is resolved
below a handle on a mounted cgroup hierarchy, without symlinks, and its last part must carry the
container's id. No process is ever moved or signalled here (design section 3, step 5; I14).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EBUSY, ENODEV, ENOENT
from typing import Final

from reconciler import kernel
from reconciler.model.ids import escape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath
from reconciler.probe.cgroups import CgroupDir, children
from reconciler.probe.process import read_whole
from reconciler.worker.blocked import Blocked
from reconciler.worker.objects import ObjectId, check_object
from reconciler.worker.step_log import Kept, Tally

_SCOPE: Final = ".scope"
_PID_1: Final = b"/proc/1"
_TRANSIENT: Final = b"/root/run/systemd/transient/"
"""Where systemd keeps units that were made by a call, as runc's scopes are (systemd.unit(5))."""

_LIMIT: Final = 1 << 16
_DEPTH: Final = 64  # no real container nests its groups this deep


def _allow() -> None:
    pass


def remove_group(  # noqa: PLR0913 - what was judged, and where
    top: int,
    group: CgroupDir,
    id_: str,
    judged: ObjectId | None,
    tally: Tally,
    *,
    refuse: Callable[[], None] = _allow,
) -> None:
    """Remove one container's group in one hierarchy, if there is one, with the empty ones below.

    Args:
        top: Handle on the mounted hierarchy, ``group.mount``.
        group: Which.
        id_: The container's.
        judged: What was looked at when it was judged.
        tally: Counts the groups removed.
        refuse: Asked right before, for a group cannot be put aside: raises Kept if it must stay.

    Raises:
        Kept: It does not carry the id, or is not the group that was judged.
        Blocked: It holds a process: somebody lives after all; or systemd still has it as a scope.
        OSError: The kernel refused.
    """
    path = group.relative
    parts = [part for part in path.split(b"/") if part]
    if not parts or not carries(escape(parts[-1]), id_):
        raise Kept(f"cgroup {escape(path)} does not carry the id")
    with (
        suppress(FileNotFoundError),
        beneath(top, b"/".join(parts[:-1]) or b".") as parent,
    ):
        _leave_to_systemd(parent, parts[-1])
        refuse()
        check_object(kernel.statx(parent, parts[-1]), judged, f"cgroup {escape(path)}")
        _remove(parent, parts[-1], tally)


def carries(name: str, id_: str) -> bool:
    """Return whether a group's name is that of a container: the id, or systemd's scope of it."""
    scope = name.removesuffix(_SCOPE)
    return name == id_ or (scope != name and (scope == id_ or scope.endswith("-" + id_)))


def _leave_to_systemd(parent: int, name: bytes) -> None:
    """Raise Blocked if a group is a scope that systemd has not taken away yet.

    It does so as soon as the kernel tells it that the scope is empty, unless it is held up. A group
    removed before that is never told of: the unit would stay for good, and runc, which is content
    with a unit of that name, would leave the next container of it in containerd's own group.
    """
    if not escape(name).endswith(_SCOPE):
        return
    if read_whole(_PID_1 + b"/comm") != b"systemd\n":
        return
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        os.stat(_PID_1 + _TRANSIENT + name, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise Blocked(BlockReason.SCOPE, escape(name), "if it stays: systemctl stop that scope")


def _remove(parent: int, name: bytes, tally: Tally) -> None:
    """Try rmdir first: the kernel refuses it for a group with processes or groups in it."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno != EBUSY:
            raise
        _remove_below(parent, name, tally)
        os.rmdir(name, dir_fd=parent)
    tally.add()


def _remove_below(parent: int, name: bytes, tally: Tally) -> None:
    """Make sure that nothing lives in or below a group, then remove what is below it."""
    with beneath(parent, name) as group:
        paths = list(_below(group, b"", _DEPTH))
        for path in (b"", *paths):
            if _is_populated(group, path):
                where = escape(b"/".join((name, path)).rstrip(b"/"))
                raise Blocked(BlockReason.CGROUP, where, "a process has appeared in it")
        for path in paths:
            with suppress(FileNotFoundError):  # another bundle's, which is removed just now
                os.rmdir(path, dir_fd=group)
                tally.add()


def _below(group: int, path: bytes, depth: int) -> Iterator[bytes]:
    """Give the groups below, leaf first, relative to ``group``."""
    if depth == 0:
        raise Kept("cgroups too deep to be a container's")
    with suppress(FileNotFoundError):
        for child in children(group, path):
            yield from _below(group, child, depth - 1)
            yield child


def _is_populated(group: int, path: bytes) -> bool:
    """Ask version 2's events, which speak for the groups below too, else version 1's tasks.

    One that has gone meanwhile holds nobody.
    """
    prefix = path + b"/" if path else b""
    try:
        try:
            events = kernel.read_beneath(group, prefix + b"cgroup.events", _LIMIT)
        except FileNotFoundError:
            return bool(kernel.read_beneath(group, prefix + b"tasks", _LIMIT).strip())
    except OSError as error:
        if error.errno in {ENOENT, ENODEV}:
            return False
        raise
    return b"populated 0" not in events.splitlines()
