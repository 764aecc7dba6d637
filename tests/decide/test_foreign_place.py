"""From a foreign namespace nothing is proven: what cannot be seen from there may live."""

import itertools
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from reconciler.decide.verdicts import judge
from reconciler.model.cgroups import CgroupSource
from reconciler.model.decisions import Clean, Phase, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Init,
    InitState,
    Look,
    Mount,
    Node,
    ProcessScan,
    Shim,
    ShimProcess,
    ShimState,
)
from reconciler.model.facts import weigh
from reconciler.model.observations import Guard, GuardsChecked, Refusal
from reconciler.model.policy import Policies
from reconciler.testing.node import Node as SimulatedNode
from reconciler.testing.simulator import Simulation
from tests.decide.world import DOWN, ENFORCE, SILENT, UP, World, dead, key, leftover, stopped

FOREIGN = GuardsChecked((Refusal(Guard.PID_NAMESPACE, "foreign pid namespace"),))
OTHER_TIME = GuardsChecked((Refusal(Guard.TIME_NAMESPACE, "foreign time namespace"),))
OTHER_MOUNTS = GuardsChecked((Refusal(Guard.MOUNT_NAMESPACE, "foreign mount namespace"),))
NOBODY = GuardsChecked((Refusal(Guard.WORKER, "no worker could look"),))
KEY = key()


def looks() -> Iterator[Look]:
    """Every look that processes, sockets, cgroups and mounts can make of one bundle."""
    columns = (InitState, ShimState, CgroupState, CgroupSource, Answer, (None, "a"), (False, True))
    for init, shim, cgroup, source, created, group, mounted in itertools.product(*columns):
        yield replace(
            dead(),
            init=Init(init, 7),
            shim=Shim(shim, None, group),
            cgroup=cgroup,
            cgroup_source=source,
            created=created,
            mounts=(Mount("rootfs", 1, "overlay"),) if mounted else (),
        )


def nodes(**foreign: bool) -> Iterator[Node]:
    """Every word of the node's witnesses, as heard from such a place."""
    scans = (
        ProcessScan(),
        ProcessScan(answered=True),
        ProcessScan(answered=True, helpers=frozenset({KEY})),
        ProcessScan(answered=True, shims=(ShimProcess(KEY, 9),)),
        ProcessScan(answered=True, cgroup_names=frozenset({KEY.id})),
        ProcessScan(answered=True, unplaced=9),
    )
    for scan, containerd in itertools.product(scans, (UP, DOWN, SILENT)):
        yield replace(Node(scan, containerd), **foreign)


def test_processes_that_are_not_seen_from_here_prove_no_death() -> None:
    """The truth table: whatever else is said, nothing is dead, orphaned or stopped with a death."""
    seen = set()
    for look, node in itertools.product(looks(), nodes(foreign_processes=True)):
        facts = weigh(KEY, True, look, node)
        assert facts.init is not InitState.DEAD
        assert facts.shim is not ShimState.DEAD
        assert facts.helper is not Answer.NO
        assert facts.cgroup in {CgroupState.POPULATED, CgroupState.NONE}
        for young in (True, False):
            judgement = judge(facts, young=young)
            seen.add(judgement.verdict)
            assert judgement.verdict not in {Verdict.LEFTOVER, Verdict.ORPHANED}, (look, node)
            if judgement.verdict is Verdict.STOPPED:
                # Files say that nothing was started, and the shim answers at its socket.
                assert (facts.init, facts.shim) == (InitState.ABSENT, ShimState.ALIVE)
    assert Verdict.UNKNOWN in seen
    assert Verdict.RUNNING in seen


def test_signs_of_life_count_from_everywhere() -> None:
    """A foreign place takes only noes away: what is alive or at work stays so."""
    for look, (here, there) in itertools.product(
        looks(), zip(nodes(), nodes(foreign_processes=True), strict=True)
    ):
        own, foreign = weigh(KEY, True, look, here), weigh(KEY, True, look, there)
        assert (own.helper is Answer.YES) == (foreign.helper is Answer.YES)
        assert (own.init is InitState.ALIVE) == (foreign.init is InitState.ALIVE)
        assert (own.cgroup is CgroupState.POPULATED) == (foreign.cgroup is CgroupState.POPULATED)
        if look.shim.state is ShimState.ALIVE:
            assert foreign.shim is ShimState.ALIVE


def test_mounts_that_are_not_seen_from_here_may_be_of_a_workload_in_any_cgroup() -> None:
    unnamed = replace(dead(), cgroup=CgroupState.UNNAMED, cgroup_source=CgroupSource.NONE)
    scan = ProcessScan(answered=True)
    assert weigh(KEY, True, unnamed, Node(scan, UP)).cgroup is CgroupState.GONE
    foreign = Node(scan, UP, foreign_mounts=True)
    assert weigh(KEY, True, unnamed, foreign).cgroup is CgroupState.NONE
    assert weigh(KEY, True, dead(), foreign).cgroup is CgroupState.GONE


@pytest.mark.parametrize("checked", [FOREIGN, OTHER_TIME], ids=["pid", "time"])
@pytest.mark.parametrize("first", ["guards", "looks"])
def test_a_refused_guard_makes_the_dead_unknown_whenever_it_comes(
    checked: GuardsChecked, first: str
) -> None:
    world = World()
    if first == "guards":
        world.observe(checked)
    world.listed(a=1, b=2)
    world.look(dead())
    world.look(stopped(2), "ns/b")
    world.node()
    if first == "looks":
        assert world.verdicts()[-1:] == ["leftover"]
        assert world.verdicts("ns/b") == ["stopped"]
        world.observe(checked)
    for name in ("ns/a", "ns/b"):
        assert world.view(name).judgement.verdict is Verdict.UNKNOWN, name
        assert "init process" in world.view(name).judgement.reason
    world.look(dead())
    world.node()
    world.wait(7 * 86400.0)
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    assert world.cleans() == []


def test_the_grace_begins_anew_where_we_see_again() -> None:
    world = leftover()
    world.wait(9.0)
    world.observe(FOREIGN)
    assert world.phase() is Phase.NONE
    world.wait(60.0)
    world.observe(GuardsChecked())
    assert world.phase() is Phase.WAITING
    assert world.view().due_in_seconds == pytest.approx(10.0)
    assert [d for d in world.wait(10.0) if isinstance(d, Clean)]


def test_a_worker_that_could_not_measure_says_nothing_about_our_place() -> None:
    world = leftover()
    world.observe(NOBODY)
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    world.observe(FOREIGN)
    world.observe(NOBODY)
    assert world.view().judgement.verdict is Verdict.UNKNOWN


def test_a_foreign_mount_namespace_makes_only_what_hangs_on_mounts_unknown() -> None:
    world = leftover()
    world.observe(OTHER_MOUNTS)
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    world.look(replace(dead(), cgroup=CgroupState.UNNAMED, cgroup_source=CgroupSource.NONE))
    assert world.view().judgement.verdict is Verdict.UNKNOWN


def test_a_simulated_node_seen_from_a_foreign_namespace_has_no_dead() -> None:
    """The same histories, and one that begins to see: nothing is dead before it does."""
    node = SimulatedNode()
    simulation = Simulation(Policies(default=ENFORCE), node)
    node.start(key("ns/live"))
    for name in ("ns/dead", "ns/lonely", "ns/ended"):
        node.start(key(name))
    node.crash(key("ns/dead"))
    node.kill_shim(key("ns/lonely"))
    node.stop(key("ns/ended"))
    simulation.sight.foreign = True
    simulation.restart()
    simulation.wait(86400.0)
    assert set(simulation.verdicts().values()) == {Verdict.UNKNOWN}
    assert simulation.cleaned == []
    simulation.sight.foreign = False
    simulation.restart()
    simulation.wait(5.0)
    assert simulation.verdicts() == {
        key("ns/live"): Verdict.RUNNING,
        key("ns/dead"): Verdict.LEFTOVER,
        key("ns/lonely"): Verdict.ORPHANED,
        key("ns/ended"): Verdict.STOPPED,
    }
    simulation.wait(60.0)
    assert (simulation.cleaned, simulation.harm) == ([key("ns/dead")], [])
