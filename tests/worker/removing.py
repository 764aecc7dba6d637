"""What the removal tests share."""

from typing import NamedTuple

from reconciler import kernel
from reconciler.model.ids import Identity
from reconciler.probe.beneath import identity_of
from reconciler.worker.removal import remove_tree
from reconciler.worker.step_log import Tally


class Removed(NamedTuple):
    """Names removed, and bytes freed."""

    entries: int
    bytes: int


def identity(parent: int, name: bytes = b"victim") -> Identity:
    return identity_of(kernel.statx(parent, name))


def remove(
    parent: int, name: bytes = b"victim", mount_points: frozenset[bytes] = frozenset()
) -> Removed:
    tally = Tally()
    freed = remove_tree(parent, name, identity(parent, name), tally, mount_points)
    return Removed(tally.mutations, freed)
