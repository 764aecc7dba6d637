"""Remembering over boots: writes down which bundles were seen in this one (`probe.boots` says why).

Only for a state tree that a boot does not empty, and only where the operator allows to act on one.
"""

import os
from collections.abc import Iterable
from threading import Lock
from typing import Final

import msgspec

from reconciler import kernel
from reconciler.kernel import private
from reconciler.model.ids import BundleKey, Identity, escape
from reconciler.model.layout import Layout
from reconciler.probe import boots
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.boots import VERSION, Born, Record

Written = tuple[frozenset[Born], frozenset[Born]]
_NOTHING: Final[Written] = (frozenset(), frozenset())


class BootRecord:
    """Writes the record of one state tree anew when bundles have come or gone.

    Args:
        layout: Where the tree and the record are.
        boot: The id of this boot; without one nothing is written.
    """

    def __init__(self, layout: Layout, boot: str) -> None:
        self._layout = layout
        self._boot = boot
        self._earlier = boots.read(layout.boots, boot)
        self._born: dict[BundleKey, tuple[Identity, Born | None]] = {}
        self._written = _NOTHING
        self._busy = Lock()

    @property
    def path(self) -> str:
        """Where it is, for people."""
        return escape(self._layout.boots)

    def write(self, objects: Iterable[tuple[BundleKey, Identity]]) -> None:
        """Write down what is there, if that has changed, and nobody is at it.

        Nothing where the kernel's id of the boot is another than at the start: we were frozen and
        thawed elsewhere, and would say of this boot's bundles that another has seen them.

        Raises:
            OSError: It could not be written; the old one is still there.
        """
        if (
            not self._boot
            or boots.boot_id() != self._boot
            or not self._busy.acquire(blocking=False)
        ):
            return
        try:
            self._write(objects)
        finally:
            self._busy.release()

    def _write(self, objects: Iterable[tuple[BundleKey, Identity]]) -> None:
        self._look(objects)
        seen = frozenset(born for _, born in self._born.values() if born is not None)
        if (seen, self._earlier) == self._written:
            return
        _replace(
            self._layout.boots, Record(VERSION, self._boot, sorted(seen), sorted(self._earlier))
        )
        self._written = seen, self._earlier

    def _look(self, objects: Iterable[tuple[BundleKey, Identity]]) -> None:
        """Look when bundles that are new were born, and which of the old are still there."""
        known, self._born = self._born, {}
        with opened(self._layout.tasks) as tree:
            for key, identity in objects:
                before = known.get(key)
                if before is None or before[0] != identity:
                    born = _look_at(tree, key)
                    is_it = born is not None and born.ino == identity.ino
                    before = identity, born if is_it else None
                self._born[key] = before
            there = (one for one in self._earlier if _look_at(tree, BundleKey(*one[:2])) == one)
            self._earlier = frozenset(there)


def _look_at(tree: int, key: BundleKey) -> Born | None:
    try:
        with beneath(tree, key.path) as bundle:
            return boots.born(key, kernel.statx_handle(bundle))
    except OSError:
        return None


def _replace(path: bytes, record: Record) -> None:
    directory, name = os.path.split(path)
    handle = private.open_directory(directory)
    try:
        with open(private.open_file(handle, name + b".new", os.O_WRONLY), "wb") as file:
            file.truncate(0)
            file.write(msgspec.json.encode(record))
        os.replace(name + b".new", name, src_dir_fd=handle, dst_dir_fd=handle)
    finally:
        os.close(handle)
