"""What every watch backend can do, and the one way it fails.

A backend may lose events but must say so by a Resync. When it cannot go on at all (no inotify
instance, no watch, no handle left) it raises :class:`BackendError` and is closed by whoever runs
it; nothing else it meets in the tree is an error.
"""

from collections.abc import Collection
from typing import Protocol

from reconciler.model.ids import BundleKey
from reconciler.ports import Emit


class BackendError(Exception):
    """This backend cannot go on; its text says why in one line, for people."""


class Backend(Protocol):
    """One way of watching a state tree."""

    @property
    def name(self) -> str:
        """Its name in configuration, metrics and logs."""
        ...

    @property
    def relist_hint(self) -> float | None:
        """Seconds between listings that make up for what it cannot see; None if it sees all."""
        ...

    def open(self) -> None:
        """Begin to watch, so that a listing made afterwards misses nothing; again: no effect.

        Raises:
            BackendError: It cannot be had.
        """
        ...

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Make watches fit a listing of the whole tree.

        Raises:
            BackendError: It cannot go on.
        """
        ...

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled, and close.

        Raises:
            BackendError: It cannot go on; may be wrapped in an exception group.
        """
        ...

    def close(self) -> None:
        """Give everything back; again: no effect."""
        ...
