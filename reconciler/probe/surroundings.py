"""What many looks share: the mount table, the cgroup hierarchies, a socket to knock with.

Holds no handle on the state tree, which would keep it from being unmounted. One per process.
"""

import os

from reconciler.model.layout import Layout
from reconciler.probe import cgroups, mounts
from reconciler.probe.door import Door


class Surroundings:
    """The node around the bundles, as of the last :meth:`refresh`.

    Attributes:
        layout: Where things are.
        tree: The state tree's real path, as the mount table has it.
        mounts: Mounts at or below bundles; None if the mount table could not be read.
        hierarchies: Mounted cgroup hierarchies; None likewise.
        door: Knocks at sockets.
        addresses: containerd addresses that shims may have been started with.
    """

    def __init__(self, layout: Layout, addresses: tuple[bytes, ...] = ()) -> None:
        self.layout = layout
        self.addresses = addresses
        self.door = Door()
        self.tree = b""
        self.mounts: mounts.TreeMounts | None = None
        self.hierarchies: tuple[cgroups.Hierarchy, ...] | None = None
        self._table = mounts.MountTable()
        self._seen: bytes | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read again what may have changed; cheap if nothing has."""
        tree = os.path.realpath(self.layout.tasks)
        try:
            data = self._table.read()
        except OSError:
            self._seen = self.mounts = self.hierarchies = None
            return
        if data is self._seen and tree == self.tree:
            return
        self._seen, self.tree = data, tree
        self.mounts = mounts.index(data, tree)
        self.hierarchies = cgroups.hierarchies(mounts.parse(data))

    def close(self) -> None:
        """Give handles back; the next use opens them again."""
        self._table.close()
        self.door.close()
