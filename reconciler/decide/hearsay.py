"""What the node's witnesses said last, since when it counts, and whom a new word touches. Pure."""

from typing import Final, TypeVar

import msgspec

from reconciler.decide.track import Track
from reconciler.decide.verdicts import shared
from reconciler.model.evidence import Facts, Look, Node, weigh
from reconciler.model.ids import BundleKey, is_identifier
from reconciler.model.observations import NodeLooked

_T = TypeVar("_T")
_BLIND: Final = Node()


class NodeChange(msgspec.Struct, frozen=True, gc=False):
    """The difference between two words of the witnesses.

    Attributes:
        everybody: A witness fell silent, came back, or containerd went down or up.
        keys: Bundles whose task or helper came or went.
        shims: Names for which a shim came or went.
        namespaces: Namespaces in which a shim came or went.
        names: Cgroup path components that came or went.
        since: Bundles first seen later than this were not covered before, or are not now.
    """

    everybody: bool
    keys: frozenset[BundleKey]
    shims: frozenset[BundleKey]
    namespaces: frozenset[bytes]
    names: frozenset[bytes]
    since: float

    @property
    def is_news(self) -> bool:
        """Whether anything was said that was not said before."""
        return bool(self.everybody or self.keys or self.shims or self.names)

    def touches(self, key: BundleKey, first_seen: float) -> bool:
        """Tell whether a bundle that is not plainly alive must be judged again."""
        return key.namespace in self.namespaces or self.speaks_of(key, first_seen)

    def speaks_of(self, key: BundleKey, first_seen: float) -> bool:
        """Tell whether it is touched by more than a shim's coming or going in its namespace."""
        return (
            self.everybody
            or first_seen > self.since
            or key in self.keys
            or key in self.shims
            or key.id in self.names
        )


class Hearsay:
    """Remembers the witnesses' word. An answer says nothing about bundles first seen after it."""

    def __init__(self) -> None:
        self.node = _BLIND
        self._number = 0  # of the word, counted from the first; one that is no news keeps it
        self._since = -1.0

    def about(self, first_seen: float) -> Node:
        """The word that counts for a bundle first seen then."""
        return self.node if self._since >= first_seen else _BLIND

    def weigh(self, track: Track, look: Look) -> Facts:
        """Join a track's look with the word that counts for it, where either is new."""
        key, facts = track.key, track.facts
        number = self._number if self._since >= track.first_seen else 0
        if facts is None or track.weighed_with != number:
            is_valid = all(map(is_identifier, key)) if facts is None else facts.identifier
            facts = track.facts = shared(weigh(key, is_valid, look, self.about(track.first_seen)))
            track.weighed_with = number
        return facts

    def hear(self, heard: NodeLooked) -> NodeChange:
        """Take in a new word."""
        before, since = self.node, self._since
        self.node = Node(heard.sweep or before.sweep, heard.containerd or before.containerd)
        self._since = heard.since
        old, new = before.sweep, self.node.sweep
        shims = _changed(before.served, self.node.served)
        change = NodeChange(
            everybody=before.containerd.state is not self.node.containerd.state
            or old.answered is not new.answered,
            keys=_changed(before.containerd.tasks, self.node.containerd.tasks)
            | _changed(old.helpers, new.helpers),
            shims=shims,
            namespaces=frozenset(key.namespace for key in shims),
            names=_changed(old.cgroup_names, new.cgroup_names),
            since=min(since, heard.since),
        )
        self._number += change.is_news
        return change


def _changed(before: frozenset[_T], now: frozenset[_T]) -> frozenset[_T]:
    """What is in one and not in the other; for large sets that are alike, or nearly."""
    if before is now or before == now:
        return frozenset()
    return (before - now) | (now - before)
