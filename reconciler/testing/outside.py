"""What lies outside of bundles on a simulated node: what stays, who lives in it, what is seen.

The truth is kept here (:meth:`Outside.is_used`), and what an inventory would see of it is made
from the node as a worker sees it. A name may be used again, for another thing with the inode number
of the one before.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.model.debris import DebrisKind, Inventory, Place, PlaceKey
from reconciler.model.evidence import Answer
from reconciler.model.ids import BundleKey, Identity

if TYPE_CHECKING:
    from reconciler.testing.node import Node
    from reconciler.testing.sight import Sight

UNNAMED: Final = frozenset({DebrisKind.SHIM_SOCKET})
"""Kinds whose name says nothing of whose they are."""


@dataclass(slots=True)
class Thing:
    """One thing outside of bundles.

    Attributes:
        key: Where it is.
        identity: Which object it is.
        owner: The bundle that it was made for.
        since: When it was changed last, wall clock.
        inhabited: Whether somebody listens, runs or works in it.
    """

    key: PlaceKey
    identity: Identity
    owner: BundleKey
    since: float
    inhabited: bool = False


class Outside:
    """Everything outside of bundles; each method is one thing that may happen.

    Attributes:
        things: What is there.
        was_used: Whether anything ever was.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._ino = 1_000_000
        self.things: dict[PlaceKey, Thing] = {}
        self.was_used = False

    def make(self, owner: BundleKey, kind: DebrisKind, *, same_number: bool = False) -> PlaceKey:
        """Make a thing for a bundle, in the place of the one before if there is one."""
        key = PlaceKey(kind, f"/{kind.value}/{owner}")
        before = self.things.get(key)
        self._ino += not (same_number and before)
        number = before.identity.ino if same_number and before else self._ino
        node = self._node
        node.mono += 0.001
        self.things[key] = Thing(key, Identity(1, number, 1), owner, node.stamp.wall)
        self.was_used = True
        return key

    def enter(self, key: PlaceKey) -> None:
        """Let somebody live in it."""
        self.things[key].inhabited = True

    def leave(self, key: PlaceKey) -> None:
        """Let whoever lives in it end."""
        self.things[key].inhabited = False

    # ------------------------------------------------------------------ the truth

    def is_used(self, key: PlaceKey) -> bool:
        """Whether removing it would harm somebody."""
        thing = self.things[key]
        return thing.inhabited or thing.owner in self._node.bundles

    # ------------------------------------------------------------------ what is seen

    def inventory(self, sight: "Sight") -> Inventory:
        """Take an inventory as a worker would."""
        now = self._node.mono
        if not self.was_used:
            return Inventory(now)
        if not (sight.proc and sight.tree):
            return Inventory(now, troubles=("something cannot be read",))
        places = (self._place(thing, sight) for thing in self.things.values())
        left = tuple(one for one in places if Answer.YES not in (one.lives, one.owned))
        return Inventory(now, tuple(DebrisKind), left)

    def look(self, place: Place, sight: "Sight") -> Place | None:
        """Look at one place again; None if it is gone, or another one."""
        thing = self.things.get(place.key)
        if thing is None or thing.identity != place.identity or thing.since != place.since:
            return None
        return self._place(thing, sight)

    def _place(self, thing: Thing, sight: "Sight") -> Place:
        """Say what is seen of a thing; from another pid namespace nobody is."""
        is_named = thing.key.kind not in UNNAMED
        lives = thing.inhabited and not sight.foreign
        return Place(
            thing.key,
            thing.identity,
            thing.owner.namespace if is_named else "",
            thing.owner.id if is_named else "",
            thing.since,
            Answer.YES if lives else Answer.NO,
            Answer.YES if thing.owner in self._node.bundles else Answer.NO,
        )
