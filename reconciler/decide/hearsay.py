"""What the node's witnesses said last, since when it counts, and whom a new word touches. Pure."""

from dataclasses import dataclass
from typing import Final

from reconciler.model.evidence import Node
from reconciler.model.ids import BundleKey
from reconciler.model.observations import NodeLooked

_BLIND: Final = Node()


@dataclass(frozen=True, slots=True)
class NodeChange:
    """The difference between two words of the witnesses.

    Attributes:
        everybody: A witness fell silent, came back, or containerd went down or up.
        keys: Bundles whose task or helper came or went.
        namespaces: Namespaces in which a shim came or went.
        names: Cgroup path components that came or went.
        since: Bundles first seen later than this were not covered before.
    """

    everybody: bool
    keys: frozenset[BundleKey]
    namespaces: frozenset[bytes]
    names: frozenset[bytes]
    since: float

    def touches(self, key: BundleKey, first_seen: float) -> bool:
        """Tell whether a bundle that is not plainly alive must be judged again."""
        return (
            self.everybody
            or first_seen > self.since
            or key in self.keys
            or key.namespace in self.namespaces
            or key.id in self.names
        )


class Hearsay:
    """Remembers the witnesses' word. An answer says nothing about bundles first seen after it."""

    def __init__(self) -> None:
        self.node = _BLIND
        self._since = -1.0

    def about(self, first_seen: float) -> Node:
        """The word that counts for a bundle first seen then."""
        return self.node if self._since >= first_seen else _BLIND

    def hear(self, heard: NodeLooked) -> NodeChange:
        """Take in a new word."""
        before, since = self.node, self._since
        self.node = Node(heard.sweep or before.sweep, heard.containerd or before.containerd)
        self._since = heard.since
        old, new = before.sweep, self.node.sweep
        return NodeChange(
            everybody=before.containerd.state is not self.node.containerd.state
            or old.answered is not new.answered,
            keys=(before.containerd.tasks ^ self.node.containerd.tasks)
            | (old.helpers ^ new.helpers),
            namespaces=frozenset(p.key.namespace for p in set(old.shims) ^ set(new.shims)),
            names=old.cgroup_names ^ new.cgroup_names,
            since=since,
        )
