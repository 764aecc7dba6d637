"""What the removal tests share."""

from reconciler import kernel
from reconciler.model.ids import Identity
from reconciler.probe.beneath import identity_of
from reconciler.worker.removal import Removed, remove_tree


def never() -> bool:
    return False


def identity(parent: int, name: bytes = b"victim") -> Identity:
    return identity_of(kernel.statx(parent, name))


def remove(
    parent: int, name: bytes = b"victim", mount_points: frozenset[bytes] = frozenset()
) -> Removed:
    return remove_tree(parent, name, identity(parent, name), never, mount_points)
