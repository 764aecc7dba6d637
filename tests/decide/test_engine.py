"""The engine on a clock of its own: when something is removed, and everything that prevents it."""

from dataclasses import replace

import pytest

from reconciler.decide.decisions import (
    AskNode,
    BudgetKind,
    Clean,
    Died,
    FinishRemoval,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.decide.policy import Brakes, Match, Orphans, Policies, Policy, Rule
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Labels,
    Runtime,
    RuntimeState,
    ShimProcess,
    Sweep,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    Doubt,
    DoubtKind,
    Guard,
    GuardsChecked,
    Hidden,
    Hint,
    HintKind,
    Listed,
    Refusal,
    Remembered,
)
from reconciler.model.outcome import BlockReason, Outcome, Result
from tests.decide.world import (
    BOOTED,
    DOWN,
    ENFORCE,
    EPOCH,
    SILENT,
    SWEEP,
    UP,
    World,
    dead,
    key,
    newborn,
    orphaned,
    running,
    stopped,
)

DAY = 86400.0


def outcome(result: Result, ino: int = 1, name: str = "ns/a", **more: object) -> Outcome:
    return Outcome(key(name), Identity(1, ino, 1), result, **more)  # type: ignore[arg-type]


def leftover(**policy: object) -> World:
    """A world with one leftover at ns/a, just judged."""
    world = World(Policies(default=replace(ENFORCE, **policy)))  # type: ignore[arg-type]
    world.listed(a=1)
    world.look(dead())
    world.node()
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    return world


# ---------------------------------------------------------------------------- two looks, grace


def test_a_leftover_is_cleaned_after_the_grace_and_not_before():
    world = leftover()
    world.wait(9.9)
    assert world.cleans() == []
    assert world.phase() is Phase.WAITING
    world.wait(0.2)
    assert world.cleans() == ["ns/a"]
    assert world.phase() is Phase.CLEANING


def test_a_sign_of_life_during_the_grace_starts_it_anew():
    world = leftover()
    world.wait(9)
    world.look(running())
    world.look(dead())
    world.wait(9)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_the_threshold_counts_from_the_last_sign_of_life():
    world = leftover(threshold=7200.0)
    world.wait(3599)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_observing_never_asks_for_a_cleanup():
    world = leftover(enforce=False)
    world.wait(30 * DAY)
    assert world.phase() is Phase.DUE
    assert world.cleans() == []


def test_nothing_is_removed_before_the_guards_were_checked():
    world = World()
    world.tell(GuardsChecked((Refusal(Guard.PID_NAMESPACE, "foreign"),)))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(DAY)
    assert world.cleans() == []
    assert world.phase() is Phase.HELD
    world.tell(GuardsChecked())
    assert world.cleans() == ["ns/a"]


def test_another_object_of_the_same_name_starts_from_the_beginning():
    world = leftover()
    world.wait(9)
    world.look(dead(ino=2))
    world.node()
    world.wait(9)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_only_one_cleanup_of_a_bundle_is_under_way():
    world = leftover()
    world.wait(11)
    for _ in range(3):
        world.look(dead())
        world.node()
        world.tell(Hint(key()))
        world.listed(a=1)
        world.wait(100)
    assert world.cleans() == ["ns/a"]


def test_a_cleaned_bundle_is_forgotten_and_looked_for_once_more():
    world = leftover()
    world.wait(11)
    said = world.tell(outcome(Result.CLEANED))
    assert Vanished(key(), Verdict.LEFTOVER, cleaned=True) in said
    assert LookAt(key(), HintKind.CHANGED) in said
    assert world.engine.view(key(), BOOTED) is None


# ---------------------------------------------------------------------------- what lives


@pytest.mark.parametrize("look", [running(), stopped(), orphaned()])
def test_what_lives_is_never_cleaned_however_long_it_lives(look):
    world = World(Policies(default=replace(ENFORCE, max_age=1.0, max_size=1), node_max_size=1))
    world.listed(a=1)
    world.look(look)
    world.node(DOWN)
    for _ in range(30):
        world.wait(DAY)
        world.look(look)
        world.node(DOWN)
    assert world.cleans() == []


def test_unknown_never_becomes_leftover_by_waiting():
    world = World(Policies(default=replace(ENFORCE, max_age=1.0, max_size=1), node_max_size=1))
    world.listed(a=1)
    world.look(dead())
    world.node(SILENT)
    for _ in range(30 * 24):
        world.wait(3600)
        world.node(SILENT)
    assert world.verdicts() == ["unknown"]
    assert world.cleans() == []


def test_an_unknown_runtime_is_only_observed():
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), runtime=Runtime(RuntimeState.ALIEN, "containerd-shim-kata-v2")))
    world.node()
    world.wait(30 * DAY)
    assert world.verdicts() == ["unknown"]
    assert world.cleans() == []


def test_creation_is_left_alone_until_it_settled():
    world = World(Policies(default=replace(ENFORCE, grace=1.0), settle=120.0))
    world.look(newborn())
    world.node()
    world.wait(119)
    assert world.verdicts()[-1] == "starting"
    assert world.cleans() == []
    world.wait(3)
    world.node()
    assert world.cleans() == ["ns/a"]


def test_an_answer_older_than_the_bundle_says_nothing_about_it():
    world = World()
    world.node(DOWN)
    world.wait(1)
    world.look(newborn())
    assert world.verdicts() == ["unknown"]
    assert any(isinstance(d, AskNode) for d in world.said)


def test_a_running_helper_makes_it_busy_until_a_sweep_no_longer_sees_it():
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(sweep=Sweep(answered=True, helpers=frozenset({key()})))
    world.wait(60)
    assert world.verdicts() == ["unknown", "busy"]
    world.node()
    world.wait(11)
    assert world.cleans() == ["ns/a"]


def test_a_living_process_in_a_cgroup_of_that_name_contradicts_death():
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(sweep=Sweep(answered=True, cgroup_names=frozenset({b"a"})))
    assert world.view().judgement.verdict is Verdict.ORPHANED


def test_a_shim_in_the_process_table_contradicts_a_dead_socket():
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(sweep=Sweep(answered=True, shims=(ShimProcess(key(), 7),)))
    assert world.view().judgement.verdict is Verdict.STOPPED


def test_containerd_falling_silent_takes_the_verdict_back():
    world = leftover()
    world.node(SILENT)
    world.wait(100)
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    assert world.cleans() == []
    world.node()
    world.wait(11)
    assert world.cleans() == ["ns/a"]


# ---------------------------------------------------------------------------- blocked, skipped


def test_blocked_is_tried_again_with_growing_pauses():
    world = leftover()
    world.wait(11)
    world.tell(outcome(Result.BLOCKED, reason=BlockReason.BUSY))
    assert (world.phase(), world.view().cause) == (Phase.BLOCKED, "busy")
    world.wait(4.9)
    assert len(world.cleans()) == 1
    world.wait(0.2)
    assert len(world.cleans()) == 2
    world.tell(outcome(Result.BLOCKED, reason=BlockReason.BUSY))
    world.wait(9.9)
    assert len(world.cleans()) == 2
    world.wait(0.2)
    assert len(world.cleans()) == 3


@pytest.mark.parametrize("kind", [HintKind.HOLDER_EXIT, HintKind.MOUNT])
def test_blocked_is_tried_at_once_when_the_obstacle_went_away(kind):
    world = leftover()
    world.wait(11)
    world.tell(outcome(Result.BLOCKED, reason=BlockReason.BUSY))
    assert LookAt(key(), kind) in world.tell(Hint(key(), kind))
    world.look(dead())
    assert len(world.cleans()) == 2


def test_our_own_half_done_work_does_not_make_it_look_young():
    world = leftover(threshold=3000.0)
    world.wait(11)
    world.tell(outcome(Result.BLOCKED, reason=BlockReason.IO))
    world.look(dead(age=-world.now))  # its newest mtime is now
    world.wait(6)
    assert len(world.cleans()) == 2


def test_a_second_look_that_disagrees_restarts_the_grace():
    world = leftover()
    world.wait(11)
    world.tell(outcome(Result.SKIPPED, look=dead()))
    world.wait(9.9)
    assert len(world.cleans()) == 1
    world.wait(0.2)
    assert len(world.cleans()) == 2


def test_disagreement_with_no_grace_does_not_spin():
    world = leftover(grace=0.0)
    for attempt in range(5):
        assert len(world.cleans()) == attempt + 1
        world.tell(outcome(Result.SKIPPED, look=dead()))
        assert len(world.cleans()) == attempt + 1
        world.wait(300)


def test_looks_while_hands_are_on_it_change_nothing():
    world = leftover()
    world.wait(11)
    world.look(running())
    world.look(None)
    world.tell(Listed(answered=True, present=True))
    assert world.phase() is Phase.CLEANING


# ---------------------------------------------------------------------------- listings


def test_a_listing_forgets_what_is_gone_and_asks_for_looks_at_the_rest():
    world = World()
    world.listed(a=1, b=2)
    world.look(running())
    said = world.listed(b=2)
    assert Vanished(key(), Verdict.RUNNING, cleaned=False) in said
    assert [d for d in said if isinstance(d, LookAt)] == [LookAt(key("ns/b"), HintKind.CHANGED)]


def test_a_listing_that_failed_changes_nothing():
    world = leftover()
    assert world.tell(Listed(answered=False, present=False)) == []
    assert world.view().judgement.verdict is Verdict.LEFTOVER


def test_a_listing_of_one_namespace_leaves_the_others_alone():
    world = leftover()
    world.tell(Listed(answered=True, present=True, namespace=b"other"))
    assert world.view().judgement.verdict is Verdict.LEFTOVER


def test_doubt_asks_for_a_listing():
    world = World()
    assert world.tell(Doubt(DoubtKind.OVERFLOW)) == [Relist(DoubtKind.OVERFLOW)]


def test_an_interrupted_removal_of_ours_is_finished_but_not_while_observing():
    hidden = Hidden(BundleKey(b"ns", b".reconciler-1-ab"), Identity(1, 9, 1), 0.0, ours=True)
    alien = Hidden(BundleKey(b"ns", b".a"), Identity(1, 8, 1), 0.0, ours=False)
    listed = Listed(answered=True, present=True, hidden=(hidden, alien))
    assert FinishRemoval(hidden.key, hidden.identity) in World().tell(listed)
    observing = World(Policies(default=replace(ENFORCE, enforce=False)))
    assert not [d for d in observing.tell(listed) if isinstance(d, FinishRemoval)]
    assert [h.key for h in observing.engine.hidden] == [alien.key, hidden.key]


# ---------------------------------------------------------------------------- clocks


def test_a_wall_clock_that_jumps_ahead_makes_nothing_older():
    world = leftover(threshold=DAY)
    world.wall_offset = 365 * DAY
    world.look(dead())
    world.wait(60)
    assert world.cleans() == []


def test_a_wall_clock_that_was_wrong_at_boot_makes_nothing_older_than_the_boot():
    world = World(Policies(default=replace(ENFORCE, threshold=BOOTED + 1000.0)))
    world.listed(a=1)
    world.look(dead(age=EPOCH))
    world.node()
    world.wait(900)
    assert world.cleans() == []


def test_a_file_from_the_future_is_young():
    world = World(Policies(default=replace(ENFORCE, threshold=60.0)))
    world.listed(a=1)
    world.look(dead(age=-10 * DAY))
    world.node()
    world.wait(59)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]


def test_a_file_from_the_future_does_not_stay_young_with_every_look():
    """Found by the node machine: a clock set back a day kept a dead creation `starting`."""
    world = World()
    world.listed(a=1)
    for _ in range(20):
        world.look(replace(newborn(), newest_mtime=EPOCH + DAY))
        world.node()
        world.wait(20)
    assert world.cleans() == ["ns/a"]


# ---------------------------------------------------------------------------- budgets


def test_an_age_budget_makes_a_leftover_due_at_once():
    world = World(Policies(default=replace(ENFORCE, grace=DAY, max_age=3000.0)))
    world.listed(a=1)
    world.look(dead(age=3600.0))
    world.node()
    assert world.cleans() == ["ns/a"]


def test_a_size_budget_takes_the_oldest_until_the_rest_fits():
    policy = replace(ENFORCE, grace=DAY, max_size=10_000)
    world = World(Policies(default=policy, node_max_size=None))
    world.listed(a=1, b=2, c=3, d=4)
    ages = {"a": 100.0, "b": 400.0, "c": 300.0, "d": 200.0}
    for ino, (name, age) in enumerate(ages.items(), 1):
        world.look(dead(ino, age=age, size=4096), f"ns/{name}")
    world.node()
    world.wait(1)
    assert world.cleans() == ["ns/b", "ns/c"]


def test_a_node_budget_counts_all_namespaces_together():
    world = World(Policies(default=replace(ENFORCE, grace=DAY), node_max_size=5000))
    for ino, name in enumerate(["one/a", "two/b"], 1):
        world.look(dead(ino, age=100.0 * ino, size=4096), name)
    world.wait(1)
    world.node()
    world.wait(1)
    assert world.cleans() == ["two/b"]


def test_a_running_task_over_a_budget_is_reported_once_and_not_touched():
    world = World(Policies(default=replace(ENFORCE, max_age=7200.0, max_size=100)))
    world.listed(a=1)
    world.look(running())
    world.node()
    world.wait(DAY)
    world.look(running())
    said = [d for d in world.said if isinstance(d, OverBudget)]
    assert said == [OverBudget(key(), BudgetKind.SIZE), OverBudget(key(), BudgetKind.AGE)]
    assert world.cleans() == []


# ---------------------------------------------------------------------------- policies


PROTECT = Rule(
    Match(namespace="ns", pod_namespace="kube-*"), replace(ENFORCE, name="critical", protect=True)
)


@pytest.mark.parametrize(
    ("look", "phase"),
    [
        (dead(pod_ns="kube-system"), Phase.PROTECTED),
        (dead(pod_ns="shop"), Phase.WAITING),
        (replace(dead(), labels=Labels()), Phase.PROTECTED),
    ],
    ids=["matches", "does not match", "config.json missing"],
)
def test_a_protecting_rule_fails_safe(look, phase):
    world = World(Policies(default=ENFORCE, rules=(PROTECT,)))
    world.listed(a=1)
    world.look(look)
    world.node()
    assert world.phase() is phase


def test_labels_are_inherited_from_the_sandbox_and_remembered():
    world = World(Policies(default=ENFORCE, rules=(PROTECT,)))
    world.listed(pod=1, a=2)
    world.look(dead(1, pod_ns="shop"), "ns/pod")
    world.look(replace(dead(2), labels=Labels(sandbox="pod")), "ns/a")
    world.node()
    assert world.phase() is Phase.WAITING
    world.look(replace(dead(1), labels=Labels()), "ns/pod")
    assert world.phase("ns/pod") is Phase.WAITING


def test_other_policies_take_hold_at_once():
    world = leftover(grace=DAY)
    stamp = world.stamp
    world.said += world.engine.configure(stamp, Policies(default=replace(ENFORCE, grace=0.0)))
    assert world.cleans() == ["ns/a"]
    world = leftover(grace=0.0, enforce=False)
    assert world.phase() is Phase.DUE
    rule = Rule(Match(), Policy(name="all", protect=True))
    world.said += world.engine.configure(world.stamp, Policies(rules=(rule,)))
    assert world.phase() is Phase.PROTECTED


# ---------------------------------------------------------------------------- brakes


def many(world: World, count: int, look=dead) -> None:
    world.listed(**{f"b{n:04}": n + 1 for n in range(count)})
    for n in range(count):
        world.look(look(n + 1), f"ns/b{n:04}")
    world.node()


def test_no_more_cleanups_are_under_way_than_allowed():
    world = World(Policies(default=replace(ENFORCE, grace=0.0), parallel=3))
    many(world, 10)
    assert len(world.cleans()) == 3
    world.tell(outcome(Result.CLEANED, 1, "ns/b0000"))
    assert len(world.cleans()) == 4


def test_no_more_cleanups_begin_in_a_minute_than_allowed():
    policies = Policies(
        default=replace(ENFORCE, grace=0.0), parallel=1000, brakes=Brakes(max_per_minute=5)
    )
    world = World(policies)
    many(world, 12)
    assert len(world.cleans()) == 5
    assert world.phase("ns/b0011") is Phase.HELD
    world.wait(59)
    assert len(world.cleans()) == 5
    world.wait(2)
    assert len(world.cleans()) == 10
    world.wait(60)
    assert len(world.cleans()) == 12


def test_sudden_mass_death_is_held_and_believed_only_if_it_lasts():
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for n in range(20):
        world.look(dead(n + 1), f"ns/b{n:04}")
    world.wait(599)
    assert world.cleans() == []
    assert world.phase("ns/b0000") is Phase.HELD
    world.wait(10)
    assert len(world.cleans()) == 8


def test_mass_death_is_not_believed_while_containerd_is_silent():
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for n in range(20):
        world.look(dead(n + 1), f"ns/b{n:04}")
    world.node(SILENT)
    world.wait(DAY)
    assert world.cleans() == []


def test_mass_death_that_was_a_mistake_is_forgotten():
    world = World(Policies(default=replace(ENFORCE, grace=1.0), brakes=Brakes(None, hold=600.0)))
    many(world, 20, running)
    for look in (dead, running):
        for n in range(20):
            world.look(look(n + 1), f"ns/b{n:04}")
    world.wait(700)
    assert world.cleans() == []
    world.look(dead(1), "ns/b0000")
    world.wait(2)
    assert world.cleans() == ["ns/b0000"]


def test_a_pile_found_dead_is_no_mass_death():
    world = World(Policies(default=replace(ENFORCE, grace=1.0), parallel=100))
    many(world, 50)
    world.wait(2)
    assert len(world.cleans()) == 50


# ---------------------------------------------------------------------------- deaths


def deaths(world: World) -> list[str]:
    return [d.cause for d in world.said if isinstance(d, Died)]


def test_an_orderly_exit_is_no_abnormal_termination():
    world = World()
    world.listed(a=1)
    for look in (running(), stopped(), dead(), None):
        world.look(look)
        world.wait(0.1)
    world.wait(60)
    assert deaths(world) == []


@pytest.mark.parametrize(
    ("looks", "causes"),
    [
        ([running(), dead()], ["both"]),
        ([running(), orphaned()], ["shim"]),
        ([running(), orphaned(), None], ["shim"]),
        ([stopped(), dead()], ["shim"]),
        ([dead()], []),
    ],
    ids=["both", "shim", "shim, then swept by containerd", "shim of a stopped task", "found dead"],
)
def test_a_death_is_counted_once_with_its_cause(looks, causes):
    world = World()
    world.listed(a=1)
    world.node()
    for look in looks:
        world.look(look)
    world.wait(100)
    world.node()
    world.wait(100)
    assert deaths(world) == causes


def test_the_two_deaths_of_a_bundle_are_counted_one_after_the_other():
    world = World()
    world.listed(a=1)
    world.node()
    world.look(running())
    world.look(orphaned())
    world.wait(8)
    world.look(dead())
    world.node()
    world.wait(8)
    assert deaths(world) == ["shim", "init"]


def test_a_shim_that_only_an_older_sweep_shows_did_not_outlive_its_init():
    world = World()
    world.listed(a=1)
    old = Sweep(answered=True, shims=(ShimProcess(key(), 7),))
    world.node(sweep=old)
    world.look(running())
    world.look(dead())
    world.node(sweep=old)
    world.wait(1)
    world.node()
    world.wait(60)
    assert deaths(world) == ["both"]


def test_a_cleanup_counts_the_deaths_it_ends():
    world = World(Policies(default=replace(ENFORCE, grace=0.0)))
    world.listed(a=1)
    world.node()
    world.look(running())
    world.look(dead())
    assert deaths(world) == ["both"]


# ---------------------------------------------------------------------------- asking and waiting


def test_the_witnesses_are_asked_one_question_at_a_time_and_not_too_often():
    world = World()
    world.listed(a=1)
    assert sum(isinstance(d, AskNode) for d in world.said) == 1
    for _ in range(50):
        world.look(dead())
    assert sum(isinstance(d, AskNode) for d in world.said) == 1
    world.node()
    for _ in range(50):
        world.now += 0.001
        world.look(dead())
    assert sum(isinstance(d, AskNode) for d in world.said) == 1
    world.wait(1)
    assert sum(isinstance(d, AskNode) for d in world.said) == 2


def test_a_living_node_asks_for_nothing_between_listings():
    world = World()
    world.listed(a=1, b=2)
    world.look(running(1))
    world.look(stopped(2), "ns/b")
    world.node()
    assert world.engine.deadline is None or world.engine.deadline > BOOTED + 3600
    assert world.wait(3600) == []


def test_a_silent_node_is_asked_again_without_new_looks():
    world = World()
    world.listed(a=1)
    world.look(dead())
    world.node(SILENT)
    said = world.wait(10.5)
    assert any(isinstance(d, AskNode) for d in said)
    assert not any(isinstance(d, LookAt) for d in said)


def test_one_shot_commands_end_when_only_time_could_help():
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
    world.tell(outcome(Result.CLEANED))
    world.look(None)
    assert world.engine.is_settled(world.stamp.mono)
    assert world.cleans() == ["ns/a"]


def test_a_claimed_leftover_says_so():
    world = World(Policies(default=replace(ENFORCE, grace=0.0)))
    world.listed(a=1)
    world.look(dead())
    world.node(Containerd(ContainerdState.UP, frozenset({key()})))
    assert [d.claimed for d in world.said if isinstance(d, Clean)] == [True]


def test_evidence_without_a_cgroup_name_needs_the_sweep():
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), cgroup=CgroupState.UNNAMED, created=Answer.YES))
    world.node(UP, Sweep(answered=False))
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    world.node(UP, SWEEP)
    assert world.view().judgement.verdict is Verdict.LEFTOVER


# ---------------------------------------------------------------------------- memories


def test_a_memory_of_life_delays_and_a_recent_one_keeps_the_grace_running():
    world = World(Policies(default=replace(ENFORCE, threshold=1800.0)))
    world.tell(Remembered(key(), Identity(1, 1, 1), last_alive=BOOTED - 600.0))
    world.listed(a=1)
    world.look(dead(age=7200.0))
    world.node()
    world.wait(1199)
    assert world.cleans() == []
    world.wait(2)
    assert world.cleans() == ["ns/a"]
    world = World()
    world.tell(Remembered(key(), Identity(1, 1, 1), leftover_since=BOOTED - 8.0))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(2.1)
    assert world.cleans() == ["ns/a"]


def test_a_memory_of_another_object_is_worth_nothing():
    world = World()
    world.tell(Remembered(key(), Identity(1, 99, 1), leftover_since=BOOTED - 8.0))
    world.listed(a=1)
    world.look(dead())
    world.node()
    world.wait(9)
    assert world.cleans() == []


# ---------------------------------------------------------------------------- orphans


def orphan_world(**policy: object) -> World:
    changes = {"orphans": Orphans.KILL, **policy}
    world = World(Policies(default=replace(ENFORCE, **changes)))  # type: ignore[arg-type]
    world.listed(a=1)
    world.look(orphaned())
    world.node()
    return world


def kills(world: World) -> list[bool]:
    return [d.kill for d in world.said if isinstance(d, Clean)]


def test_an_orphan_is_ended_only_where_the_operator_said_so_and_after_the_grace():
    world = orphan_world()
    world.wait(9.9)
    assert kills(world) == []
    world.wait(0.2)
    assert kills(world) == [True]
    for harmless in (
        {"orphans": Orphans.REPORT},
        {"enforce": False},
        {"protect": True},
        {"threshold": 2 * DAY, "max_age": None},
    ):
        world = orphan_world(**harmless)
        world.wait(DAY)
        assert kills(world) == []


def test_what_is_left_of_an_ended_orphan_waits_a_grace_of_its_own():
    world = orphan_world()
    world.wait(11)
    world.tell(outcome(Result.KILLED))
    world.look(dead())
    world.node()
    world.wait(9)
    assert kills(world) == [True]
    world.wait(2)
    assert kills(world) == [True, False]


def test_a_budget_never_ends_a_workload():
    world = orphan_world(grace=DAY, max_size=1, max_age=1.0)
    world.wait(100)
    assert kills(world) == []
