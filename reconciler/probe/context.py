"""What many looks share: the mount table, the cgroup hierarchies, a socket to probe others with.

Holds no handle on the state tree, which would keep it from being unmounted. One per process.
"""

import os

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.kernel.mounts import Mounted
from reconciler.model.ids import BundleKey
from reconciler.model.layout import SANDBOXES, Layout
from reconciler.probe import boots
from reconciler.probe.beneath import opened
from reconciler.probe.cgroups import CgroupMounts, Hierarchy, hierarchies
from reconciler.probe.handles import Handles
from reconciler.probe.points import BundleMounts, MountPoints
from reconciler.probe.reach import Reach
from reconciler.probe.sockets import SocketProbe


class NodeContext:
    """The node around the bundles, as of the last :meth:`refresh`.

    Opens nothing that may hang if ``near``: for who cannot be killed and replaced.

    Attributes:
        tree: The state tree's real path, as the mount table has it.
        mounts: Mounts at or below bundles; None if the mount table could not be read.
        cgroups: Mounted cgroup hierarchies; None likewise.
        on_tmpfs: The state tree is on a tmpfs.
        earlier: The bundles that are known to have been there before this boot.
        addresses: containerd addresses that shims may have been started with.
    """

    def __init__(
        self,
        layout: Layout,
        addresses: tuple[bytes, ...] = (),
        points: MountPoints | None = None,
        *,
        near: bool = False,
    ) -> None:
        self.layout = layout
        self.addresses = addresses
        self.sockets = SocketProbe()
        self._reach = Reach(_own(layout)) if near else None
        self.handles = Handles(self._reach)
        self.tree = b""
        self.mounts: BundleMounts | None = None
        self.cgroups: CgroupMounts | None = None
        self.on_tmpfs = False
        # Read once: while this boot lasts there can only be fewer of them.
        self.earlier = boots.read(layout.boots, boots.boot_id()) if layout.boots else frozenset()
        self._hierarchies: tuple[Hierarchy, ...] = ()
        self._points = points or MountPoints(SystemClock())
        self._groups: list[Mounted] = []
        self.refresh()

    def tree_of(self, key: BundleKey) -> bytes:
        """The real path of the state tree that a bundle is in; empty if it is not known."""
        if not key.tree:
            return self.tree
        # It is entered only where it is no symlink and no mount point, which may hang.
        return os.path.realpath(self.layout.state) + b"/" + SANDBOXES if self.tree else b""

    def mounts_of(self, key: BundleKey) -> BundleMounts | None:
        """The mounts at or below bundles of the tree that this one is in; None likewise."""
        if not key.tree or self.mounts is None:
            return self.mounts
        return self.mounts.of_tree(self.tree_of(key))

    def refresh(self) -> None:
        """Read again what may have changed; cheap if nothing has."""
        tree = os.path.realpath(self.layout.tasks)
        try:
            found = self._points.now()
            if found.groups != self._groups or self.cgroups is None:
                self._find_hierarchies(found.groups)
            else:
                self.cgroups.open_missing()
            self.on_tmpfs, mount = _mount_of(tree)
            if self._reach is not None:
                self._reach.refresh(found, mount)
            self.tree, self.mounts = tree, BundleMounts(found, tree)
        except OSError:
            self.mounts = None
            if self._reach is not None:
                self._reach.refresh(None, None)
            self._set_hierarchies(None)

    @property
    def is_whole(self) -> bool:
        """Whether mount table and cgroup hierarchies could all be read and opened."""
        return self.mounts is not None and self.cgroups is not None and self.cgroups.is_whole

    def close(self) -> None:
        """Give handles back; :meth:`refresh` opens them again."""
        self._points.close()
        self.sockets.close()
        self._set_hierarchies(None)

    def _find_hierarchies(self, groups: list[Mounted]) -> None:
        self._set_hierarchies(hierarchies(groups))
        self._groups = groups

    def _set_hierarchies(self, found: tuple[Hierarchy, ...] | None) -> None:
        if self.cgroups is not None and found == self._hierarchies:
            return
        if self.cgroups is not None:
            self.cgroups.close()
        self.cgroups = None if found is None else CgroupMounts(found)
        self._hierarchies = found or ()


def _own(layout: Layout) -> tuple[bytes, ...]:
    """Give the directories at which looks begin without a file's having named them."""
    shims = layout.sockets, layout.own_sockets
    works = layout.work, layout.sandbox_work
    return layout.tasks, layout.sandboxes, *works, layout.runc_root, *shims


def _mount_of(path: bytes) -> tuple[bool, int | None]:
    """Return whether a directory is on a tmpfs, and the number of its mount if that can be told."""
    try:
        with opened(path, os.O_PATH) as fd:
            return kernel.fs_type(fd) == kernel.TMPFS_MAGIC, kernel.statx_handle(fd).mount_id
    except OSError:
        return False, None
