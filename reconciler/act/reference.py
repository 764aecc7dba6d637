"""Reference: the process whose namespaces are the right ones to act from (design section 4).

containerd if it answers, else a living shim of this tree, else pid 1. Shims of another containerd
may be seen here, too, with the same command line: a node in a container has containerd's usual
paths. A shim is told by the directory it works in, which is the bundle it was started for and which
it never leaves (containerd `runtime/v2/shim/util.go`, ``Command`` sets ``Dir``). Reads only.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from errno import ENOENT, ENOTDIR
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.evidence import Answer, ShimProcess
from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout
from reconciler.probe.locks import Lock, LockState, lock_holder
from reconciler.probe.namespaces import peer_pid
from reconciler.probe.owner import doubt_about_root

_CONNECT_SECONDS: Final = 0.1
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW


def metadata_lock(layout: Layout, *, owner: bool = False) -> Lock:
    """Tell who holds containerd's metadata lock; first of all its socket's owner is asked.

    Args:
        layout: Where it is.
        owner: Find out of a free one, too, whether it is that of the tree's own containerd.
    """
    pid = peer_pid(layout.address, _CONNECT_SECONDS)
    lock = lock_holder(layout.metadata_lock, likely=(pid,) if pid else ())
    if not owner or lock.state is not LockState.FREE:
        return lock
    doubt = doubt_about_root(layout)
    # That took its time, in which containerd may have come.
    lock = lock_holder(layout.metadata_lock, likely=(pid,) if pid else ())
    return replace(lock, doubt=doubt) if lock.state is LockState.FREE else lock


class Reference(NamedTuple):
    """A process to compare with; pid 0 if it has none in our pid namespace."""

    pid: int
    name: str


def references(layout: Layout, shims: Iterable[ShimProcess]) -> Iterator[Reference]:
    """Name whom to compare with, best first; the next one counts only if one has just ended.

    Shims are processes of containerd's user, as the pass over /proc has told them from pretenders.
    One that cannot be shown to work elsewhere is ours if it was given containerd's address, is in
    our own user namespace and shows its executable.
    """
    pid = peer_pid(layout.address, _CONNECT_SECONDS)
    if pid is not None:
        yield Reference(pid, f"containerd (pid {pid})" if pid else "containerd (not seen here)")
    unsure: list[Reference] = []
    given = {"", escape(layout.address)}
    for shim in shims:
        match works_in(layout, shim):
            case Answer.YES:
                yield Reference(shim.pid, f"a shim (pid {shim.pid})")
            case Answer.NONE if shim.address in given and _is_at_home(shim.pid):
                unsure.append(Reference(shim.pid, f"a shim (pid {shim.pid})"))
    yield from unsure
    yield Reference(1, "pid 1")


def _is_at_home(pid: int) -> bool:
    """Tell whether a process is in our own user namespace and shows what it executes."""
    try:
        theirs, own = (os.readlink(b"/proc/%b/ns/user" % who) for who in (b"%d" % pid, b"self"))
        return theirs == own and bool(os.readlink(b"/proc/%d/exe" % pid))
    except OSError:
        return False


def works_in(layout: Layout, shim: ShimProcess) -> Answer:
    """Tell whether a shim works in this tree: in the very bundle that its command line names.

    No only for one that is in a bundle of that name in another tree.
    """
    place = b"/proc/%d/cwd" % shim.pid
    try:
        path = os.readlink(place)
        there = kernel.statx(kernel.AT_FDCWD, place, _FOLLOW)
        here = _bundle(layout, shim)
    except OSError:
        return Answer.NONE
    if here is not None and (here.dev, here.ino) == (there.dev, there.ino):
        return Answer.YES
    # One whose bundle was removed under it has a path that ends otherwise: it may be ours.
    is_bundle = path.endswith(b"/".join((b"", TASKS, shim.key.path)))
    return Answer.NO if is_bundle else Answer.NONE


def _bundle(layout: Layout, shim: ShimProcess) -> kernel.Stat | None:
    try:
        return kernel.statx(kernel.AT_FDCWD, layout.bundle(shim.key))
    except OSError as error:
        if error.errno in {ENOENT, ENOTDIR}:
            return None
        raise
