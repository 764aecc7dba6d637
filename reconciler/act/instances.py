"""Instances: other containerds of this node, as their living shims show them. Reads only.

Several containerds may share runc's root, the names of cgroups and the directory of FIFOs. A shim
works in its bundle (`reconciler.act.reference`), so a shim of another instance leads to that
instance's tree. Whatever may be used there under a bundle's name is not removed here. What nobody
serves has no living user, and an instance without any living shim has none at all.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from reconciler import kernel
from reconciler.act.going import is_going
from reconciler.act.reference import works_in
from reconciler.model.evidence import Answer, Sweep
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout

_TREE: Final = b"/proc/%d/cwd/../.."
_TRIES: Final = 3
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW

_Object = tuple[int, int]  # device, inode


class Instances:
    """Remembers which trees one pass over /proc leads to.

    Args:
        sweep: Gives a pass over /proc that shows everybody who runs by now, made anew if asked for.
    """

    def __init__(self, sweep: Callable[[bool], Sweep]) -> None:
        self._sweep = sweep
        self._swept: Sweep | None = None
        self._layout: Layout | None = None
        self._trees: dict[_Object, int] = {}
        """One shim's pid for each tree that is not ours."""

    def user(self, layout: Layout, key: BundleKey) -> str | None:
        """Say who else may use the name of a bundle that was judged dead; None if nobody does."""
        return self._ask(layout, key.id, key.namespace)

    def user_of_id(self, layout: Layout, id_: bytes) -> str | None:
        """Say the same for an id, whatever the namespace."""
        return self._ask(layout, id_, None)

    def _ask(self, layout: Layout, id_: bytes, namespace: bytes | None) -> str | None:
        lost = 0
        for number in range(_TRIES):
            swept = self._sweep(number > 0)
            if not swept.answered:
                return "who else runs cannot be told"
            for key in (*swept.helpers, *(shim.key for shim in swept.shims)):
                if key.id == id_ and namespace in {None, key.namespace}:
                    return f"a shim of {key} is running"
            try:
                pid = self._having(layout, swept, id_, namespace)
            except _LostError as shim:
                lost = shim.pid  # it may only have ended since: who leads there now?
                continue
            if pid is None:
                return None
            return f"another containerd, that of the shim with pid {pid}, has one so named"
        return f"where the shim with pid {lost} works cannot be told"

    def _having(
        self, layout: Layout, swept: Sweep, id_: bytes, namespace: bytes | None
    ) -> int | None:
        """Give a pid of an instance that has a bundle of such a name.

        Raises:
            _LostError: A shim does not lead to its tree any more.
        """
        if swept is not self._swept or layout != self._layout:
            self._trees = dict(_trees(layout, swept))
            self._swept, self._layout = swept, layout
        for tree, pid in self._trees.items():
            path = _TREE % pid
            try:
                keys = _keys(path, id_) if namespace is None else [BundleKey(namespace, id_)]
                there = any(_has(path, key) for key in keys)
                # Nothing was there: that counts only if it was that tree which was asked.
                if _object(path) != tree:
                    raise _LostError(pid)
            except OSError:
                raise _LostError(pid) from None
            if there:
                return pid
        return None


class _LostError(Exception):
    """A shim does not lead to its tree any more."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


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
