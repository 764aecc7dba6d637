"""The engine on a clock of its own: what lives is left alone, and one thing is done at a time."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import (
    AskNode,
    Clean,
    FinishRemoval,
    LookAt,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Init,
    InitState,
    Look,
    Mount,
    ProcessScan,
    Runtime,
    RuntimeState,
    ShimProcess,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Hidden,
    Hint,
    HintKind,
    Listed,
    Refusal,
    Remembered,
    Resync,
    ResyncKind,
)
from reconciler.model.outcome import Result
from reconciler.model.policy import Policies
from tests.decide.world import (
    BOOTED,
    DOWN,
    ENFORCE,
    SILENT,
    SWEEP,
    UP,
    World,
    dead,
    key,
    leftover,
    newborn,
    orphaned,
    outcome,
    running,
    stopped,
)

DAY = 86400.0
GREEDY = replace(ENFORCE, max_age=1.0, max_size=1)
"""Every budget says that everything is due at once."""


# ---------------------------------------------------------------------------- two looks, grace


def test_a_leftover_is_cleaned_after_the_grace_and_not_before() -> None:
    world = leftover()
    world.wait(9.9)
    assert world.cleans() == []
    assert world.phase() is Phase.WAITING
    world.wait(0.2)
    assert world.cleans() == ["ns/a"]
    assert world.phase() is Phase.CLEANING


def test_a_sign_of_life_during_the_grace_starts_it_anew() -> None:
    world = leftover()
    world.wait(9)
    world.look(running())
    world.look(dead())
    world.wait(9)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_the_threshold_counts_from_the_last_sign_of_life() -> None:
    world = leftover(replace(ENFORCE, threshold=7200.0))
    world.wait(3599)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_observing_never_asks_for_a_cleanup() -> None:
    world = leftover(replace(ENFORCE, enforce=False))
    world.wait(30 * DAY)
    assert world.phase() is Phase.DUE
    assert world.cleans() == []


def test_nothing_is_removed_before_the_guards_were_checked() -> None:
    world = World()
    world.observe(GuardsChecked((Refusal(Guard.KERNEL, "no openat2"),)))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(DAY)
    assert world.cleans() == []
    assert world.phase() is Phase.HELD
    world.observe(GuardsChecked())
    assert world.cleans() == ["ns/a"]


def test_another_object_of_the_same_name_starts_from_the_beginning() -> None:
    world = leftover()
    world.wait(9)
    world.look(dead(ino=2))
    world.node()
    world.wait(9)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_only_one_cleanup_of_a_bundle_is_under_way() -> None:
    world = leftover()
    world.wait(11)
    for _ in range(3):
        world.look(dead())
        world.node()
        world.observe(Hint(key()))
        world.listed(a=1)
        world.wait(100)
    assert world.cleans() == ["ns/a"]


def test_a_cleaned_bundle_is_forgotten_and_looked_for_once_more() -> None:
    world = leftover()
    world.wait(11)
    said = world.observe(outcome(Result.CLEANED))
    assert Vanished(key(), Verdict.LEFTOVER, cleaned=True) in said
    assert LookAt(key(), HintKind.CHANGED) in said
    assert world.engine.view(key(), BOOTED) is None


# ---------------------------------------------------------------------------- what lives


@pytest.mark.parametrize("look", [running(), stopped(), orphaned()])
def test_what_lives_is_never_cleaned_however_long_it_lives(look: Look) -> None:
    world = World(Policies(GREEDY, node_max_size=1, recheck=300.0))
    world.listed(a=1)
    world.look(look)
    world.node(DOWN)
    for _ in range(30):
        world.wait(DAY)
        world.look(look)
        world.node(DOWN)
    assert world.cleans() == []


@pytest.mark.fault("I7")
def test_unknown_never_becomes_leftover_by_waiting() -> None:
    world = World(Policies(GREEDY, node_max_size=1, recheck=300.0))
    world.listed(a=1)
    world.look(dead())
    world.node(SILENT)
    for _ in range(30 * 24):
        world.wait(3600)
        world.node(SILENT)
    assert world.verdicts() == ["unknown"]
    assert world.cleans() == []


def test_an_unknown_runtime_is_only_observed() -> None:
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), runtime=Runtime(RuntimeState.ALIEN, "containerd-shim-kata-v2")))
    world.node()
    world.wait(30 * DAY)
    assert world.verdicts() == ["unknown"]
    assert world.cleans() == []
    assert world.engine.summary(world.stamp.mono).aliens == 1
    assert "shim dead" in next(iter(world.engine.views(world.stamp.mono))).judgement.reason


def test_creation_is_left_alone_until_it_settled() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=1.0), settle=120.0))
    world.look(newborn())
    world.node()
    world.wait(119)
    assert world.verdicts()[-1] == "starting"
    assert world.cleans() == []
    world.wait(3)
    world.node()
    assert world.cleans() == ["ns/a"]


def test_an_answer_older_than_the_bundle_says_nothing_about_it() -> None:
    world = World()
    world.node(DOWN)
    world.wait(1)
    world.look(newborn())
    assert world.verdicts() == ["unknown"]
    assert any(isinstance(d, AskNode) for d in world.said)


def test_a_running_helper_makes_it_busy_until_a_sweep_no_longer_sees_it() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(scan=ProcessScan(answered=True, helpers=frozenset({key()})))
    world.wait(60)
    assert world.verdicts() == ["unknown", "in-transition"]
    world.node()
    world.wait(11)
    assert world.cleans() == ["ns/a"]


def test_a_living_process_in_a_cgroup_of_that_name_contradicts_death() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(scan=ProcessScan(answered=True, cgroup_paths=frozenset({"/elsewhere/a"})))
    assert world.view().judgement.verdict is Verdict.ORPHANED


def test_a_shim_in_the_process_table_contradicts_a_dead_socket() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(scan=ProcessScan(answered=True, shims=(ShimProcess(key(), 7),)))
    assert world.view().judgement.verdict is Verdict.STOPPED


def test_containerd_falling_silent_takes_the_verdict_back() -> None:
    world = leftover()
    world.node(SILENT)
    world.wait(100)
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    assert world.cleans() == []
    world.node()
    world.wait(11)
    assert world.cleans() == ["ns/a"]


# ---------------------------------------------------------------------------- listings


def test_a_listing_forgets_what_is_gone_and_asks_for_looks_at_the_rest() -> None:
    world = World()
    world.listed(a=1, b=2)
    world.look(running())
    said = world.listed(b=2)
    assert Vanished(key(), Verdict.RUNNING, cleaned=False) in said
    assert [d for d in said if isinstance(d, LookAt)] == [LookAt(key("ns/b"), HintKind.CHANGED)]


def test_a_listing_that_failed_changes_nothing() -> None:
    world = leftover()
    assert world.observe(Listed(answered=False, present=False)) == []
    assert world.view().judgement.verdict is Verdict.LEFTOVER


def test_a_listing_of_one_namespace_leaves_the_others_alone() -> None:
    world = leftover()
    world.observe(Listed(answered=True, present=True, namespace="other"))
    assert world.view().judgement.verdict is Verdict.LEFTOVER


def test_doubt_asks_for_a_listing() -> None:
    world = World()
    assert world.observe(Resync(ResyncKind.OVERFLOW)) == [Relist(ResyncKind.OVERFLOW)]


def test_an_interrupted_removal_of_ours_is_finished_but_not_while_observing() -> None:
    hidden = Hidden(BundleKey("ns", ".reconciler-1-ab"), Identity(1, 9, 1), 0.0, ours=True)
    alien = Hidden(BundleKey("ns", ".a"), Identity(1, 8, 1), 0.0, ours=False)
    listed = Listed(answered=True, present=True, hidden=(hidden, alien))
    assert FinishRemoval(hidden.key, hidden.identity) in World().observe(listed)
    observing = World(Policies(default=replace(ENFORCE, enforce=False)))
    assert not [d for d in observing.observe(listed) if isinstance(d, FinishRemoval)]
    assert [h.key for h in observing.engine.hidden] == [alien.key, hidden.key]


# ---------------------------------------------------------------------------- asking and waiting


def test_one_shot_commands_end_when_only_time_could_help() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=5.0, threshold=DAY)))
    world.listed(a=1, b=2)
    assert not world.engine.is_settled(world.stamp.mono)
    world.look(dead(1, age=2 * DAY))
    world.look(dead(2, age=3600.0), "ns/b")
    assert not world.engine.is_settled(world.stamp.mono)
    world.node()
    assert not world.engine.is_settled(world.stamp.mono)
    world.wait(6)
    assert not world.engine.is_settled(world.stamp.mono)
    world.observe(outcome(Result.CLEANED))
    world.look(None)
    assert world.engine.is_settled(world.stamp.mono)
    assert world.cleans() == ["ns/a"]


def test_a_claimed_leftover_says_so() -> None:
    world = World(Policies(default=replace(ENFORCE, grace=0.0)))
    world.listed(a=1)
    world.look(dead())
    world.node(Containerd(ContainerdState.UP, frozenset({key()})))
    assert [d.claimed for d in world.said if isinstance(d, Clean)] == [True]


def test_evidence_without_a_cgroup_name_needs_the_sweep() -> None:
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), cgroup=CgroupState.UNNAMED, created=Answer.YES))
    world.node(UP, ProcessScan(answered=False))
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    world.node(UP, SWEEP)
    assert world.view().judgement.verdict is Verdict.LEFTOVER


@pytest.mark.fault("I5", "I6")
def test_what_is_mounted_and_has_nobody_named_may_be_in_use() -> None:
    """A container in a cgroup of any name, and all files lost that would lead to it.

    An init that is known to be dead does not tell that it was the last: what it has forked may live
    on in the pid namespace of the host or of its pod.
    """
    mounts = (Mount("rootfs", 7, "overlay"),)
    for init in (Init(InitState.ABSENT), dead().init):
        nameless = replace(dead(), cgroup=CgroupState.UNNAMED, init=init)
        assert judged(nameless) is Verdict.LEFTOVER
        assert judged(replace(nameless, mounts=mounts)) is Verdict.UNKNOWN
        for named in (CgroupState.GONE, CgroupState.EMPTY):
            assert judged(replace(nameless, mounts=mounts, cgroup=named)) is Verdict.LEFTOVER


def judged(look: Look) -> Verdict:
    world = World()
    world.listed(a=1)
    world.look(replace(look, created=Answer.YES))
    world.node(UP, SWEEP)
    return world.view().judgement.verdict


# ---------------------------------------------------------------------------- memories


def test_a_memory_of_life_delays_and_a_recent_one_keeps_the_grace_running() -> None:
    world = World(Policies(default=replace(ENFORCE, threshold=1800.0)))
    world.observe(Remembered(key(), Identity(1, 1, 1), last_alive=BOOTED - 600.0))
    world.listed(a=1)
    world.look(dead(age=7200.0))
    world.node()
    world.wait(1199)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]
    world = World()
    world.observe(Remembered(key(), Identity(1, 1, 1), leftover_since=BOOTED - 8.0))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(2.1)
    assert world.cleans() == ["ns/a"]


def test_a_memory_of_another_object_is_worth_nothing() -> None:
    world = World()
    world.observe(Remembered(key(), Identity(1, 99, 1), leftover_since=BOOTED - 8.0))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(9)
    assert world.cleans() == []
