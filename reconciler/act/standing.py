"""Standing: measures where we stand, for the guards to judge (design section 4).

Compared with containerd if it answers, else with a living shim of this tree, else with pid 1.
:func:`measure` runs in a worker, which is what will act, and because the parent of a daemon may not
look at other processes' namespaces any more. The instance lock alone is the parent's: it has to
last, and an acting mode wants it while an observing one must not take it. Reads only, but for that.
Nothing here decides.
"""

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.act.guards import Standing, refusals, unmeasured
from reconciler.act.lock import InstanceLock
from reconciler.act.messages import Stood
from reconciler.act.reference import Reference, references
from reconciler.model.evidence import Answer, ShimProcess
from reconciler.model.layout import Layout
from reconciler.model.observations import Refusal
from reconciler.probe.namespaces import (
    Namespaces,
    TreeMount,
    lacking_capabilities,
    namespaces_of,
    same,
    shares_mount,
    tree_mount,
)
from reconciler.probe.process import is_leaving

INITIAL: Final = Namespaces("pid:[4026531836]", "mnt:[4026531832]", "time:[4026531834]")
"""The machine's first namespaces; their numbers are fixed (linux/nsfs.h, mnt since 6.17)."""


class Post:
    """Implements `ports.Guards` for a real node.

    Args:
        layout: Where things are.
        stand: Has a worker measure; None if it gave no answer, which is a refusal.
        lock: Taken on each check; None for modes that only observe.
        allow_disk: The operator allows a state tree that is not on a tmpfs.
    """

    def __init__(
        self,
        layout: Layout,
        stand: Callable[[], Awaitable[Stood | None]],
        lock: InstanceLock | None,
        *,
        allow_disk: bool = False,
    ) -> None:
        self._layout = layout
        self._stand = stand
        self._lock = lock
        self._allow_disk = allow_disk

    async def check(self) -> tuple[Refusal, ...]:
        """Name every reason not to act; empty if there is none."""
        stood = await self._stand()
        if stood is None:
            return unmeasured()
        tree = self._layout.tasks
        other, lock_trouble = _try_lock(self._lock, tree)
        standing = Standing(stood, tree, self._allow_disk, other, lock_trouble)
        return refusals(standing)


def measure(layout: Layout, shims: Iterable[ShimProcess]) -> Stood:
    """Measure where this process stands.

    Args:
        layout: Where things are.
        shims: The living ones, to compare with where containerd is silent.
    """
    mount, fstype = _tree(layout.tasks)
    lacking = lacking_capabilities()
    reference, alike = _compare_with_first_there(references(layout, shims), mount)
    return Stood(
        reference=reference.name,
        same_pids=alike.pids,
        same_time=alike.time,
        same_mounts=alike.mounts,
        shared_tree=alike.tree,
        fstype=fstype,
        openat2=kernel.has_openat2(),
        lacking=("what cannot even be told",) if lacking is None else lacking,
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


def _try_lock(lock: InstanceLock | None, tree: bytes) -> tuple[int | None, str]:
    if lock is None:
        return None, ""
    try:
        found = kernel.statx(kernel.AT_FDCWD, tree)
    except FileNotFoundError:
        return None, ""  # nothing to act on yet
    except OSError as error:
        return None, f"{os.fsdecode(tree)}: {error.strerror}"
    try:
        taken = lock.take(found.dev, found.ino)
    except OSError as error:
        return None, f"{error.filename!r}: {error.strerror}"
    return (taken.pid if taken else None), ""
