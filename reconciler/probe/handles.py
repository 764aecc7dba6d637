"""Handles on the few directories at which every look begins: opened once a moment, never kept.

A moment is one look, or one slice of looks in the loop. Between moments nothing is open: a handle
on the state tree, or on the disk of the work tree, would keep it from being unmounted.
"""

import os
from collections.abc import Callable
from typing import Final, Self

from reconciler import kernel
from reconciler.probe.listings import Listings
from reconciler.probe.reach import OutOfReachError, Reach

_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST: Final = 8  # hostile files may name a different directory in each bundle


class Handles:
    """Opens directories; ``with`` is the moment, and one within another is a part of it.

    Attributes:
        missed: Where reach ended since this was last cleared; never if we may hang (no reach).
        listings: Of directories in which this moment asks for much.
    """

    def __init__(self, reach: Reach | None = None) -> None:
        self.missed: set[bytes] = set()
        self.listings = Listings()
        self._reach = reach
        self._open: dict[tuple[bytes, int], int] = {}
        self._mount_ids: dict[int, int] = {}
        self._depth = 0

    def __enter__(self) -> Self:
        """Begin a look, or several; what the last one opened may be closed now, not later."""
        if len(self._open) > _MOST:
            self._close()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        """End it; the outermost closes everything."""
        self._depth -= 1
        if not self._depth:
            self._close()
            self.listings.clear()

    def get(self, path: bytes, flags: int = 0) -> int:
        """Open a directory without reading it; the handle is ours until the look ends.

        Symlinks and mounts on the way are followed; O_NOFOLLOW refuses a symlink at its end.

        Raises:
            OSError: It cannot be opened.
        """
        found = self._open.get((path, flags))
        if found is None:
            found = self._keep(path, flags, lambda: os.open(path, _HANDLE | flags))
        return found

    def beneath(self, above: bytes, name: bytes) -> int:
        """Open a directory as :meth:`get` does if it is really there: no symlink, no mount.

        Raises:
            OSError: It cannot be opened; ELOOP or ENOTDIR for a symlink, EXDEV for a mount.
        """
        path = above + b"/" + name
        found = self._open.get((path, os.O_NOFOLLOW))
        if found is None:
            parent = self.get(above)
            found = self._keep(path, os.O_NOFOLLOW, lambda: kernel.open_beneath(parent, name))
        return found

    def mount_id(self, handle: int) -> int:
        """Tell the mount that a handle of ours is on: asked once, for a handle never leaves it.

        It is also the mount of all that is opened beneath the handle, which crosses none
        (``RESOLVE_NO_XDEV``, openat2(2)).

        Raises:
            OSError: The kernel does not tell.
        """
        found = self._mount_ids.get(handle)
        if found is None:
            found = self._mount_ids[handle] = kernel.statx_handle(handle).mount_id
        return found

    def named(self, path: bytes) -> int:
        """Open a directory as :meth:`get` does that a file or the operator names, within reach.

        Raises:
            OutOfReachError: It may not be opened here, which :attr:`missed` notes.
            OSError: It cannot be opened.
        """
        reach = self._reach
        if reach is None:
            return self.get(path)
        found = self._open.get((path, 0))
        if found is not None:
            return found
        try:
            return self._keep(path, 0, lambda: reach.open(path))
        except OutOfReachError as error:
            self.missed.add(error.place)
            raise

    def _keep(self, path: bytes, flags: int, opens: Callable[[], int]) -> int:
        if not self._depth:
            raise RuntimeError("a handle outside of any moment would never be closed")
        found = self._open[path, flags] = opens()
        return found

    def _close(self) -> None:
        self._mount_ids.clear()
        while self._open:
            os.close(self._open.popitem()[1])
