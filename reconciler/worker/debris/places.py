"""Places: removes sockets, FIFOs, work directories, mounts and hidden bundles that nobody owns.

Whatever may be used by its name is renamed first, so that the next to come makes another of it. A
mount cannot be renamed: it is unmounted by the handle of the directory that holds it, and only if
it is the very mount that was judged. None of these is ever opened.

Bundles and work directories that a removal of containerd's left as ``.<id>`` go as a bundle's end
does, with what is mounted on rootfs, and for the same reasons: a foreign mount, here or in another
mount namespace, keeps everything before anything is touched. Other containerds cannot use what is
in our trees. Whoever removes such a directory just now is a shim helper of that id, or containerd;
then it changes, and does not count as lying still.
"""

import os
from contextlib import ExitStack
from typing import Final

from reconciler import kernel
from reconciler.decide.foreign_mounts import ROOTFS, VOLATILE
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath, opened
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.debris.second_look import Judged
from reconciler.worker.fifos import FifoDir, remove_fifo_dir
from reconciler.worker.holders import holders
from reconciler.worker.objects import HIDDEN, check_object, find
from reconciler.worker.removal import hide, remove_mount_point, remove_tree
from reconciler.worker.second_look import (
    refuse_elsewhere,
    refuse_foreign,
    refuse_mounts,
    refuse_other_mount,
    refuse_work_elsewhere,
)
from reconciler.worker.sockets import finish_socket, hidden_path, remove_socket
from reconciler.worker.step_log import Kept, Tally
from reconciler.worker.unmount import unmount_stack


def remove_shim_socket(attempt: PlaceAttempt, judged: Judged) -> None:
    """Unlink a socket that nobody listens on.

    A bundle that comes later names another one: a shim that starts binds its socket anew, and none
    joins a dead one.
    """
    path, layout = judged.path, attempt.context.layout
    directory, _, name = path.rpartition(b"/")

    def remove(tally: Tally) -> str:
        if directory not in {layout.sockets, layout.own_sockets}:
            raise Kept("it is not where shims have their sockets")
        this = frozenset({judged.object})
        if name.startswith(HIDDEN):
            finish_socket(directory, directory + b"/" + name.removeprefix(HIDDEN), this, tally)
        elif find(hidden_path(path)) is not None:
            raise Kept("one that was taken out of use under its name goes first")
        else:
            remove_socket(directory, path, this, tally)
        return ""

    attempt.do("shim-socket", remove)


def remove_fifos(attempt: PlaceAttempt, judged: Judged) -> None:
    """Remove the FIFOs of one id and their directory; an empty directory alone."""
    place = judged.place

    def refuse(born: float) -> None:
        if born > place.since:
            raise Kept("a client has made FIFOs in it")

    def remove(tally: Tally) -> str:
        if place.id:
            attempt.refuse_id(place.id)
        where = FifoDir(attempt.context.layout.fifos, judged.name, judged.object)
        remove_fifo_dir(where, place.id, refuse, tally)
        return ""

    attempt.do("fifo", remove)


def remove_work_dir(attempt: PlaceAttempt, judged: Judged) -> None:
    """Remove a work directory and all in it.

    containerd makes the bundle of a name before it takes over a work directory of that name.
    """
    context, key = attempt.context, judged.key

    def remove(tally: Tally) -> str:
        this = context.layout.key_at(judged.path, key.namespace, escape(judged.name))
        root, namespace = context.layout.work_of(this), unescape(key.namespace)
        top = opened(root, os.O_PATH)
        with top as work, beneath(work, namespace) as parent:
            check_object(kernel.statx(parent, judged.name), judged.object, key.id)
            with beneath(parent, judged.name) as directory:
                refuse_mounts(context.points, directory, key)
            # One that a killed run has taken out of use has another name than the container.
            refuse_work_elsewhere(context, this)
            attempt.refuse_bundle(key)
            return remove_aside(parent, judged, tally)

    attempt.do("work-dir", remove)


def remove_aside(
    parent: int, judged: Judged, tally: Tally, mount_points: frozenset[bytes] = frozenset()
) -> str:
    """Take a directory out of use and remove it; ``parent`` is a handle on that which holds it.

    Raises:
        Blocked: It is another object by now, or something is in the way.
    """
    this = judged.object
    name: bytes | None = judged.name
    if not judged.name.startswith(HIDDEN):  # else an earlier run has taken it out of use
        name = hide(parent, judged.name, this.identity, tally, this.born_ns)
    if name is None:
        return ""
    freed = remove_tree(parent, name, this.identity, tally, mount_points)
    return f"{freed} bytes freed"


def remove_mount(attempt: PlaceAttempt, judged: Judged) -> None:
    """Unmount what is mounted below no bundle, unless its content would end with it."""
    context, place = attempt.context, judged.place
    around = context.nearby(context.scan())
    relative = judged.path[len(around.tree) + 1 :]

    def guard() -> None:
        id_ = relative.split(b"/")[1]
        attempt.refuse_bundle(BundleKey(place.namespace, escape(id_)))
        if around.mounts is None:
            raise Blocked(BlockReason.IO, escape(relative), "the mount table cannot be read")
        below = around.mounts.of(judged.key)
        this = next((one for one in below if one.mount_id == place.identity.mount_id), None)
        if this is None:
            raise FileNotFoundError
        if this.fstype in VOLATILE and not this.shown_outside:
            detail = f"it is a {this.fstype}, whose content unmounting would destroy"
            raise Blocked(BlockReason.FOREIGN_MOUNT, escape(relative), detail)

    def unmount(tally: Tally) -> str:
        number = place.identity.mount_id
        with opened(around.tree, os.O_PATH | os.O_NOFOLLOW) as tree:
            unmount_or_name_holders(tree, relative, frozenset({number}), tally)
        there = (one.mount_id for one in context.points.below(judged.path))
        if not tally.mutations and number in there:
            detail = "no path leads to it: unmount what is mounted above it"
            raise Blocked(BlockReason.FOREIGN_MOUNT, escape(relative), detail)
        return ""

    attempt.guard(guard)
    attempt.do("unmount", unmount)


def unmount_or_name_holders(above: int, path: bytes, judged: frozenset[int], tally: Tally) -> None:
    """Unmount a stack, never lazily; if it is busy, say who holds it.

    Raises:
        Blocked: As :func:`reconciler.worker.unmount.unmount_stack` does.
    """
    try:
        unmount_stack(above, path, judged, tally)
    except Blocked as blocked:
        if blocked.reason is BlockReason.MOUNT_BUSY:
            held = (f"pid {one.pid} {one.name} ({one.how})" for one in holders(above, path))
            who = ", ".join(held)
            blocked.detail += f"; held by {who}" if who else ""
        raise
    except OSError as error:
        raise blocked_by(error, escape(path)) from None


_ROOTFS: Final = unescape(ROOTFS)
_MOUNT_POINTS: Final = frozenset({_ROOTFS})


def remove_hidden(attempt: PlaceAttempt, judged: Judged) -> None:
    """Remove one, with its rootfs's stack of mounts."""
    with ExitStack() as handles:
        _Hidden(attempt, judged, handles).run()


class _Hidden:
    """One hidden directory, by handles."""

    def __init__(self, attempt: PlaceAttempt, judged: Judged, handles: ExitStack) -> None:
        self._attempt = attempt
        self._context = attempt.context
        self._judged = judged
        self._handles = handles
        # What it is called now: the names of mounts are those of the path.
        layout, path = self._context.layout, judged.path
        self._key = layout.key_at(path, judged.place.namespace, escape(judged.name))
        self._is_work = path.startswith(layout.work_of(self._key) + b"/")
        self._namespace = -1
        self._directory = -1
        self._mounts: frozenset[int] = frozenset()

    def run(self) -> None:
        """Go through the steps of a bundle's end."""
        do = self._attempt.do
        self._attempt.guard(self._guard)
        if not self._is_work:
            do("unmount", self._unmount)
            do("rootfs", self._remove_rootfs)
        do("work-dir" if self._is_work else "bundle", self._remove)

    def _guard(self) -> None:
        layout, judged = self._context.layout, self._judged
        root = layout.work_of(self._key) if self._is_work else layout.tree_of(self._key)
        top = self._handles.enter_context(opened(root, os.O_PATH))
        if self._key.tree and not self._is_work:
            refuse_other_mount(layout, top)
        namespace = beneath(top, unescape(self._key.namespace))
        self._namespace = self._handles.enter_context(namespace)
        self._directory = self._handles.enter_context(beneath(self._namespace, judged.name))
        check_object(kernel.statx_handle(self._directory), judged.object, escape(judged.name))
        if self._is_work:
            refuse_mounts(self._context.points, self._directory, self._key)
            refuse_work_elsewhere(self._context, self._key)
        else:
            self._refuse_mounts()
        self._refuse_runner()

    def _refuse_runner(self) -> None:
        runner = self._context.instances.runner(self._judged.key)
        if runner is not None:
            raise Kept(runner)

    def _refuse_mounts(self) -> None:
        """Let nothing pass but rootfs and its stack, and nothing whose content would be lost."""
        around = self._context.around(self._context.scan())
        known = around.mounts_of(self._key)
        if known is None:
            raise Blocked(BlockReason.IO, self._key.id, "the mount table cannot be read")
        mounts = known.of(self._key)
        refuse_foreign(mounts)
        refuse_elsewhere(self._context, around, self._key)
        self._mounts = frozenset(one.mount_id for one in mounts)

    def _unmount(self, tally: Tally) -> str:
        unmount_or_name_holders(self._directory, _ROOTFS, self._mounts, tally)
        return ""

    def _remove_rootfs(self, tally: Tally) -> str:
        refuse_mounts(self._context.points, self._directory, self._key)
        remove_mount_point(self._directory, _ROOTFS, tally)
        return ""

    def _remove(self, tally: Tally) -> str:
        self._refuse_runner()
        points = frozenset() if self._is_work else _MOUNT_POINTS
        return remove_aside(self._namespace, self._judged, tally, points)
