"""Second look: what a worker finds just before it acts must still allow it (principle 2).

The same inspection and the same rules as the parent's, but its own look and its own pass over
/proc; only containerd's word comes from the parent. Whatever differs from what was asked for ends
the attempt before anything was touched. Reads only.
"""

import os
from collections.abc import Callable

import msgspec

from reconciler import kernel
from reconciler.decide.foreign_mounts import foreign_mount
from reconciler.decide.verdicts import judge
from reconciler.model.cgroups import CgroupSource
from reconciler.model.decisions import Judgement, Verdict
from reconciler.model.evidence import Answer, Look, Mount, Node
from reconciler.model.facts import weigh
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import opened
from reconciler.probe.bundle import Resources, examine
from reconciler.probe.context import NodeContext
from reconciler.probe.points import BundleMounts, MountPoints
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import JudgedJob
from reconciler.worker.objects import find
from reconciler.worker.pods import members


class NotLeftover(Exception):  # noqa: N818 -- an answer, not an error
    """The second look disagrees.

    Attributes:
        look: What it found, None if there is no such bundle any more.
    """

    def __init__(self, why: str, look: Look | None) -> None:
        super().__init__(why)
        self.look = look


class Seen(msgspec.Struct, frozen=True):
    """A second look that agrees."""

    look: Look
    resources: Resources
    judgement: Judgement


def look_again(
    place: WorkerContext,
    job: JudgedJob,
    wanted: Verdict = Verdict.LEFTOVER,
) -> Seen:
    """Look at the bundle and judge it.

    Raises:
        NotLeftover: It is gone, another object, or of another verdict than the wanted one.
        Blocked: Something is mounted below it that we may not unmount.
    """
    key = job.key
    if key.tree:
        _refuse_other_tree(place.layout)
    scanned = place.scan()
    around = place.around(scanned)
    found = examine(around, key)
    if found is None:
        raise NotLeftover("it is gone", None)
    look = found.look
    if look.identity != job.identity:
        raise NotLeftover("another object has its name", look)
    if around.mounts is None:
        raise Blocked(BlockReason.IO, key.id, "the mount table cannot be read")
    if look.cgroup_source is not CgroupSource.RUNTIME:  # the cgroups of all others count
        scanned = place.scan(whole=True)
    node = Node(scanned, job.containerd)
    named = key.is_identifier
    young = place.clock.wall() - look.newest_mtime < job.options.settle
    pod = members(place, key, look.shim) if key.tree else Answer.NONE
    judgement = judge(weigh(key, named, look, node, pod), young=young)
    if judgement.verdict is not wanted:
        raise NotLeftover(f"{judgement.verdict.value}: {judgement.reason}", look)
    if wanted is Verdict.LEFTOVER:
        refuse_foreign(look.mounts)
        refuse_elsewhere(place, around, key)
        refuse_work_elsewhere(place, key)
    return Seen(look, found.resources, judgement)


def refuse_foreign(mounts: tuple[Mount, ...]) -> None:
    """Let only rootfs and its stack pass, and of those none whose content would be lost.

    Raises:
        Blocked: For the first other mount, by name.
    """
    found = foreign_mount(mounts)
    if found is not None:
        raise Blocked(BlockReason.FOREIGN_MOUNT, found.path, found.detail)


def refuse_elsewhere(place: WorkerContext, around: NodeContext, key: BundleKey) -> None:
    """Let nothing pass on which another mount namespace has a filesystem that rmdir would end.

    Raises:
        Blocked: For the first one, with a process of that namespace.
    """
    mounts = around.mounts_of(key)
    if mounts is None:
        raise Blocked(BlockReason.IO, key.id, "the mount table cannot be read")
    _refuse_elsewhere(place, around.tree_of(key), lambda: mounts, key)


def refuse_work_elsewhere(place: WorkerContext, key: BundleKey) -> None:
    """Do the same for what has that name in containerd's persistent tree, if anything has."""
    work = place.layout.work_of(key)
    if find(work + b"/" + key.path) is None:
        return
    try:
        with opened(work, os.O_PATH) as top:
            tree = os.readlink(b"/proc/self/fd/%d" % top)
    except OSError as error:
        raise blocked_by(error, key.id) from None
    _refuse_elsewhere(place, tree, lambda: BundleMounts(place.points.now(), tree), key)


def _refuse_elsewhere(
    place: WorkerContext, tree: bytes, mounts: Callable[[], BundleMounts], key: BundleKey
) -> None:
    bundle = key.path
    try:
        inside = bundle + b"/"
        found = [one for one in place.elsewhere(tree) if (one.path + b"/").startswith(inside)]
        ours = mounts() if found else None
    except OSError as error:
        raise blocked_by(error, key.id) from None
    for one in found:
        if ours is None or not ours.shows_outside(*one[2:]):
            detail = f"a {one.fstype} is mounted there in the mount namespace of pid {one.pid}"
            path = escape(one.path[len(bundle) + 1 :]) or "."
            raise Blocked(BlockReason.FOREIGN_MOUNT, path, detail)


def _refuse_other_tree(layout: Layout) -> None:
    try:
        with opened(layout.sandboxes, os.O_PATH | os.O_NOFOLLOW) as tree:
            refuse_other_mount(layout, tree)
    except FileNotFoundError:
        raise NotLeftover("it is gone", None) from None
    except OSError as error:
        raise blocked_by(error, escape(layout.sandboxes)) from None


def refuse_other_mount(layout: Layout, tree: int) -> None:
    """Let the tree of sandboxes be on no other mount than the tree of tasks, which guards check.

    Raises:
        Blocked: It is on another one, or the tree of tasks cannot be looked at.
    """
    try:
        tasks = kernel.statx(kernel.AT_FDCWD, layout.tasks)
    except OSError as error:  # also if it is not there: this one is, and must not pass for gone
        raise blocked_by(error, escape(layout.tasks)) from None
    if kernel.statx_handle(tree).mount_id != tasks.mount_id:
        detail = "it is on another mount than the tree of tasks"
        raise Blocked(BlockReason.FOREIGN_MOUNT, escape(layout.sandboxes), detail)


def refuse_mounts(points: MountPoints, bundle: int, key: BundleKey) -> None:
    """Make sure by the mount table itself that nothing is mounted at or below the bundle.

    ``bundle`` is a handle on it: the kernel's own path of it is what the table shows.

    Raises:
        Blocked: Something is, or it cannot be known.
    """
    try:
        path = os.readlink(b"/proc/self/fd/%d" % bundle)
        found = points.below(path)
    except OSError as error:
        raise blocked_by(error, key.id) from None
    for one in found:
        detail = f"a {escape(one.fstype)} is still mounted there"
        where = escape(one.point[len(path) + 1 :]) or "."
        raise Blocked(BlockReason.FOREIGN_MOUNT, where, detail)
