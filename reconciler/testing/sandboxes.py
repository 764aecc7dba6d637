"""Sandboxes on a simulated node of containerd 2: pods that a shim serves, in a tree of their own.

A sandbox's bundle has no init. Its shim is started for its id and serves the tasks of its pod,
whose bundles lie in the tree of tasks and name it. What containerd stores of a sandbox outlives its
bundle. Nothing here judges.
"""

from typing_extensions import override

from reconciler.decide.claims import shares
from reconciler.model.evidence import Answer, Entries, Shim
from reconciler.model.ids import BundleKey
from reconciler.testing.node import Node
from reconciler.testing.parts import Bundle, Truth
from reconciler.testing.sight import Sight


class SandboxNode(Node):
    """A node with both trees: what happens to a task may happen to a sandbox, too."""

    @override
    def truth(self, key: BundleKey) -> Truth:
        """Tell what a bundle really is; a sandbox is needed by its shim, containerd and its pod."""
        if not key.tree:
            return super().truth(key)
        bundle = self.bundles[key]
        is_served = bundle.creating or self.shim_of(bundle) is not None
        if is_served or key in self.containers or self.pod_of(key):
            return Truth.ALIVE
        return Truth.NEITHER if self.helpers_of(key) else Truth.DEAD

    def pod_of(self, key: BundleKey) -> list[Bundle]:
        """Give the bundles of a sandbox's pod; one without config.json is nobody's any more."""
        return [
            one
            for one in self.bundles.values()
            if (one.key.namespace, one.group) == (key.namespace, key.id)
            and not one.key.tree
            and one.files & Entries.CONFIG
        ]

    @override
    def create(
        self,
        key: BundleKey,
        group: str | None = None,
        *,
        runtime: str = "runc",
        cgroup: str | None = None,
        asked: str | None = None,
    ) -> Bundle:
        """Begin the creation of a task or a sandbox, of which nothing is mounted.

        Raises:
            ValueError: The name is taken, or containerd is not there to do it.
        """
        bundle = super().create(key, group, runtime=runtime, cgroup=cgroup, asked=asked)
        if key.tree:
            bundle.mounts.clear()
        pod = self.bundles.get(BundleKey(key.namespace, bundle.group).sandbox)
        if pod is not None and not self.events_arrive:
            pod.unheard = self.mono  # nothing in its own directory tells that it has a member
        return bundle

    def leave(self, key: BundleKey) -> None:
        """Let a sandbox's shim die, and containerd forget it."""
        self.crash(key)
        self.lose_records(key)

    @override
    def _make_init(self, bundle: Bundle) -> None:
        if not bundle.key.tree:
            super()._make_init(bundle)

    @override
    def _take_over(self, *, sweeps: bool) -> None:
        """At its start containerd removes a sandbox that no shim serves, though it is stored."""
        super()._take_over(sweeps=sweeps)
        self.tasks = {key for key in self.tasks if not key.tree}
        for bundle in list(self.bundles.values()) if sweeps else ():
            served = self.shim_of(bundle) or self.helpers_of(bundle.key)
            if bundle.key.tree and not (bundle.creating or served):
                self.remove(bundle.key)


def members(sight: Sight, key: BundleKey, shim: Shim) -> Answer:
    """Return whether bundles of a sandbox's pod are there, as a worker finds them."""
    near = [one for one in sight.node.bundles if one.namespace == key.namespace and not one.tree]
    seen = [look for look in map(sight.look, near) if look is not None]
    return Answer.YES if any(shares(look, shim) for look in seen) else Answer.NO
