"""The directories above the tree: how a root that is absent, or goes away, is noticed.

A root can be created, deleted, renamed, and so can everything above it. Watched are the parent of
the root for its names, and those above it only for being moved or deleted themselves, so that a
busy /run wakes nobody. While the root is absent all that are there are watched for their names.
Mounts over any of them are no events; the mount table shows those.
"""

import stat
from typing import Final

from reconciler import kernel
from reconciler.model.ids import Identity
from reconciler.probe.beneath import identity_of
from reconciler.watch import inotify_fd
from reconciler.watch.table import WatchTable

SELF: Final = inotify_fd.DELETE_SELF | inotify_fd.MOVE_SELF
_NAMES: Final = inotify_fd.NAMES | SELF


def identify(path: bytes) -> Identity | None:
    """Return which directory a path means now; None if it means none."""
    try:
        found = kernel.statx(kernel.AT_FDCWD, path)
    except OSError:
        return None
    if not stat.S_ISDIR(found.mode):
        return None
    return identity_of(found)


class Ancestors:
    """Watches what leads to one path.

    Args:
        table: Where the watches are kept.
        path: Absolute, without a final slash.
    """

    def __init__(self, table: WatchTable, path: bytes) -> None:
        self._table = table
        self._path = path
        parts = path.split(b"/")[1:-1]
        self._above = [b"/" + b"/".join(parts[:depth]) for depth in range(len(parts) + 1)]
        self._wds: frozenset[int] = frozenset()

    def settle(self) -> None:
        """Watch what leads to the path as it is now.

        Top down, each before the next is looked up: what appears in between is an event.
        """
        found = [self._table.add_ancestor(path, _NAMES) for path in self._above]
        if identify(self._path) is not None:
            for path in self._above[:-1]:
                self._table.add_ancestor(path, SELF)
        wds = frozenset(wd for wd in found if wd is not None)
        for wd in self._wds - wds:
            self._table.drop_ancestor(wd)
        self._wds = wds
