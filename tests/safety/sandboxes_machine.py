"""The same histories on containerd 2, where a shim may serve a pod as its sandbox.

Sandboxes come, lose their shims, are forgotten by containerd and get members late; their tree may
not be readable, and a task may have the name of one. None goes that its shim, its containerd or a
bundle of its pod may need; at the end those go that nothing needs.
"""

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from typing_extensions import override

from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon
from reconciler.testing.sandboxes import SandboxNode
from tests.safety.machine import KEYS, Rule, which
from tests.safety.owners_machine import OwnersMachine

SANDBOXES = [BundleKey("default", "a").sandbox, BundleKey("k8s.io", "pod").sandbox]


def pods(rule: Rule) -> Rule:
    """Do this only where a sandbox is there."""
    return precondition(lambda self: any(key.tree for key in self.node.bundles))(rule)


class SandboxesMachine(OwnersMachine):
    """One history.

    Attributes:
        sandboxes: Sandboxes that were removed in all of them.
    """

    sandboxes: ClassVar[int] = 0

    @override
    def make(self, ask: float, clean: float, *, reuses: bool, node: Node | None = None) -> None:
        super().make(ask, clean, reuses=reuses, node=node or SandboxNode())

    @property
    @override
    def node(self) -> SandboxNode:
        assert isinstance(self.sim.node, SandboxNode)
        return self.sim.node

    def pod(self, at: int) -> BundleKey:
        """Choose a sandbox."""
        there = [key for key in self.node.bundles if key.tree]
        return there[at % len(there)]

    @precondition(lambda self: self.node.daemon is Daemon.UP)
    @rule(at=which, whole=st.booleans(), leave=st.booleans())
    def make_sandbox(self, at: int, whole: bool, leave: bool) -> None:
        """Make one that is not there, as far as its helper or to its end, and have it left."""
        key = SANDBOXES[at % len(SANDBOXES)]
        if key not in self.node.bundles:
            (self.node.start if whole else self.node.create)(key)
            self.sim.settle()
        if leave:
            self.node.leave(key)
            self.sim.settle()

    @pods
    @rule(at=which, runs=st.booleans())
    def make_member(self, at: int, runs: bool) -> None:
        """Have containerd make a task of a pod, whether or not its sandbox has a shim."""
        pod = self.pod(at)
        free = [
            one for one in KEYS if one.namespace == pod.namespace and one not in self.node.bundles
        ]
        if free and self.node.daemon is Daemon.UP:
            (self.node.start if runs else self.node.create)(free[at % len(free)], pod.id)
            self.sim.settle()

    @pods
    @rule(at=which)
    def leave_sandbox(self, at: int) -> None:
        self.node.leave(self.pod(at))
        self.sim.settle()

    @rule(readable=st.booleans())
    def cannot_read_sandboxes(self, readable: bool) -> None:
        self.sim.sight.sandboxes = readable

    @override
    def heal(self) -> None:
        self.sim.sight.sandboxes = True
        super().heal()

    @override
    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "sim"):
            SandboxesMachine.sandboxes += sum(bool(key.tree) for key in self.sim.cleaned)

    @override
    def must_live(self, key: BundleKey) -> bool:
        """Also whoever kills orphans keeps the sandbox that its shim or containerd may need."""
        if not key.tree:
            return super().must_live(key)
        served = self.node.shim_of(self.node.bundles[key]) is not None
        return served or key in self.node.containers

    @override
    def may_stay_unknown(self, key: BundleKey) -> bool:
        return super().may_stay_unknown(key) or (bool(key.tree) and self.may_have_members(key))

    def may_have_members(self, key: BundleKey) -> bool:
        """A bundle of its namespace does not say whose it is, nor that its shim is dead."""
        node = self.node
        return any(
            not (one.files & Entries.CONFIG)
            and (not one.files & Entries.ADDRESS or (one.key.namespace, one.group) in node.shims)
            for one in node.bundles.values()
            if one.key.namespace == key.namespace and not one.key.tree
        )

    @override
    def somebody_may_be_its(self, key: BundleKey) -> bool:
        """Processes and containerd's records tell no tree: those of its name count for both.

        Nor does a shim's command line tell its pod: one of a task that is called as a pod, and is a
        member of another one, may serve either.
        """
        node = self.node
        named = (key.task, key.sandbox)
        is_helped = any(node.helpers_of(one) for one in named)
        is_known = bool(key.tree) and key.task in node.containers | node.tasks
        pod = BundleKey(key.namespace, node.bundles[key].group)
        is_served = any(one.key.task == pod for one in node.shims.values())
        return super().somebody_may_be_its(key) or is_helped or is_known or is_served
