"""Processes that may be a shim or a helper and do not answer what they are.

Whoever is stuck in the kernel cannot be asked for his command line. The directory it works in shows
whose he may be; where it does not, he may be anybody's. He makes those unknown and nobody else.
"""

from collections.abc import Collection
from typing import NamedTuple

from reconciler.model.ids import BundleKey


class UnreadProcess(NamedTuple):
    """One of them; ``key`` is the bundle it works in, None if that cannot be known."""

    pid: int
    key: BundleKey | None = None


def may_be(unread: Collection[BundleKey | None], *keys: BundleKey) -> bool:
    """Return whether one that does not answer may belong to one of these; None is anybody's."""
    return bool(unread) and any(key in unread for key in (None, *keys))


def may_be_in(unread: Collection[BundleKey | None], namespace: str) -> bool:
    """Return whether one that does not answer works in a namespace."""
    return any(key is not None and key.namespace == namespace for key in unread)
