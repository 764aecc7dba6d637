"""Orphans on a shared node, in virtual time: the very bundle's own processes end, and no others."""

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.cgroups import usual_path
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Orphans
from reconciler.testing.node import Node
from reconciler.testing.outside import kill_shims_elsewhere, start_elsewhere
from reconciler.testing.parts import Truth
from reconciler.testing.simulator import Simulation
from tests.safety.machine import KEYS, POLICIES

pytestmark = pytest.mark.safety

KILL = replace(POLICIES, default=replace(POLICIES.default, orphans=Orphans.KILL))
ORPHAN, OTHER = KEYS[0], KEYS[1]


class ByPlaceAlone(Simulation):
    """One that takes whoever is in a cgroup for the bundle's that names it."""

    @override
    def _kill(self, outcome: Outcome) -> Outcome:
        for process in self.node.in_cgroup(self.node.bundles[outcome.key].cgroup_path):
            if process.key != outcome.key:
                self.harm.append(f"end of {process.key}")
        return replace(outcome, result=Result.KILLED)


def a_guest_below(kind: type[Simulation]) -> Simulation:
    """One container is in a cgroup below that of another one, which has lost its shim."""
    simulation = kind(KILL, Node())
    node = simulation.node
    node.start(ORPHAN)
    node.create(OTHER, cgroup=usual_path(ORPHAN) + "/deep")
    node.proceed(OTHER)
    node.proceed(OTHER)
    node.kill_shim(ORPHAN)
    simulation.relist()
    simulation.wait(600.0)
    return simulation


def a_namesake(kind: type[Simulation], *, orphaned: bool) -> Simulation:
    """Another containerd starts the id, in the same cgroup, after ours lost its shim and init."""
    simulation = kind(KILL, Node())
    node = simulation.node
    node.start(ORPHAN)
    node.fork(ORPHAN)
    node.kill_shim(ORPHAN)
    node.kill_init(ORPHAN, alone=True)
    start_elsewhere(node, ORPHAN, "pod")
    if orphaned:
        kill_shims_elsewhere(node)
    simulation.relist()
    simulation.wait(600.0)
    return simulation


def test_an_orphan_with_all_it_forked_is_ended_and_then_cleaned() -> None:
    simulation = Simulation(KILL, Node())
    node = simulation.node
    for key in (ORPHAN, OTHER):
        node.start(key)
        node.fork(key)
    node.kill_shim(ORPHAN)
    simulation.relist()
    simulation.wait(600.0)
    assert (simulation.harm, len(simulation.killed)) == ([], 2)
    assert simulation.cleaned == [ORPHAN]
    assert len(node.members(node.bundles[OTHER])) == 2


@pytest.mark.fault("a container in or below another's cgroup")
def test_a_guest_in_its_cgroup_keeps_everybody_alive() -> None:
    simulation = a_guest_below(Simulation)
    assert (simulation.harm, simulation.killed, simulation.cleaned) == ([], [], [])


@pytest.mark.fault("the same name in another containerd")
@pytest.mark.parametrize("orphaned", [False, True])
def test_a_namesake_of_another_containerd_keeps_everybody_alive(orphaned: bool) -> None:
    simulation = a_namesake(Simulation, orphaned=orphaned)
    assert (simulation.harm, simulation.killed, simulation.cleaned) == ([], [], [])


@pytest.mark.fault("control: ownership by place alone")
def test_by_place_alone_others_are_ended() -> None:
    assert a_guest_below(ByPlaceAlone).harm
    assert a_namesake(ByPlaceAlone, orphaned=True).harm


def test_a_shim_that_its_pod_was_given_later_does_not_have_an_orphan() -> None:
    """What the histories call a loss rests on it: its processes ended, nobody lives any more."""
    node = Node()
    node.start(ORPHAN, "pod")
    node.kill_shim(ORPHAN)
    node.start(OTHER, "pod")
    orphan, other = node.bundles[ORPHAN], node.bundles[OTHER]
    assert (node.shim_of(orphan), node.may_have_shim(ORPHAN)) == (None, True)
    assert node.shim_of(other) is not None
    assert node.truth(ORPHAN) is Truth.ALIVE
    node.stop(ORPHAN)
    assert node.truth(ORPHAN) is Truth.DEAD
