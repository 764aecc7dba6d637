"""The same histories on a node that is shared, where orphans may be ended (`tests.safety.machine`).

Another containerd starts tasks of the same names, its shims die, and strangers get pids and sit in
cgroups of the same name. Whoever is ended must have been the very bundle's.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from msgspec.structs import replace
from typing_extensions import override

from reconciler.decide.ownership import Unproven, prove
from reconciler.model.cgroups import names_in
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Orphans, Shims
from reconciler.testing.outside import (
    end_elsewhere,
    evidence_of,
    kill_shims_elsewhere,
    start_elsewhere,
)
from reconciler.testing.parts import Truth
from tests.safety.machine import KEYS, NodeMachine, cgroups, creates, touches, which
from tests.safety.outside_machine import POLICIES, OutsideMachine


class OwnersMachine(OutsideMachine):
    """One history."""

    @initialize(
        ask=st.sampled_from([0.0, 0.3, 20.0]),
        clean=st.sampled_from([0.0, 2.0, 40.0]),
        reuses=st.booleans(),
        kills=st.booleans(),
    )
    def begin_shared(self, ask: float, clean: float, reuses: bool, kills: bool) -> None:
        orphans = Orphans.KILL if kills else Orphans.REPORT
        shims = Shims.KILL if kills else Shims.REPORT
        default = replace(POLICIES.default, orphans=orphans, shims=shims)
        self.policies = replace(POLICIES, default=default)
        self.make(ask, clean, reuses=reuses)

    @override
    def begin(self) -> None:
        """There is another beginning."""

    @rule(at=which, pod=st.booleans())
    def start_elsewhere(self, at: int, pod: bool) -> None:
        start_elsewhere(self.node, KEYS[at], "pod" if pod else None)
        self.sim.settle()

    @touches
    @rule(at=which)
    def lose_records(self, at: int) -> None:
        """Let containerd forget a task and its container: its shim is leaked, or runs on alone."""
        self.node.lose_records(self.there(at))
        self.sim.settle()

    @creates
    @rule(at=which, pod=st.booleans(), cgroup=cgroups)
    def orphan(self, at: int, pod: bool, cgroup: str | None) -> None:
        key = self.free(at)
        self.node.create(key, "pod" if pod else None, cgroup=cgroup)
        self.node.proceed(key)
        self.node.proceed(key)
        self.node.fork(key)
        self.sim.settle()
        self.node.kill_shim(key)
        self.sim.settle()

    @rule()
    def kill_shims_elsewhere(self) -> None:
        kill_shims_elsewhere(self.node)
        self.sim.settle()

    @rule()
    def end_elsewhere(self) -> None:
        end_elsewhere(self.node)
        self.sim.settle()

    @override
    def heal(self) -> None:
        end_elsewhere(self.node)
        super().heal()

    @override
    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "sim"):
            NodeMachine.killed += len(self.sim.killed)
            for key, verdict in self.sim.verdicts().items():
                if self.kills and verdict is Verdict.ORPHANED:
                    assert isinstance(prove(evidence_of(self.sim.sight, key)), Unproven)

    @override
    def must_live(self, key: BundleKey) -> bool:
        served = self.node.shim_of(self.node.bundles[key]) is not None
        return self.node.truth(key) is Truth.ALIVE and (served or not self.kills)

    @override
    def may_stay_unknown(self, key: BundleKey) -> bool:
        return super().may_stay_unknown(key) or self.only_a_pid_names_it(key)

    def only_a_pid_names_it(self, key: BundleKey) -> bool:
        """Its init lives in a cgroup of another name that no file names: perhaps a reused pid's."""
        bundle = self.node.bundles[key]
        named = bundle.files & Entries.CONFIG or bundle.runc_state
        return not named and key.id not in names_in(bundle.cgroup_path.rpartition("/")[2])

    @property
    @override
    def kills(self) -> bool:
        return self.policies.default.orphans is Orphans.KILL
