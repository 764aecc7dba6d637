"""Preflight: measures where a worker stands, for the guards to judge (design section 4).

Namespaces are compared with those of containerd if it answers, else of a living shim of this tree,
else of pid 1. It is a worker that measures: it is what will act, and the parent of a daemon may not
look at other processes' namespaces any more. Reads only. Nothing here decides.

Shims of another containerd may be seen here, too, with the same command line: a node in a container
has containerd's usual paths. A shim is told by the directory it works in, which is the bundle it
was started for and which it never leaves (containerd `runtime/v2/shim/util.go`, ``Command`` sets
``Dir``).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import ENOENT, ENOTDIR
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.evidence import Answer, ShimProcess
from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout
from reconciler.probe.namespaces import (
    Namespaces,
    TreeMount,
    namespaces_of,
    peer_pid,
    same,
    shares_mount,
    tree_mount,
)
from reconciler.probe.privileges import WORKER
from reconciler.probe.process import PROC, is_leaving, read_capabilities
from reconciler.worker.messages import PreflightReport, Progress
from reconciler.worker.step_log import Note

INITIAL: Final = Namespaces("pid:[4026531836]", "mnt:[4026531832]", "time:[4026531834]")
"""The machine's first namespaces; their numbers are fixed (linux/nsfs.h, mnt since 6.17)."""

SLOW: Final = 1.0
"""Seconds from which on a part of the measurement is said to have been slow."""

CONNECT_SECONDS: Final = 0.1
"""How long containerd's socket may take to be connected to."""

_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW


class Reference(NamedTuple):
    """A process to compare with; pid 0 if it has none in our pid namespace."""

    pid: int
    name: str


class Timed:
    """Takes the time of each part, and notes which is under way, should it never end.

    Args:
        clock: The only source of time.
        note: Takes down how far it is.

    Attributes:
        slow: The parts that took long, and how long.
    """

    def __init__(self, clock: SystemClock, note: Note) -> None:
        self._clock = clock
        self._note = note
        self.slow: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time one part."""
        self._note(Progress(name))
        began = self._clock.monotonic()
        yield
        took = self._clock.monotonic() - began
        if took >= SLOW:
            self.slow.append(f"{name} took {took:.1f} s")


def measure(layout: Layout, shims: Iterable[ShimProcess], timed: Timed) -> PreflightReport:
    """Measure where this process stands; where containerd is silent, by these living shims."""
    with timed.part("finding the mount of the state directory"):
        mount, fstype = _tree(layout.tasks)
    with timed.part("comparing namespaces with containerd's"):
        reference, alike = _compare_with_first_there(references(layout, shims), mount)
    lacking = lacking_capabilities()
    return PreflightReport(
        reference=reference.name,
        same_pids=alike.pids,
        same_time=alike.time,
        same_mounts=alike.mounts,
        shared_tree=alike.tree,
        fstype=fstype,
        openat2=kernel.has_openat2(),
        lacking=("what cannot even be told",) if lacking is None else lacking,
        slow=tuple(timed.slow),
    )


class _Alike(NamedTuple):
    """In what we are like the reference, and whether it sees our tree's mount as we do."""

    pids: Answer
    time: Answer
    mounts: Answer
    tree: Answer


def _compare_with_first_there(
    candidates: Iterable[Reference], mount: TreeMount | None
) -> tuple[Reference, _Alike]:
    """Compare with the first that does not end meanwhile: the dying have no namespaces."""
    for reference in candidates:
        alike = _compare(reference, mount)
        if alike is not None:
            return reference, alike
    raise RuntimeError("pid 1 has ended")


def _compare(reference: Reference, mount: TreeMount | None) -> _Alike | None:
    """Compare with a process; None if it has ended meanwhile or is about to."""
    if reference.pid == 0:
        return _Alike(Answer.NO, Answer.NONE, Answer.NONE, Answer.NONE)  # none in our namespace
    try:
        pidfd = os.pidfd_open(reference.pid)
    except ProcessLookupError:
        return None
    try:
        pids, time, mounts = _compare_namespaces(reference, namespaces_of())
        tree = Answer.NONE
        if mounts is not Answer.YES and mount is not None:
            tree = shares_mount(mount, reference.pid)
        # Asked last: what it had left by then may have been taken for something else.
        return None if is_leaving(reference.pid, pidfd) else _Alike(pids, time, mounts, tree)
    finally:
        os.close(pidfd)


def _compare_namespaces(reference: Reference, own: Namespaces) -> tuple[Answer, Answer, Answer]:
    """Compare pid, time and mount namespace with the reference's."""
    theirs = namespaces_of(reference.pid)
    if reference.pid != 1:
        return same(own.pid, theirs.pid), same(own.time, theirs.time), same(own.mnt, theirs.mnt)
    if own.pid != INITIAL.pid:
        # Every pid namespace has a pid 1: this one proves nothing.
        return Answer.NONE, Answer.NONE, Answer.NONE
    # The machine's own pid 1 stands in its first namespaces, readable or not.
    time = Answer.YES if own.time == INITIAL.time else same(own.time, theirs.time)
    mnt = Answer.YES if own.mnt == INITIAL.mnt else same(own.mnt, theirs.mnt)
    return Answer.YES, time, mnt


def _tree(tree: bytes) -> tuple[TreeMount | None, str | None]:
    try:
        mount = tree_mount(tree)
    except FileNotFoundError:
        return None, None
    return mount, mount.fstype if mount else ""


def lacking_capabilities(proc: bytes = PROC) -> tuple[str, ...] | None:
    """Name the needed capabilities that are not in effect; None if that cannot be known."""
    effective = read_capabilities(proc)
    if effective is None:
        return None
    return tuple(one.name for one in WORKER if one.needed and not effective >> one.number & 1)


def references(layout: Layout, shims: Iterable[ShimProcess]) -> Iterator[Reference]:
    """Name whom to compare with, best first; the next one counts only if one has just ended.

    Shims are processes of containerd's user, as the pass over /proc has told them from pretenders.
    One that cannot be shown to work elsewhere is ours if it was given containerd's address, is in
    our own user namespace and shows its executable.
    """
    pid = peer_pid(layout.address, CONNECT_SECONDS)
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
    """Return whether a process is in our own user namespace and shows what it executes."""
    try:
        theirs, own = (os.readlink(b"/proc/%b/ns/user" % who) for who in (b"%d" % pid, b"self"))
        return theirs == own and bool(os.readlink(b"/proc/%d/exe" % pid))
    except OSError:
        return False


def works_in(layout: Layout, shim: ShimProcess) -> Answer:
    """Return whether a shim works in this tree: in the very bundle that its command line names.

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


def serves_sandbox(layout: Layout, shim: ShimProcess) -> bool:
    """Return whether a shim works in the sandbox of this containerd that its command line names.

    With `sandboxer = "shim"` it works there and not in a bundle (`core/sandbox/controller` of
    containerd 2.x, `plugins/sandbox/controller.go`). Not if that cannot be known.
    """
    sandbox = layout.sandboxes + b"/" + shim.key.path
    try:
        here = kernel.statx(kernel.AT_FDCWD, sandbox)
        there = kernel.statx(kernel.AT_FDCWD, b"/proc/%d/cwd" % shim.pid, _FOLLOW)
    except OSError:
        return False
    return (here.dev, here.ino) == (there.dev, there.ino)


def _bundle(layout: Layout, shim: ShimProcess) -> kernel.Stat | None:
    try:
        return kernel.statx(kernel.AT_FDCWD, layout.bundle(shim.key))
    except OSError as error:
        if error.errno in {ENOENT, ENOTDIR}:
            return None
        raise
