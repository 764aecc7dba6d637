"""Instances: other containerds of this node, as their living shims show them. Reads only.

Several containerds may share runc's root, the names of cgroups and the directory of FIFOs. A shim
works in its bundle (`reconciler.act.reference`), so a shim of another instance leads to that
instance's tree. Whatever may be used there under a bundle's name is not removed here. What nobody
serves has no living user, and an instance without any living shim has none at all.
"""

import os
from collections.abc import Iterator
from typing import Final

from reconciler import kernel
from reconciler.act.going import is_going
from reconciler.act.reference import works_in
from reconciler.model.evidence import Answer, Sweep
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout

_TREE: Final = b"/proc/%d/cwd/../.."
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW

_Object = tuple[int, int]  # device, inode


class Instances:
    """Remembers which trees one pass over /proc leads to."""

    def __init__(self) -> None:
        self._swept: Sweep | None = None
        self._layout: Layout | None = None
        self._trees: dict[_Object, int] = {}
        """One shim's pid for each tree that is not ours."""

    def user(self, layout: Layout, swept: Sweep, key: BundleKey) -> str | None:
        """Say who else may use the name of a bundle that was judged dead; None if nobody does."""
        if key in swept.helpers:
            return "a shim is being started under this name"
        for shim in swept.shims:
            if shim.key == key:
                return f"the shim with pid {shim.pid} has this name"
        return next((self._say(pid) for pid in self._having(layout, swept, [key])), None)

    def user_of_id(self, layout: Layout, swept: Sweep, id_: bytes) -> str | None:
        """Say the same for an id, whatever the namespace."""
        if any(helper.id == id_ for helper in swept.helpers):
            return "a shim is being started for this id"
        for shim in swept.shims:
            if shim.key.id == id_:
                return f"the shim with pid {shim.pid} has this id"
        return next((self._say(pid) for pid in self._having(layout, swept, id_)), None)

    @staticmethod
    def _say(pid: int) -> str:
        return f"another containerd, that of the shim with pid {pid}, may have a bundle so named"

    def _having(self, layout: Layout, swept: Sweep, what: list[BundleKey] | bytes) -> Iterator[int]:
        """Give a pid of each instance that has, or may have, a bundle of such a name."""
        if swept is not self._swept or layout != self._layout:
            self._trees = dict(_trees(layout, swept))
            self._swept, self._layout = swept, layout
        for tree, pid in self._trees.items():
            path = _TREE % pid
            try:
                keys = what if isinstance(what, list) else _keys(path, what)
                there = any(_has(path, key) for key in keys)
                # Nothing was there: that counts only if it was that tree which was asked.
                if there or _object(path) != tree:
                    yield pid
            except OSError:
                yield pid


def _trees(layout: Layout, swept: Sweep) -> Iterator[tuple[_Object, int]]:
    for shim in swept.shims:
        if works_in(layout, shim) is not Answer.NO:
            continue
        try:
            yield _object(_TREE % shim.pid), shim.pid
        except OSError:
            continue  # it has ended since


def _object(path: bytes) -> _Object:
    found = kernel.statx(kernel.AT_FDCWD, path, _FOLLOW)
    return found.dev, found.ino


def _keys(tree: bytes, id_: bytes) -> list[BundleKey]:
    return [BundleKey(os.fsencode(namespace), id_) for namespace in os.listdir(tree)]


def _has(tree: bytes, key: BundleKey) -> bool:
    path = b"/".join((tree, *key))
    try:
        kernel.statx(kernel.AT_FDCWD, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not is_going(None, path)
