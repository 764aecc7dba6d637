"""Random histories of a node: nothing alive is ever cleaned; without a second look something is.

`make soak` plays 100,000 of them; `python -m tests.safety.histories` any number, with its seeds.
"""

import sys
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.decisions import Clean, Verdict
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Outcome, Result
from reconciler.testing.node import Node
from reconciler.testing.parts import Truth
from reconciler.testing.sandboxes import SandboxNode
from reconciler.testing.simulator import Manners, Simulation
from tests.safety.histories import COUNT, Report
from tests.safety.machine import KEYS, POLICIES
from tests.safety.working import in_shards

pytestmark = pytest.mark.safety

Record = Callable[[str, object], None]


SEED = "1"
"""The same histories in each run of the tests; those of `make soak` are others each time."""


def played(count: int, record: Record, *options: str) -> int:
    """Play so many; give the steps after which everything was compared."""
    reports = in_shards(Report, "--count", str(count), *options)
    histories, steps = sum(one.histories for one in reports), sum(one.steps for one in reports)
    lost = [told for one in reports for told in one.lost]
    seeds = [number for one in reports for number in one.seeds]
    sys.stdout.write(f"{histories} histories, {steps} steps, seeds {seeds}\n")  # for -rP
    for name, value in (("histories", histories), ("steps", steps), ("losses", len(lost))):
        record(name, value)
    assert lost == [], lost[0]
    assert sum(one.killed for one in reports), "no orphan was ended in any of them"
    assert sum(one.debris for one in reports), "no debris was removed in any of them"
    assert sum(one.sandboxes for one in reports), "no sandbox was removed in any of them"
    assert histories >= count
    return steps


@pytest.mark.fault("I6", "I7", "shim killed, init alive", "wall clock jumps", "overflow")
@pytest.mark.fault("I16", "bundle being created slowly", "shared pod shim with a dead member")
@pytest.mark.timeout(400)
def test_nothing_alive_is_cleaned_whatever_happens(record_property: Record) -> None:
    assert played(COUNT, record_property, "--seed", SEED) > 10 * COUNT


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_nothing_alive_is_cleaned_in_a_hundred_thousand_histories(record_property: Record) -> None:
    assert played(100_000, record_property) > 1_000_000


# ------------------------------------------------------------------------------- the control


class WithoutSecondLook(Simulation):
    """One whose cleaner believes what it was told, so long as the object is the one that was meant.

    It may have become another's: a directory made after one was removed may get its number.
    """

    @override
    def _clean(self, request: Clean) -> Outcome:
        bundle = self.node.bundles.get(request.key)
        outcome = Outcome(request.key, request.identity, Result.SKIPPED)
        if bundle is None or bundle.identity != request.identity:
            return outcome
        if self.node.truth(request.key) is Truth.ALIVE:
            self.harm.append(f"removal of living {request.key}")
        self.node.tasks.discard(request.key)
        self.node.remove(request.key)
        return replace(outcome, result=Result.CLEANED)


EITHER = pytest.mark.parametrize("key", [KEYS[0], KEYS[0].sandbox], ids=["task", "sandbox"])


def just_before_it_goes(
    kind: type[Simulation], key: BundleKey, meanwhile: Callable[[SandboxNode], object]
) -> Simulation:
    """Something happens between the request to clean what is dead and forgotten and its removal."""
    node = SandboxNode()
    node.reuses_inodes = True
    simulation = kind(POLICIES, node, Manners(clean=40.0))
    node.start(key)
    node.crash(key)
    node.lose_records(key)
    node.mono += POLICIES.settle
    simulation.relist()
    simulation.wait(35.0)  # its grace of 30 seconds is over, a cleanup is under way on their way
    meanwhile(node)
    simulation.wait(60.0)
    return simulation


def made_again(key: BundleKey) -> Callable[[SandboxNode], object]:
    """Its id is created again, by the same number."""

    def make(node: SandboxNode) -> None:
        node.remove(key)
        node.start(key)

    return make


@EITHER
@pytest.mark.fault("I8", "id created again between look and action")
def test_a_new_one_of_the_same_number_is_seen_by_the_second_look(key: BundleKey) -> None:
    simulation = just_before_it_goes(Simulation, key, made_again(key))
    assert (simulation.harm, simulation.cleaned) == ([], [])
    assert key in simulation.node.bundles


@EITHER
@pytest.mark.fault("control: no second look, in histories")
def test_without_a_second_look_the_history_reports_a_loss(key: BundleKey) -> None:
    simulation = just_before_it_goes(WithoutSecondLook, key, made_again(key))
    assert simulation.harm == [f"removal of living {key}"]


@pytest.mark.parametrize("kind", [Simulation, WithoutSecondLook])
def test_a_member_that_comes_late_keeps_its_sandbox_by_the_second_look(
    kind: type[Simulation],
) -> None:
    """Its bundle is made in the other tree: nothing in the sandbox's own has changed by then."""
    pod = KEYS[0].sandbox
    simulation = just_before_it_goes(kind, pod, lambda node: node.create(KEYS[1], pod.id))
    harm = [f"removal of living {pod}"] if kind is WithoutSecondLook else []
    assert simulation.harm == harm
    assert (pod in simulation.node.bundles) is not bool(harm)


def test_what_is_dead_and_nobody_needs_goes_a_sandbox_after_its_pod() -> None:
    node = SandboxNode()
    simulation = Simulation(POLICIES, node)
    pod, member = KEYS[0].sandbox, KEYS[1]
    node.start(pod)
    node.start(member, pod.id)
    node.crash(pod)
    node.crash(member)
    simulation.relist()
    simulation.wait(600.0)
    assert (simulation.cleaned, simulation.verdicts()) == ([member], {pod: Verdict.STOPPED})
    node.lose_records(pod)
    simulation.wait(1300.0)
    assert (simulation.harm, simulation.cleaned) == ([], [member, pod])


@pytest.mark.fault("I6", "shared pod shim with a dead member")
def test_a_dead_sandbox_whose_shim_is_started_again_for_a_member_is_not_removed() -> None:
    """No event tells of it: what was dead is served again, and only the second look sees that."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    pod, member = KEYS[2], KEYS[0]
    node.start(pod)
    node.kill_shim(pod)
    node.kill_init(pod)
    simulation.relist()
    node.start(member, pod.id)
    simulation.wait(31.0)
    assert (simulation.harm, simulation.cleaned) == ([], [])
    assert simulation.verdicts()[pod] is Verdict.STOPPED


@pytest.mark.fault("I6", "shared pod shim with a dead member")
def test_a_dead_task_whose_name_a_living_pods_shim_bears_goes_when_that_has_ended() -> None:
    """It was started for an earlier task of that name, and does not tell that this is another."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    member, key = KEYS[0], KEYS[1]
    node.start(key, "pod")
    node.start(member, "pod")
    node.stop(key)
    node.delete(key)
    node.start(key)
    node.crash(key)
    simulation.relist()
    simulation.wait(600.0)
    assert simulation.verdicts() == {member: Verdict.RUNNING, key: Verdict.STOPPED}
    node.crash(member)
    simulation.wait(600.0)
    assert (simulation.harm, sorted(simulation.cleaned)) == ([], [member, key])


@pytest.mark.fault("I6", "shim killed, init alive")
def test_a_workload_of_which_only_its_mount_is_left_is_not_removed() -> None:
    """Its cgroup has a name of its own, and all files that would lead to its processes are lost."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    key = KEYS[0]
    node.create(key, cgroup="/burst")
    node.proceed(key)
    node.proceed(key)
    node.kill_shim(key)
    node.lose_runc_state(key)
    node.lose_file(key, ~Entries.ROOTFS)
    simulation.relist()
    simulation.wait(30 * 86400.0)
    assert simulation.harm == []
    assert simulation.cleaned == []
    assert node.truth(key) is Truth.ALIVE
    assert simulation.verdicts()[key] is Verdict.UNKNOWN


@pytest.mark.fault("I6", "shim killed, init alive")
@pytest.mark.parametrize("cgroup", ["/burst", None], ids=["elsewhere", "usual"])
def test_whoever_outlived_an_init_whose_cgroup_nothing_names_is_not_removed(
    cgroup: str | None,
) -> None:
    """That the init is dead is known; what it has forked may be in a cgroup of any name."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    key = KEYS[0]
    node.create(key, cgroup=cgroup)
    node.proceed(key)
    node.proceed(key)
    node.fork(key)
    node.kill_shim(key)
    node.lose_runc_state(key)
    node.kill_init(key, alone=True)
    node.lose_file(key, Entries.CONFIG)
    simulation.relist()
    simulation.wait(30 * 86400.0)
    assert (simulation.harm, simulation.cleaned) == ([], [])
    assert node.truth(key) is Truth.ALIVE
    expected = Verdict.ORPHANED if cgroup is None else Verdict.UNKNOWN
    assert simulation.verdicts()[key] is expected


@pytest.mark.parametrize(
    ("state", "config"),
    [(True, True), (True, False), (False, True)],
    ids=["both", "state", "config"],
)
def test_the_dead_whose_cgroup_is_still_named_are_removed_although_mounted(
    state: bool, config: bool
) -> None:
    """Ordinary leftovers: one file that names the cgroup is enough to see that nobody is there."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    key = KEYS[0]
    node.create(key, cgroup="/burst")
    node.proceed(key)
    node.proceed(key)
    node.crash(key)
    if not state:
        node.lose_runc_state(key)
    if not config:
        node.lose_file(key, Entries.CONFIG)
    assert node.bundles[key].mounts
    simulation.relist()
    simulation.wait(600.0)
    assert simulation.cleaned == [key]


@pytest.mark.fault("a cgroup made by another driver than config.json asks")
@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("/pods.slice:cri:a", Entries(0)),
        ("/pods.slice:cri:a", Entries.INIT_PID),
        ("/pods.slice:cri:a", Entries.CONFIG),
        ("/elsewhere", Entries(0)),
    ],
)
def test_a_workload_that_another_driver_put_elsewhere_is_not_removed(
    path: str, lost: Entries
) -> None:
    """Only config.json names a cgroup, and none is there; its init or a name of its own is left."""
    node = Node()
    simulation = Simulation(POLICIES, node)
    key = KEYS[0]
    node.create(key, cgroup=path, asked=f"/pods.slice/cri-{key.id}.scope")
    node.proceed(key)
    node.proceed(key)
    node.kill_shim(key)
    node.lose_runc_state(key)
    node.lose_file(key, lost)
    simulation.relist()
    simulation.wait(3600.0)
    assert (simulation.harm, simulation.cleaned) == ([], [])
    assert simulation.verdicts()[key] in {Verdict.ORPHANED, Verdict.UNKNOWN}
