"""Handles on the few directories at which every look begins: opened once a moment, never kept.

A moment is one look, or one slice of looks in the loop. Between moments nothing is open: a handle
on the state tree, or on the disk of the work tree, would keep it from being unmounted.
"""

import os
from typing import Final, Self

from reconciler.probe.reach import OutOfReachError, Reach

_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST: Final = 8  # hostile files may name a different directory in each bundle


class Handles:
    """Opens directories; ``with`` is the moment, and one within another is a part of it.

    Args:
        reach: Opens those that are named from outside; None if we may hang.

    Attributes:
        missed: Where reach ended since this was last cleared.
    """

    def __init__(self, reach: Reach | None = None) -> None:
        self.missed: set[bytes] = set()
        self._reach = reach
        self._open: dict[tuple[bytes, int], int] = {}
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

    def get(self, path: bytes, flags: int = 0) -> int:
        """Open a directory without reading it; the handle is ours until the look ends.

        Args:
            path: Absolute; symlinks and mounts on the way are followed.
            flags: O_NOFOLLOW refuses a symlink at the end of it.

        Raises:
            OSError: It cannot be opened.
        """
        found = self._open.get((path, flags))
        if found is None:
            if not self._depth:
                raise RuntimeError("a handle outside of any moment would never be closed")
            found = self._open[path, flags] = os.open(path, _HANDLE | flags)
        return found

    def named(self, path: bytes) -> int:
        """Open a directory as :meth:`get` does that a file or the operator names, within reach.

        Raises:
            OutOfReachError: It may not be opened here, which :attr:`missed` notes.
            OSError: It cannot be opened.
        """
        if self._reach is None:
            return self.get(path)
        found = self._open.get((path, 0))
        if found is None:
            if not self._depth:
                raise RuntimeError("a handle outside of any moment would never be closed")
            try:
                found = self._open[path, 0] = self._reach.open(path)
            except OutOfReachError as error:
                self.missed.add(error.place)
                raise
        return found

    def _close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
