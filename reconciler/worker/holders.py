"""Holders: which processes keep a mount busy. For the operator, and to know whose end to wait for.

Best effort: a process that keeps it busy by a thread's own directory or a mapped file alone is not
found. It reads links and tables in /proc and touches nothing they point to, so that neither a dead
filesystem nor a process in trouble can make it hang (``cmdline``, ``maps`` and ``map_files`` wait
for a lock of the process, ``stat`` on a link for the filesystem; none of them is used).

Anybody may have a million descriptors, and mounts in namespaces of his own. So directories and
programs of all processes are looked at first, then a few descriptors of each, then the rest; and
all of it ends with a budget: whoever is not found then is not named, and nothing else.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

from reconciler import kernel
from reconciler.clock import Deadline
from reconciler.model.outcome import Holder
from reconciler.probe.mounts import parse, read_table
from reconciler.probe.process import MOST_MOUNTS, read_name

_FOUND: Final = 16  # holders to name
_PROCESSES: Final = 65_536  # to look at
_FEW: Final = 64  # descriptors of each process, before the rest of anybody's
_HANDLES: Final = 65_536  # of one process
SECONDS: Final = 1.0
"""How long the whole search may take: the bundle's next attempt waits for it."""
_MOST_TABLE: Final = 1 << 22  # bytes of another namespace's mount table
_LINKS: Final = ("cwd", "root", "exe")
_NUMBER: Final = re.compile(rb"[0-9]+\Z")


def holders(bundle_fd: int, path: bytes, proc: bytes = b"/proc") -> tuple[Holder, ...]:
    """Find who uses what is mounted at ``path`` below a bundle, or holds a copy of the mount.

    Copies in other mount namespaces are looked for only where no direct user is found: a copy that
    shares our mount events goes with it and is in nobody's way.
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
    budget = Deadline(SECONDS)
    users = tuple(islice(_users(places, point, budget), _FOUND))
    return users or tuple(islice(_copies(places, seen.mount_id, budget), _FOUND))


def _users(places: Sequence[bytes], point: bytes, budget: Deadline) -> Iterator[Holder]:
    """Give the processes with a directory, program or file on the mount."""
    found = set[bytes]()
    for uses in (_links, partial(_handles, range(_FEW)), partial(_handles, range(_FEW, _HANDLES))):
        for place in places:
            how = next(uses(place, point, budget), None) if place not in found else None
            if how is not None:
                found.add(place)
                yield _holder(place, how)
            if budget.is_over:
                return


def _links(place: bytes, point: bytes, _: Deadline) -> Iterator[str]:
    return (link for link in _LINKS if _leads_below(place + b"/" + link.encode(), point))


def _handles(which: range, place: bytes, point: bytes, budget: Deadline) -> Iterator[str]:
    try:
        with os.scandir(place + b"/fd") as handles:
            for entry in islice(handles, which.start, which.stop):
                if _leads_below(place + b"/fd/" + entry.name, point):
                    yield "fd"
                if budget.is_over:
                    return
    except OSError:
        return


def _leads_below(link: bytes, point: bytes) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False  # it ended, or a thread of the kernel, or not for us to see
    return target == point or target.startswith(point + b"/")


def _copies(places: Iterable[bytes], mount_id: int, budget: Deadline) -> Iterator[Holder]:
    """Give one process for each other mount namespace where the same thing is mounted."""
    ours = _mounted(b"/proc/self", MOST_MOUNTS)
    what = next((key for number, key in ours if number == mount_id), None)
    if what is None:
        return
    seen = {_namespace(b"/proc/self")}
    for place in places:
        if budget.is_over:
            return
        namespace = _namespace(place)
        if namespace is None or namespace in seen:
            continue
        seen.add(namespace)
        if any(key == what for _, key in _mounted(place, _MOST_TABLE)):
            yield _holder(place, "mount namespace")


def _mounted(place: bytes, most: int) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Give id, and filesystem with the directory of it, of each mount of a process.

    Nothing where its table is longer than ``most`` bytes.
    """
    proc, _, who = place.rpartition(b"/")
    try:
        data = read_table(who, proc, most=most)
    except OSError:
        return
    for entry in parse(data):
        yield entry.mount.mount_id, (entry.mount.device, entry.mount.root)


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
