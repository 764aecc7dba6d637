"""Holders: which processes keep a mount busy. For the operator, and to know whose end to wait for.

Best effort: a process that keeps it busy by a thread's own directory or a mapped file alone is not
found. It reads links and tables in /proc and touches nothing they point to, so that neither a dead
filesystem nor a process in trouble can make it hang (``cmdline``, ``maps`` and ``map_files`` wait
for a lock of the process, ``stat`` on a link for the filesystem; none of them is used).
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from reconciler import kernel
from reconciler.model.outcome import Holder
from reconciler.probe.mounts import parse
from reconciler.probe.process import read_name, read_whole

_FOUND: Final = 16  # holders to name
_PROCESSES: Final = 65_536  # to look at
_HANDLES: Final = 4_096  # of one process to look at
_LINKS: Final = ("cwd", "root", "exe")
_NUMBER: Final = re.compile(rb"[0-9]+\Z")


def holders(bundle_fd: int, path: bytes, proc: bytes = b"/proc") -> tuple[Holder, ...]:
    """Find who uses what is mounted at ``path`` below a bundle, or holds a copy of the mount.

    Copies in other mount namespaces are looked for only where no direct user is found: a copy that
    shares our mount events goes with it and is in nobody's way.

    Args:
        bundle_fd: Handle on the bundle directory.
        path: Mount point relative to it.
        proc: Where to look.
    """
    try:
        point = os.readlink(b"/proc/self/fd/%d" % bundle_fd) + b"/" + path
        seen = kernel.statx(bundle_fd, path)
        processes = [name for name in islice(os.listdir(proc), _PROCESSES) if _NUMBER.match(name)]
    except OSError:
        return ()
    if not seen.is_mount_root:
        return ()
    places = [proc + b"/" + name for name in processes]
    users = tuple(islice(_users(places, point), _FOUND))
    return users or tuple(islice(_copies(places, seen.mount_id), _FOUND))


def _users(places: Iterable[bytes], point: bytes) -> Iterator[Holder]:
    """Give the processes with a directory, program or file on the mount."""
    for place in places:
        how = next(_uses(place, point), None)
        if how is not None:
            yield _holder(place, how)


def _uses(place: bytes, point: bytes) -> Iterator[str]:
    for link in _LINKS:
        if _leads_below(place + b"/" + link.encode(), point):
            yield link
    try:
        with os.scandir(place + b"/fd") as handles:
            names = [entry.name for entry in islice(handles, _HANDLES)]
    except OSError:
        return
    for name in names:
        if _leads_below(place + b"/fd/" + name, point):
            yield "fd"


def _leads_below(link: bytes, point: bytes) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False  # it ended, or a thread of the kernel, or not for us to see
    return target == point or target.startswith(point + b"/")


def _copies(places: Iterable[bytes], mount_id: int) -> Iterator[Holder]:
    """Give one process for each other mount namespace where the same thing is mounted."""
    ours = _mounted(b"/proc/self/mountinfo")
    what = next((key for number, key in ours if number == mount_id), None)
    if what is None:
        return
    seen = {_namespace(b"/proc/self")}
    for place in places:
        namespace = _namespace(place)
        if namespace is None or namespace in seen:
            continue
        seen.add(namespace)
        if any(key == what for _, key in _mounted(place + b"/mountinfo")):
            yield _holder(place, "mount namespace")


def _mounted(table: bytes) -> list[tuple[int, tuple[bytes, bytes]]]:
    """Give id, and filesystem with the directory of it, of each mount in a table."""
    try:
        data = read_whole(table)
    except OSError:
        return []
    return [(entry.mount_id, (entry.device, entry.root)) for entry in parse(data)]


def _namespace(place: bytes) -> bytes | None:
    try:
        return os.readlink(place + b"/ns/mnt")
    except OSError:
        return None


def _holder(place: bytes, how: str) -> Holder:
    pid = int(place.rpartition(b"/")[2])
    try:
        name = read_name(pid).decode("utf-8", "backslashreplace")
    except OSError:
        name = "?"
    return Holder(pid, name, how)
