"""Inventory: what is left outside of bundles, found by listing each place once. Changes nothing.

    finds.py   what is in the places, and whether anybody lives in it
    owners.py  who may still own what bears a name; asked when all places are listed

The order is the proof. Places are listed, then the process table is read, then the trees of
bundles: a bundle, shim or helper that comes later has not made what was found, or makes it anew,
which is another object. Whatever could not be listed or asked leaves its kind out, or makes the
answer no answer.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

from msgspec.structs import replace

from reconciler.model.cgroups import names_of
from reconciler.model.debris import DebrisKind, Inventory, Place
from reconciler.model.evidence import Answer, ProcessScan
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe.beneath import opened, visible
from reconciler.probe.context import NodeContext
from reconciler.worker.context import WorkerContext
from reconciler.worker.instances import lead_there, other_trees
from reconciler.worker.inventory import finds
from reconciler.worker.inventory.owners import Owners, find_owners

MOST: Final = 200
"""Places of one kind in one inventory; of further ones the next inventory tells."""

_NAMED: Final = frozenset({DebrisKind.RUNC_STATE, DebrisKind.CGROUP, DebrisKind.SHIM})
"""Kinds of which a process in any cgroup of that name may be a part."""


def take(context: WorkerContext) -> Inventory:
    """Take an inventory of every kind."""
    began, layout = context.clock.monotonic(), context.layout
    found = _Found()
    around = context.nearby(context.scan())
    for kind, find in _kinds(context, around):
        found.collect(kind, find)
    processes = context.scan(anew=True)
    found.collect(DebrisKind.SHIM, lambda: finds.shims(processes, layout))
    others, lost = other_trees(layout, processes)
    try:
        owners = find_owners((layout.tasks, *others), processes, lost)
        if not lead_there(others):
            owners = dataclasses.replace(owners, silent="a shim ended while its tree was read")
    except OSError as error:
        found.places.clear()
        found.troubles.append(f"no answer from a tree of bundles: {error}")
        owners = Owners(silent="no answer from a tree of bundles")
    owned = _Owned(owners, processes, around)
    left = (islice(owned.left(of_kind), MOST) for of_kind in found.places.values())
    return Inventory(
        began,
        tuple(found.places),
        tuple(chain.from_iterable(left)),
        tuple(found.troubles),
        context.clock.monotonic() - began,
    )


def _kinds(
    context: WorkerContext, around: NodeContext
) -> tuple[tuple[DebrisKind, Callable[[], Iterable[Place]]], ...]:
    layout = context.layout

    def sockets() -> Iterator[Place]:
        for path in dict.fromkeys((layout.sockets, layout.own_sockets)):
            yield from finds.sockets(path, around.sockets)

    return (
        (DebrisKind.HIDDEN_BUNDLE, lambda: finds.hidden_bundles(layout)),
        (DebrisKind.SHIM_SOCKET, sockets),
        (DebrisKind.FIFO_DIR, lambda: finds.fifo_dirs(layout.fifos)),
        (DebrisKind.RUNC_STATE, lambda: finds.runc_states(layout)),
        (DebrisKind.CGROUP, lambda: finds.cgroups(around, _namespaces(context))),
        (DebrisKind.WORK_DIR, lambda: finds.work_dirs(layout)),
        (DebrisKind.MOUNT, lambda: finds.mounts(around)),
    )


class _Found:
    """What was found of each kind that could be listed, and why others could not."""

    def __init__(self) -> None:
        self.places: dict[DebrisKind, tuple[Place, ...]] = {}
        self.troubles: list[str] = []

    def collect(self, kind: DebrisKind, find: Callable[[], Iterable[Place]]) -> None:
        """List one kind; what cannot be listed was not looked for."""
        try:
            self.places[kind] = tuple(find())
        except OSError as error:
            self.troubles.append(f"{kind.value}: {error}")


class _Owned:
    """Adds to a place what others say of it.

    Args:
        owners: Who may own what bears a name.
        around: The node, to look closer at what nobody owns.
        processes: The pass over /proc; a process in a cgroup of a name may be of that name.
    """

    def __init__(self, owners: Owners, processes: ProcessScan, around: NodeContext) -> None:
        self._owners = owners
        self._around = around
        self._names = processes.cgroup_names.union(*map(names_of, processes.cgroup_paths))
        self._unplaced = processes.unplaced

    def left(self, places: Iterable[Place]) -> Iterator[Place]:
        """Give those of which it is not known that somebody owns them or lives in them."""
        for place in places:
            owned = self._owner_of(place)
            if owned is Answer.YES:
                continue
            weighed = self._closer(replace(place, owned=owned))
            if weighed.lives is not Answer.YES:
                yield weighed

    def _owner_of(self, place: Place) -> Answer:
        key, owners = BundleKey(place.namespace, place.id), self._owners
        match place.key.kind:
            case DebrisKind.SHIM_SOCKET:
                owned = owners.of_socket(unescape(place.key.path))
            case DebrisKind.FIFO_DIR:  # an empty one is nobody's but its client's, who is not asked
                owned = owners.of_id(place.id)
            case DebrisKind.HIDDEN_BUNDLE:
                owned = owners.of_hidden(key)
            case DebrisKind.SHIM:
                owned = Answer.YES if key in owners.bundles else Answer.NO
            case _:
                owned = owners.of(key)
        return owned

    def _closer(self, place: Place) -> Place:
        place = finds.closer(place, self._around)
        is_named = place.key.kind in _NAMED and (self._unplaced or place.id in self._names)
        if place.lives is Answer.NO and is_named:
            return replace(place, lives=Answer.NONE)
        return place


def _namespaces(context: WorkerContext) -> frozenset[str]:
    """Give the namespaces of our own containerd, as its trees of bundles and work dirs show."""
    found: set[str] = set()
    for root in (context.layout.tasks, context.layout.work, context.layout.runc_root):
        try:
            with opened(root) as top:
                found.update(map(escape, visible(top)))
        except FileNotFoundError:
            continue
    return frozenset(found)
