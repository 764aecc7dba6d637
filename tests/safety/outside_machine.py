"""The same histories with things outside of bundles: left behind, used again, by the same number.

What somebody lives in, or a bundle that is there may own, is never removed; at the end, when every
fault is healed, what nobody uses goes.
"""

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from typing_extensions import override

from reconciler.decide.debris_verdicts import AGES
from reconciler.model.debris import DebrisKind, PlaceKey
from tests.safety import machine
from tests.safety.machine import KEYS, NodeMachine, which

POLICIES = machine.POLICIES.cleaning_debris(frozenset(DebrisKind))

kinds = st.sampled_from(
    [DebrisKind.CGROUP, DebrisKind.SHIM_SOCKET, DebrisKind.RUNC_STATE, DebrisKind.FIFO_DIR]
)


class OutsideMachine(NodeMachine):
    """One history.

    Attributes:
        debris: Pieces of debris that were removed in all of them.
    """

    debris: ClassVar[int] = 0

    def thing(self, at: int) -> PlaceKey:
        """Choose something outside of bundles."""
        things = list(self.sim.outside.things)
        return things[at % len(things)]

    @rule(at=which, kind=kinds)
    def leave_behind(self, at: int, kind: DebrisKind) -> None:
        """Something is made for a bundle that is there, was there, or never came to be."""
        self.sim.outside.make(KEYS[at], kind)

    @precondition(lambda self: self.sim.outside.things)
    @rule(at=which, same=st.booleans())
    def make_again(self, at: int, same: bool) -> None:
        """A new task of the name makes its own, perhaps of the same number, and lives in it."""
        outside = self.sim.outside
        thing = outside.things[self.thing(at)]
        outside.enter(outside.make(thing.owner, thing.key.kind, same_number=same))

    @precondition(lambda self: self.sim.outside.things)
    @rule(at=which, enters=st.booleans())
    def enter_or_leave(self, at: int, enters: bool) -> None:
        outside = self.sim.outside
        (outside.enter if enters else outside.leave)(self.thing(at))

    @override
    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "sim"):
            return
        OutsideMachine.debris += len(self.sim.debris_cleaned)
        assert [key for key in self.sim.outside.things if self.is_debris(key)] == []

    def is_debris(self, key: PlaceKey) -> bool:
        """Nobody uses it, containerd knows no such task, and no clock says that it is new."""
        thing, now = self.sim.outside.things[key], self.node.stamp.wall
        is_old = now - thing.since > AGES[key.kind] + 3600.0
        return is_old and not self.sim.outside.is_used(key) and thing.owner not in self.node.tasks
