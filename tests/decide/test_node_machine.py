"""Random histories of a node: whatever happens to it, nothing alive is ever cleaned.

Each history is played on a simulated node whose truth is known. After every step: no cleanup of
anything alive was asked for, none was made, and no bundle that lives is called a leftover once it
was looked at. At the end every fault is healed: then all that is truly dead goes, all else stays.

`RECONCILER_HISTORIES=100000 pytest tests/decide/test_node_machine.py` plays more of them; a
failing history is printed as a program, and its seed with it.
"""

import os

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.decide.decisions import Verdict
from reconciler.decide.policy import Brakes, Policies, Policy
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Doubt, DoubtKind
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon, Truth
from reconciler.testing.simulator import Manners, Simulation

DAY = 86400.0
GRACE = 30.0
KEYS = [BundleKey(ns, name) for ns in (b"default", b"k8s.io") for name in (b"a", b"b", b"pod")]
POLICIES = Policies(
    default=Policy(enforce=True, grace=GRACE, max_age=None, max_size=None),
    brakes=Brakes(mass_deaths=3),
    recheck=600.0,  # 30 days of rechecks are to be played in a moment
)

keys = st.sampled_from(KEYS)
waits = st.sampled_from([0.001, 0.4, 1.0, 6.0, GRACE + 1, 125.0, 700.0, 4000.0])
lost_files = st.sampled_from(
    [
        Entries.INIT_PID,
        Entries.CONFIG,
        Entries.ADDRESS,
        Entries.RUNTIME | Entries.OPTIONS | Entries.INIT_PID,
        Entries.CONFIG | Entries.ADDRESS,
        ~Entries.ROOTFS,
    ]
)


class NodeMachine(RuleBasedStateMachine):
    @initialize(
        ask=st.sampled_from([0.0, 0.3, 20.0]),
        clean=st.sampled_from([0.0, 2.0, 40.0]),
        reuses=st.booleans(),
    )
    def begin(self, ask: float, clean: float, reuses: bool) -> None:
        node = Node()
        node.reuses_inodes = reuses
        self.sim = Simulation(POLICIES, node, Manners(ask, clean, relist=300.0))

    @property
    def node(self) -> Node:
        return self.sim.node

    def there(self, key: BundleKey) -> None:
        assume(key in self.node.bundles)

    # ------------------------------------------------------------------ in order

    @rule(key=keys, pod=st.booleans(), kata=st.booleans(), odd=st.booleans())
    def create(self, key: BundleKey, pod: bool, kata: bool, odd: bool) -> None:
        assume(key not in self.node.bundles and self.node.daemon is Daemon.UP)
        self.node.create(
            key,
            b"pod" if pod else None,
            runtime="kata" if kata and odd else "runc",
            slice_name=b"burst" if odd else None,
        )
        self.sim.settle()

    @rule(key=keys, pod=st.booleans())
    def start(self, key: BundleKey, pod: bool) -> None:
        assume(key not in self.node.bundles and self.node.daemon is Daemon.UP)
        self.node.start(key, b"pod" if pod else None)
        self.sim.settle()

    @rule(key=keys)
    def proceed(self, key: BundleKey) -> None:
        self.there(key)
        self.node.proceed(key)
        self.sim.settle()

    @rule(key=keys)
    def fork(self, key: BundleKey) -> None:
        self.there(key)
        self.node.fork(key)

    @rule(key=keys)
    def stop(self, key: BundleKey) -> None:
        self.there(key)
        self.node.stop(key)
        self.sim.settle()

    @rule(key=keys)
    def delete(self, key: BundleKey) -> None:
        self.there(key)
        self.node.delete(key)
        self.sim.settle()

    # ------------------------------------------------------------------ what goes wrong

    @rule(key=keys)
    def kill_shim(self, key: BundleKey) -> None:
        self.there(key)
        self.node.kill_shim(key)
        self.sim.settle()

    @rule(key=keys, alone=st.booleans())
    def kill_init(self, key: BundleKey, alone: bool) -> None:
        self.there(key)
        self.node.kill_init(key, alone=alone)
        self.sim.settle()

    @rule(key=keys)
    def crash(self, key: BundleKey) -> None:
        self.there(key)
        self.node.crash(key)
        self.sim.settle()

    @rule()
    def crash_everything(self) -> None:
        for key in list(self.node.bundles):
            self.node.crash(key)
        self.sim.settle()

    @rule(key=keys)
    def react(self, key: BundleKey) -> None:
        self.there(key)
        self.node.react(key)
        self.sim.settle()

    @rule(key=keys, fails=st.booleans())
    def finish_reaction(self, key: BundleKey, fails: bool) -> None:
        self.there(key)
        self.node.finish_reaction(key, fails=fails)
        self.sim.settle()

    @rule(key=keys)
    def reuse_pid(self, key: BundleKey) -> None:
        self.there(key)
        self.node.reuse_pid(key)
        self.sim.settle()

    @rule(key=keys, entry=lost_files)
    def lose_files(self, key: BundleKey, entry: Entries) -> None:
        self.there(key)
        self.node.lose_file(key, entry)
        self.sim.settle()

    @rule(key=keys)
    def lose_runc_state(self, key: BundleKey) -> None:
        self.there(key)
        self.node.lose_runc_state(key)
        self.sim.settle()

    @rule(key=keys, path=st.sampled_from([b"extra", b"rootfs/data"]))
    def mount(self, key: BundleKey, path: bytes) -> None:
        self.there(key)
        self.node.mount(key, path)
        self.sim.settle()

    @rule(key=keys)
    def unmount(self, key: BundleKey) -> None:
        self.there(key)
        self.node.unmount(key)
        self.sim.settle()

    @rule(key=keys, ours=st.booleans())
    def cut_a_removal_short(self, key: BundleKey, ours: bool) -> None:
        self.there(key)
        assume(self.node.truth(key) is Truth.DEAD)
        self.node.hide(key, b".half-" + key.id, ours=ours)
        self.sim.settle()

    @rule(daemon=st.sampled_from(Daemon), sweeps=st.booleans())
    def containerd(self, daemon: Daemon, sweeps: bool) -> None:
        self.node.set_daemon(daemon, sweeps=sweeps)
        self.sim.settle()

    # ------------------------------------------------------------------ what goes wrong with us

    @rule(hears=st.booleans())
    def hear(self, hears: bool) -> None:
        self.node.hears = hears

    @precondition(lambda self: not self.node.hears)
    @rule()
    def overflow(self) -> None:
        self.node.hears = True
        self.sim.observe(Doubt(DoubtKind.OVERFLOW))
        self.sim.settle()

    @rule(key=keys, blind=st.booleans())
    def cannot_look(self, key: BundleKey, blind: bool) -> None:
        (self.sim.sight.blind.add if blind else self.sim.sight.blind.discard)(key)

    @rule(proc=st.booleans(), tree=st.booleans())
    def cannot_read(self, proc: bool, tree: bool) -> None:
        self.sim.sight.proc, self.sim.sight.tree = proc, tree

    @rule()
    def restart(self) -> None:
        self.sim.restart()

    @rule()
    def relist(self) -> None:
        self.sim.relist()

    @rule(seconds=st.sampled_from([-DAY, -60.0, 60.0, 40 * DAY]))
    def jump(self, seconds: float) -> None:
        self.node.jump(seconds)

    # ------------------------------------------------------------------ time

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.sim.wait(seconds)

    @rule()
    def wait_for_a_month(self) -> None:
        """Nothing changes but the time: what is unknown stays unknown."""
        self.sim.relist()
        self.sim.wait(1300.0)  # every recheck is made twice: what can be learnt has been
        before = self.sim.verdicts()
        self.sim.manners.relist = DAY
        self.sim.wait(30 * DAY)
        self.sim.manners.relist = 300.0
        after = self.sim.verdicts()
        for key, verdict in before.items():
            if verdict in (Verdict.UNKNOWN, Verdict.ORPHANED):
                assert after.get(key) is verdict, f"{key} became {after.get(key)} by waiting"

    # ------------------------------------------------------------------ promises

    @invariant()
    def nothing_alive_is_cleaned(self) -> None:
        assert self.sim.harm == []

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        self.heal()
        alive = {key for key in self.node.bundles if self.node.truth(key) is Truth.ALIVE}
        self.sim.wait(3 * 3600.0)
        self.nothing_alive_is_cleaned()
        assert alive <= self.node.bundles.keys()
        for key, bundle in self.node.bundles.items():
            verdict = self.sim.verdicts().get(key)
            if bundle.runtime != "runc":
                assert verdict is not Verdict.LEFTOVER
            elif self.node.truth(key) is Truth.ALIVE:
                assert verdict not in (None, Verdict.LEFTOVER), f"{key}: {verdict}"
                named = bundle.files & (Entries.CONFIG | Entries.ADDRESS)
                assert named or verdict is not Verdict.UNKNOWN
            elif not (self.has_a_living_namesake(key) or self.looks_new_to_the_worker(key)):
                assert self.node.truth(key) is not Truth.DEAD, f"{key} is dead and stays: {verdict}"

    def has_a_living_namesake(self, key: BundleKey) -> bool:
        """Processes in a cgroup of this name count for the id, whatever its namespace."""
        return any(process.cgroup == key.id for process in self.node.processes.values())

    def looks_new_to_the_worker(self, key: BundleKey) -> bool:
        """A worker has only the wall clock to tell the age of a creation that never ended."""
        bundle = self.node.bundles[key]
        age = self.node.stamp.wall - bundle.mtime
        return age < POLICIES.settle and not (bundle.runc_state or bundle.files & Entries.INIT_PID)

    def heal(self) -> None:
        """Take every fault away; the world itself stays as it is."""
        sim, node = self.sim, self.sim.node
        node.hears = sim.sight.proc = sim.sight.tree = True
        sim.sight.blind.clear()
        for key in list(node.bundles):
            node.unmount(key)
        node.set_daemon(Daemon.UP, sweeps=False)
        for key in list(node.bundles):
            for _ in range(2):
                node.proceed(key)
        sim.relist()


NodeMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("RECONCILER_HISTORIES", "150")),
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
test_nothing_alive_is_cleaned_whatever_happens = NodeMachine.TestCase
