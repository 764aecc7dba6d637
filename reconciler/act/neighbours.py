"""Neighbours: whether a cgroup that a bundle names is really another bundle's.

Files name cgroups, and a file may be wrong or lie: two namespaces may have the same id, and a
systemd scope ``cri-containerd-x-c1.scope`` ends in ``-c1`` though it is that of ``x-c1``. So before
anything is done to a cgroup or to who is in it, every other bundle of the tree that it could stand
for is looked at; one that names it too, or cannot be asked, owns it. Reads only.
"""

import os
from collections.abc import Iterator
from typing import Final

from reconciler import kernel
from reconciler.act.going import is_going
from reconciler.act.record import Kept
from reconciler.model.cgroups import names_of
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import BundleKey, escape
from reconciler.probe.bundle import examine
from reconciler.probe.surroundings import Surroundings

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Neighbours:
    """The other bundles of a tree, as seen from one of them.

    Args:
        around: The node, kept near: what another bundle names must not hang whoever asks.
        key: The bundle at hand.
        even_going: Whether one that is being removed now counts, too. To what is dead it has no
            more claim than the bundle at hand, and both must not leave it to each other.
    """

    def __init__(self, around: Surroundings, key: BundleKey, *, even_going: bool = True) -> None:
        self._around = around
        self._key = key
        self._even_going = even_going
        self._owners: dict[str, BundleKey | None] = {}

    def owner(self, path: str) -> BundleKey | None:
        """Name another bundle that a cgroup may belong to, or one above it; None if there is none.

        Args:
            path: Within a hierarchy, from its root.

        Raises:
            OSError: The tree cannot be read.
        """
        if path not in self._owners:
            claims = (other for other in self._candidates(path) if self._claims(other, path))
            self._owners[path] = next(claims, None)
        return self._owners[path]

    def refuse(self, path: str) -> None:
        """Raise Kept if a cgroup may be another bundle's."""
        other = self.owner(path)
        if other is not None:
            raise Kept(f"cgroup {path} may be that of {other}")

    def _candidates(self, path: str) -> Iterator[BundleKey]:
        """Give the bundles that are there and whose id a part of the path may stand for."""
        ids = dict.fromkeys(names_of(path))
        tree = os.open(self._around.layout.tasks, _DIRECTORY)
        try:
            for namespace in map(escape, map(os.fsencode, os.listdir(tree))):
                for id_ in ids:
                    other = BundleKey(namespace, id_)
                    if other != self._key and self._counts(tree, other):
                        yield other
        finally:
            os.close(tree)

    def _counts(self, tree: int, other: BundleKey) -> bool:
        if not _is_there(tree, other):
            return False
        return self._even_going or not is_going(tree, other.path)

    def _claims(self, other: BundleKey, path: str) -> bool:
        found = examine(self._around, other)
        if found is None:
            return False
        if found.look.cgroup is CgroupState.NONE or not found.resources.tells_all_cgroups:
            return True
        own = (f"/{escape(group.relative)}/" for group in found.resources.cgroups)
        return any((path + "/").startswith(one) for one in own)


def _is_there(tree: int, key: BundleKey) -> bool:
    try:
        kernel.statx(tree, key.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
