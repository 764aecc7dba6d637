"""Inventory: what is left outside of bundles, found by listing each place once. Changes nothing.

    finds.py      what is in the places, and whether anybody lives in it
    liveness.py   who lives in what nobody owns, where that costs more than to list it
    owners.py     who may still own what bears a name; asked when all places are listed

First the names of our own bundles are listed, and what those explain is left out. Of the rest the
order is the proof. Places are listed, then the process table is read, then the trees of
bundles: a bundle, shim or helper that comes later has not made what was found, or makes it anew,
which is another object. Whatever could not be listed or asked leaves its kind out, or makes the
answer no answer.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from reconciler.model.cgroups import names_of
from reconciler.model.debris import DebrisKind, Inventory, Place, PlaceKey
from reconciler.model.evidence import Answer, ProcessScan
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe.beneath import opened, visible
from reconciler.probe.context import NodeContext
from reconciler.worker.context import WorkerContext
from reconciler.worker.inventory import finds
from reconciler.worker.inventory.liveness import check_liveness
from reconciler.worker.inventory.owners import Owners, Unexplained, find_owners

MOST: Final = 2000
"""Places in one inventory that may go; of further ones the next inventory tells.

A place waits from the inventory that names it first. So that `max_per_minute` sets the pace and not
this, 120 a minute are named for the grace and the time to the next inventory, 15 minutes together.
More would hold up the loop: it judges all at once, at some 15 us each.
"""

MOST_UNSURE: Final = 200
"""Places of which something gave no answer, counted apart: they may be there for good, and must not
keep what is dead from being named."""

_NAMED: Final = frozenset(
    {DebrisKind.RUNC_STATE, DebrisKind.CGROUP, DebrisKind.SHIM, DebrisKind.HIDDEN_BUNDLE}
)
"""Kinds of which a process in any cgroup of that name may be a part."""


class Again(msgspec.Struct, frozen=True):
    """What a further look at some places has found.

    Attributes:
        places: Those that are still there, by key, whoever owns them or lives in them.
        trouble: Why not all could be looked at; empty if they could.
    """

    places: Mapping[PlaceKey, Place]
    trouble: str = ""


def take(context: WorkerContext) -> Inventory:
    """Take an inventory of every kind."""
    began = context.clock.monotonic()
    found, owned = _look(context, frozenset(DebrisKind), _unexplained(context.layout))
    found.name_sockets(context.layout)
    # The oldest first: what comes meanwhile must not take the place of what waits already.
    oldest = (sorted(of_kind, key=lambda one: one.since) for of_kind in found.places.values())
    places, more = choose(by_turns(map(owned.left, oldest)))
    return Inventory(
        began,
        tuple(found.places),
        places,
        tuple(found.troubles),
        context.clock.monotonic() - began,
        more=more,
    )


def choose(places: Iterable[Place]) -> tuple[tuple[Place, ...], bool]:
    """Take as many places as an inventory names, and say whether there are more."""
    named: list[Place] = []
    sure = unsure = 0
    more = False
    for place in places:
        is_free = place.owned is Answer.NO or (place.unproven and place.is_drawn)
        if place.lives is Answer.NO and is_free:
            if sure == MOST:
                return tuple(named), True
            sure += 1
        elif unsure == MOST_UNSURE:
            more = True
            continue
        else:
            unsure += 1
        named.append(place)
    return tuple(named), more


def by_turns(kinds: Iterable[Iterator[Place]]) -> Iterator[Place]:
    """Give the first of each kind, the second of each, and so on: very many of one hide none."""
    left = list(kinds)
    while left:
        heads = [(one, next(one, None)) for one in left]
        yield from (place for _, place in heads if place is not None)
        left = [one for one, place in heads if place is not None]


def take_again(context: WorkerContext, kind: DebrisKind, paths: Collection[bytes]) -> Again:
    """Look at some places of a kind once more, in the same order; also at what is no debris now."""
    found, owned = _look(context, frozenset({kind}), paths.__contains__)
    places = {place.key: owned.weigh(place) for place in found.places.get(kind, ())}
    return Again(places, "; ".join(found.troubles))


def _unexplained(layout: Layout) -> finds.Wanted:
    """Give what is worth a closer look; everything where the tree does not tell."""
    try:
        return Unexplained(layout)
    except OSError:
        return finds.everything


def _look(
    context: WorkerContext, kinds: frozenset[DebrisKind], wanted: finds.Wanted
) -> "tuple[_Found, _Owned]":
    layout, found = context.layout, _Found()
    around = context.nearby(context.scan())
    for kind, find in _kinds(context, around, wanted):
        if kind in kinds:
            found.collect(kind, find)
    processes = context.scan(anew=True)
    if DebrisKind.SHIM in kinds:
        found.collect(DebrisKind.SHIM, lambda: finds.shims(processes, layout))
    try:
        of = [kind for kind, places in found.places.items() if places]
        with context.instances.others(processes) as (others, lost):
            trees = [layout.tasks, *others]
            if os.path.lexists(layout.sandboxes):
                trees.append(layout.sandboxes)
            owners = find_owners(trees, processes, lost, of, layout)
    except OSError as error:
        found.places.clear()
        found.troubles.append(f"no answer from a tree of bundles: {error}")
        owners = Owners(silent="no answer from a tree of bundles")
    return found, _Owned(owners, processes, around)


def _kinds(
    context: WorkerContext, around: NodeContext, wanted: finds.Wanted
) -> tuple[tuple[DebrisKind, Callable[[], Iterable[Place]]], ...]:
    layout = context.layout

    def sockets() -> Iterator[Place]:
        for path in dict.fromkeys((layout.sockets, layout.own_sockets)):
            yield from finds.sockets(path, around.sockets, wanted)

    return (
        (DebrisKind.HIDDEN_BUNDLE, lambda: finds.hidden_bundles(layout, wanted)),
        (DebrisKind.SHIM_SOCKET, sockets),
        (DebrisKind.FIFO_DIR, lambda: finds.fifo_dirs(layout.fifos, wanted)),
        (DebrisKind.RUNC_STATE, lambda: finds.runc_states(around, wanted)),
        (DebrisKind.CGROUP, lambda: finds.cgroups(around, _namespaces(context), wanted)),
        (DebrisKind.WORK_DIR, lambda: finds.work_dirs(layout, wanted)),
        (DebrisKind.MOUNT, lambda: finds.mounts(around, wanted)),
    )


class _Found:
    """What was found of each kind that could be listed, and why others could not."""

    def __init__(self) -> None:
        self.places: dict[DebrisKind, tuple[Place, ...]] = {}
        self.troubles: list[str] = []

    def name_sockets(self, layout: Layout) -> None:
        """Add to each socket the name of which it shows a cgroup to be a container's, if of any."""
        sockets, groups = (
            self.places.get(kind, ()) for kind in (DebrisKind.SHIM_SOCKET, DebrisKind.CGROUP)
        )
        named = {layout.shim_socket(one.namespace, one.id): one for one in groups}
        digests = {escape(path.rpartition(b"/")[2]): one for path, one in named.items()}
        if sockets and digests:
            names = ((one, digests.get(one.key.path.rpartition("/")[2])) for one in sockets)
            self.places[DebrisKind.SHIM_SOCKET] = tuple(
                one if of is None else replace(one, namespace=of.namespace, id=of.id)
                for one, of in names
            )

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
        weighed = (self.weigh(place) for place in places)
        return (one for one in weighed if Answer.YES not in (one.lives, one.owned))

    def weigh(self, place: Place) -> Place:
        """Say of a place who owns it and, unless somebody does, who lives in it."""
        owned = self._owner_of(place)
        weighed = replace(place, owned=owned)
        return weighed if owned is Answer.YES else self._closer(weighed)

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
        place = check_liveness(place, self._around)
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
