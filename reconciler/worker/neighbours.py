"""Neighbours: what the other bundles of a tree say is theirs. Reads only.

Files name cgroups, and a file may be wrong or lie: two namespaces may have the same id, and a
systemd scope ``cri-containerd-x-c1.scope`` ends in ``-c1`` though it is that of ``x-c1``. So before
anything is done to a cgroup or to who is in it, the other bundles are looked at. A cgroup is
another's if that names it too, or one above it, or cannot be asked.

To remove an empty cgroup it is enough to ask those whose id its path may stand for
(:class:`Neighbours`); to kill whoever is in one, all are asked (:func:`claims`).
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from reconciler.decide.ownership import Claim
from reconciler.model.cgroups import CgroupSource, names_of
from reconciler.model.evidence import CgroupState, InitState
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe.beneath import enter, names, opened
from reconciler.probe.bundle import Examination, examine
from reconciler.probe.context import NodeContext
from reconciler.worker.step_log import Kept
from reconciler.worker.under_removal import bundles_called

MOST_BUNDLES: Final = 20_000
"""More of them than this are not asked: nobody is then proven to be anybody's."""


class UnansweredError(Exception):
    """A question about ownership got no answer; the message says which."""


class Neighbours:
    """The other bundles of a tree, as seen from one that is dead.

    One that is being removed now does not count: to what is dead it has no more claim than the
    bundle at hand, and both must not leave it to each other. ``around`` is kept near: what another
    bundle names must not hang whoever asks.
    """

    def __init__(self, around: NodeContext, key: BundleKey) -> None:
        self._around = around
        self._key = key
        self._owners: dict[str, BundleKey | None] = {}

    def refuse(self, path: str) -> None:
        """Raise Kept if a cgroup, or one above it, may be another bundle's.

        Raises:
            Kept: It may; ``path`` is within a hierarchy, from its root.
            OSError: The tree cannot be read.
        """
        if path not in self._owners:
            ids = dict.fromkeys(names_of(path))
            others = _called(self._around.layout, ids)
            claims = (one for one in others if one != self._key and self._claims(one, path))
            self._owners[path] = next(claims, None)
        other = self._owners[path]
        if other is not None:
            raise Kept(f"cgroup {path} may be that of {other}")

    def _claims(self, other: BundleKey, path: str) -> bool:
        found = examine(self._around, other)
        if found is None:  # it is gone by now, or nobody can say
            return _is_barred(self._around.layout.tree_of(other), other.namespace)
        own = _own_cgroups(found)
        return own is None or any((path + "/").startswith(one + "/") for one in own)


def _called(layout: Layout, ids: Collection[str]) -> Iterator[BundleKey]:
    """Give the bundles of these ids in either tree; few nodes have one of sandboxes."""
    yield from bundles_called(layout.tasks, ids)
    with suppress(FileNotFoundError):
        yield from (one.sandbox for one in bundles_called(layout.sandboxes, ids))


def _is_barred(tree: bytes, namespace: str) -> bool:
    """Return whether a namespace cannot be entered, so that nothing is known of what is in it."""
    with opened(tree) as top:
        return any(one.fd < 0 for one in enter(top, (unescape(namespace),)))


def claims(around: NodeContext, key: BundleKey) -> Iterator[Claim]:
    """Give what every bundle but one says is its own.

    Raises:
        UnansweredError: They are too many.
        OSError: The tree cannot be read, or not all of it.
    """
    for number, other in enumerate(_others(around.layout, key)):
        if number >= MOST_BUNDLES:
            raise UnansweredError(f"there are more than {MOST_BUNDLES} bundles to ask")
        found = examine(around, other)
        if found is None:
            continue
        look, own = found.look, _own_cgroups(found)
        # Of one that is mounted and of which nothing names the cgroup, members may be anywhere.
        is_lost = look.cgroup_source is CgroupSource.NONE and bool(look.mounts)
        init = look.init.pid if look.init.state in {InitState.ALIVE, InitState.NONE} else None
        yield Claim(str(other), None if is_lost else own, init)


def _own_cgroups(found: Examination) -> frozenset[str] | None:
    """Give the cgroups of a bundle, as paths within a hierarchy; None if they cannot be known."""
    if found.look.cgroup is CgroupState.NONE or not found.resources.knows_all_cgroups:
        return None
    return frozenset("/" + escape(group.relative) for group in found.resources.cgroups)


def _others(layout: Layout, key: BundleKey) -> Iterator[BundleKey]:
    yield from (one for one in _all_in(layout.tasks) if one != key)
    with suppress(FileNotFoundError):  # few nodes have a tree of sandboxes
        yield from (one.sandbox for one in _all_in(layout.sandboxes) if one.sandbox != key)


def _all_in(tree: bytes) -> Iterator[BundleKey]:
    with opened(tree) as top:
        for namespace in enter(top, names(top)):
            if namespace.fd < 0:
                raise OSError(namespace.errno, os.strerror(namespace.errno), namespace.name)
            # As a whole: none may slip by because others are renamed while it is looked at.
            for name in list(names(namespace.fd)):
                yield BundleKey(escape(namespace.name), escape(name))
