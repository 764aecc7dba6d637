"""Hidden: removes bundles and work directories that a removal of containerd's left as ``.<id>``.

They go as a bundle's end does, with what is mounted on rootfs, and for the same reasons: a foreign
mount, here or in another mount namespace, keeps everything before anything is touched. Other
containerds cannot use what is in our trees. Whoever removes such a directory just now is a shim
helper of that id, or containerd; then it changes, and does not count as lying still.
"""

import os
from contextlib import ExitStack
from typing import Final

from reconciler import kernel
from reconciler.decide.blockers import ROOTFS
from reconciler.model.ids import escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath, opened
from reconciler.worker.blocked import Blocked
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.debris.places import remove_aside, unmount_or_name_holders
from reconciler.worker.debris.second_look import Judged
from reconciler.worker.objects import check_object
from reconciler.worker.removal import remove_mount_point
from reconciler.worker.second_look import (
    refuse_elsewhere,
    refuse_foreign,
    refuse_mounts,
    refuse_other_mount,
    refuse_work_elsewhere,
)
from reconciler.worker.step_log import Kept, Tally

_ROOTFS: Final = unescape(ROOTFS)
_MOUNT_POINTS: Final = frozenset({_ROOTFS})


def remove(attempt: PlaceAttempt, judged: Judged) -> None:
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
