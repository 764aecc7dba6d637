"""Random histories of a node: whatever happens to it, nothing alive is ever cleaned.

Each history is played on a simulated node whose truth is known. After every step: no cleanup of
anything alive was asked for, none was made, and no bundle that lives is called a leftover once it
was looked at. At the end every fault is healed: then all that is truly dead goes, all else stays.

`tests.safety.histories` plays them. A failing history is printed as a program.
"""

from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.cgroups import names_of
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Resync, ResyncKind
from reconciler.model.policy import Brakes, Policies, Policy
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon, Truth
from reconciler.testing.simulator import Manners, Simulation

Rule = Callable[["NodeMachine"], None]

DAY = 86400.0
GRACE = 30.0
KEYS = [BundleKey(ns, name) for ns in ("default", "k8s.io") for name in ("a", "b", "pod")]
POLICIES = Policies(
    default=Policy(enforce=True, grace=GRACE, max_age=None, max_size=None),
    brakes=Brakes(mass_deaths=3),
    recheck=600.0,
)

which = st.integers(0, len(KEYS) - 1)
"""Which of the bundles that are there, or of the names that are free: none is asked for in vain."""
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

cgroups = st.sampled_from([None, None, "/burst", "/default/a", "/k8s.io/b/deep", "/x/pod"])
"""Where a container is put: mostly where containerd puts it, else in or below another one's."""
strangers = st.sampled_from(
    ["/user.slice", "/user.slice/session-a.scope", "/b/deep", "/pod", "/burst", "/default"]
)
"""Where somebody is who has nothing to do with any container."""


def _chosen(keys: list[BundleKey], at: int) -> BundleKey:
    return keys[at % len(keys)]


def touches(rule: Rule) -> Rule:
    """Do this only to a bundle that is there."""
    return precondition(lambda self: self.node.bundles)(rule)


def creates(rule: Rule) -> Rule:
    """Do this only where a name is free and containerd there to make it."""
    return precondition(
        lambda self: self.node.daemon is Daemon.UP and not self.node.bundles.keys() >= {*KEYS}
    )(rule)


class NodeMachine(RuleBasedStateMachine):
    """One history.

    Attributes:
        simulation: What plays it.
        played: Histories so far.
        steps: Steps of them.
        killed: Processes of orphans that were ended.
        policies: What is allowed.
    """

    simulation: ClassVar[type[Simulation]] = Simulation
    played: ClassVar[int] = 0
    steps: ClassVar[int] = 0
    killed: ClassVar[int] = 0
    policies: Policies = POLICIES

    @initialize(
        ask=st.sampled_from([0.0, 0.3, 20.0]),
        clean=st.sampled_from([0.0, 2.0, 40.0]),
        reuses=st.booleans(),
    )
    def begin(self, ask: float, clean: float, reuses: bool) -> None:
        self.make(ask, clean, reuses=reuses)

    def make(self, ask: float, clean: float, *, reuses: bool, node: Node | None = None) -> None:
        """Make a node, if none is given, and what watches it."""
        node = node or Node()
        node.reuses_inodes = reuses
        self.waited = False
        self.sim = self.simulation(self.policies, node, Manners(ask, clean, relist=300.0))

    @property
    def node(self) -> Node:
        return self.sim.node

    def there(self, at: int) -> BundleKey:
        """Choose a bundle."""
        return _chosen(list(self.node.bundles), at)

    def free(self, at: int) -> BundleKey:
        """Choose a name that no bundle has."""
        return _chosen([key for key in KEYS if key not in self.node.bundles], at)

    def dead(self) -> list[BundleKey]:
        return [key for key in self.node.bundles if self.node.truth(key) is Truth.DEAD]

    # ------------------------------------------------------------------ in order

    @creates
    @rule(at=which, pod=st.booleans(), kata=st.booleans(), cgroup=cgroups)
    def create(self, at: int, pod: bool, kata: bool, cgroup: str | None) -> None:
        runtime = "kata" if kata and cgroup else "runc"
        self.node.create(self.free(at), "pod" if pod else None, runtime=runtime, cgroup=cgroup)
        self.sim.settle()

    @creates
    @rule(at=which)
    def create_by_another_driver(self, at: int) -> None:
        """The path that config.json asks systemd for is taken for the name of a directory."""
        key = self.free(at)
        cgroup, asked = "/pods.slice:cri:" + key.id, f"/pods.slice/cri-{key.id}.scope"
        self.node.create(key, cgroup=cgroup, asked=asked)
        self.sim.settle()

    @creates
    @rule(at=which, pod=st.booleans())
    def start(self, at: int, pod: bool) -> None:
        self.node.start(self.free(at), "pod" if pod else None)
        self.sim.settle()

    @touches
    @rule(at=which)
    def proceed(self, at: int) -> None:
        self.node.proceed(self.there(at))
        self.sim.settle()

    @touches
    @rule(at=which)
    def fork(self, at: int) -> None:
        self.node.fork(self.there(at))

    @touches
    @rule(at=which)
    def stop(self, at: int) -> None:
        self.node.stop(self.there(at))
        self.sim.settle()

    @touches
    @rule(at=which)
    def delete(self, at: int) -> None:
        self.node.delete(self.there(at))
        self.sim.settle()

    # ------------------------------------------------------------------ what goes wrong

    @touches
    @rule(at=which)
    def kill_shim(self, at: int) -> None:
        self.node.kill_shim(self.there(at))
        self.sim.settle()

    @touches
    @rule(at=which, alone=st.booleans())
    def kill_init(self, at: int, alone: bool) -> None:
        self.node.kill_init(self.there(at), alone=alone)
        self.sim.settle()

    @touches
    @rule(at=which)
    def crash(self, at: int) -> None:
        self.node.crash(self.there(at))
        self.sim.settle()

    @rule()
    def crash_everything(self) -> None:
        for key in list(self.node.bundles):
            self.node.crash(key)
        self.sim.settle()

    @touches
    @rule(at=which)
    def react(self, at: int) -> None:
        self.node.react(self.there(at))
        self.sim.settle()

    @touches
    @rule(at=which, fails=st.booleans())
    def finish_reaction(self, at: int, fails: bool) -> None:
        self.node.finish_reaction(self.there(at), fails=fails)
        self.sim.settle()

    @touches
    @rule(at=which, cgroup=strangers)
    def reuse_pid(self, at: int, cgroup: str) -> None:
        self.node.reuse_pid(self.there(at), cgroup)
        self.sim.settle()

    @touches
    @rule(at=which, entry=lost_files)
    def lose_files(self, at: int, entry: Entries) -> None:
        self.node.lose_file(self.there(at), entry)
        self.sim.settle()

    @touches
    @rule(at=which)
    def lose_runc_state(self, at: int) -> None:
        self.node.lose_runc_state(self.there(at))
        self.sim.settle()

    @touches
    @rule(at=which, path=st.sampled_from(["extra", "rootfs/data"]))
    def mount(self, at: int, path: str) -> None:
        self.node.mount(self.there(at), path)
        self.sim.settle()

    @touches
    @rule(at=which)
    def unmount(self, at: int) -> None:
        self.node.unmount(self.there(at))
        self.sim.settle()

    @precondition(lambda self: self.dead())
    @rule(at=which, ours=st.booleans())
    def cut_a_removal_short(self, at: int, ours: bool) -> None:
        key = _chosen(self.dead(), at)
        self.node.hide(key, ".half-" + key.id, ours=ours)
        self.sim.settle()

    @rule(daemon=st.sampled_from(Daemon), sweeps=st.booleans())
    def containerd(self, daemon: Daemon, sweeps: bool) -> None:
        self.node.set_daemon(daemon, sweeps=sweeps)
        self.sim.settle()

    # ------------------------------------------------------------------ what goes wrong with us

    @rule(events_arrive=st.booleans())
    def receive(self, events_arrive: bool) -> None:
        self.node.events_arrive = events_arrive

    @precondition(lambda self: not self.node.events_arrive)
    @rule()
    def overflow(self) -> None:
        self.node.events_arrive = True
        self.sim.observe(Resync(ResyncKind.OVERFLOW))
        self.sim.settle()

    @touches
    @rule(at=which, blind=st.booleans())
    def cannot_look(self, at: int, blind: bool) -> None:
        key = self.there(at)
        (self.sim.sight.blind.add if blind else self.sim.sight.blind.discard)(key)

    @rule(proc=st.booleans(), tree=st.booleans())
    def cannot_read(self, proc: bool, tree: bool) -> None:
        self.sim.sight.proc, self.sim.sight.tree = proc, tree

    @rule(lists=st.booleans(), most=st.integers(0, 3))
    def cannot_list(self, lists: bool, most: int) -> None:
        """Shims that do not answer hold up containerd's lists; single answers still come."""
        self.sim.sight.lists, self.sim.sight.most = lists, most

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

    @precondition(lambda self: not (self.waited or self.kills))
    @rule()
    def wait_for_a_month(self) -> None:
        """Nothing changes but the time: what is unknown stays unknown. Once: a month is long."""
        self.waited = True
        self.sim.relist()
        self.sim.wait(1300.0)  # every recheck is made twice: what can be learnt has been
        before = self.sim.verdicts()
        self.sim.manners.relist = DAY
        self.sim.configure(replace(self.policies, recheck=DAY))
        self.sim.wait(30 * DAY)
        self.sim.manners.relist = 300.0
        self.sim.configure(self.policies)
        after = self.sim.verdicts()
        for key, verdict in before.items():
            if verdict in (Verdict.UNKNOWN, Verdict.ORPHANED):
                assert after.get(key) is verdict, f"{key} became {after.get(key)} by waiting"

    # ------------------------------------------------------------------ promises

    @invariant()
    def nothing_alive_is_cleaned(self) -> None:
        NodeMachine.steps += 1
        assert self.sim.harm == []

    @override
    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        NodeMachine.played += 1
        self.heal()
        alive = {key for key in self.node.bundles if self.must_live(key)}
        self.sim.wait(3 * 3600.0)
        self.nothing_alive_is_cleaned()
        assert alive <= self.node.bundles.keys()
        for key, bundle in self.node.bundles.items():
            verdict = self.sim.verdicts().get(key)
            if bundle.runtime != "runc" and Entries.SHIM_BINARY_PATH in bundle.files:
                assert verdict is not Verdict.LEFTOVER
            elif self.node.truth(key) is Truth.ALIVE:
                assert verdict not in (None, Verdict.LEFTOVER), f"{key}: {verdict}"
                assert verdict is not Verdict.UNKNOWN or self.may_stay_unknown(key)
            elif verdict is Verdict.UNKNOWN and self.may_stay_unknown(key):
                continue
            elif not (self.somebody_may_be_its(key) or self.looks_new_to_the_worker(key)):
                assert self.node.truth(key) is not Truth.DEAD, f"{key} is dead and stays: {verdict}"

    @property
    def kills(self) -> bool:
        """Whether orphans are ended."""
        return False

    def must_live(self, key: BundleKey) -> bool:
        """Whether nothing of it may go, whatever the policy."""
        return self.node.truth(key) is Truth.ALIVE

    def may_stay_unknown(self, key: BundleKey) -> bool:
        """Too much is lost to tell, and time brings nothing back."""
        return self.may_be_anothers(key) or self.may_hide_somebody(key)

    def may_be_anothers(self, key: BundleKey) -> bool:
        """No file names its shim or its pod, and containerd lists it: who serves it is open."""
        named = self.node.bundles[key].files & (Entries.CONFIG | Entries.ADDRESS)
        return (
            not named
            and key in self.node.tasks
            and any(namespace == key.namespace for namespace, _ in self.node.shims)
        )

    def may_hide_somebody(self, key: BundleKey) -> bool:
        """Nothing names its cgroup, and it is mounted: who has outlived its init has no trace."""
        bundle = self.node.bundles[key]
        return bool(bundle.mounts and not (bundle.files & Entries.CONFIG or bundle.runc_state))

    def somebody_may_be_its(self, key: BundleKey) -> bool:
        """A shim of its name counts, whoever is in the cgroup it names, else in one of its name."""
        bundle = self.node.bundles[key]
        if self.node.may_have_shim(key):
            return True  # a pod's, perhaps, that was started for another task
        if self.node.in_cgroup(bundle.cgroup_path):
            return True
        asks = bundle.files & Entries.CONFIG and bundle.asked_path == bundle.cgroup_path
        known = bundle.runc_state or (asks and bundle.cgroup)
        paths = (one.cgroup for one in self.node.processes.values() if one.cgroup is not None)
        return not known and any(key.id in names_of(path) for path in paths)

    def looks_new_to_the_worker(self, key: BundleKey) -> bool:
        """A worker has only the wall clock to tell the age of a creation that never ended."""
        bundle = self.node.bundles[key]
        age = self.node.stamp.wall - bundle.mtime
        return age < POLICIES.settle and not (bundle.runc_state or bundle.files & Entries.INIT_PID)

    def heal(self) -> None:
        """Take every fault away; the world itself stays as it is."""
        sim, node = self.sim, self.sim.node
        node.events_arrive = sim.sight.proc = sim.sight.tree = sim.sight.lists = True
        sim.sight.blind.clear()
        for key in list(node.bundles):
            node.unmount(key)
        node.set_daemon(Daemon.UP, sweeps=False)
        for key in list(node.bundles):
            for _ in range(2):
                node.proceed(key)
        sim.relist()
