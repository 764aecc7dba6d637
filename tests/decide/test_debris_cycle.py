"""Debris goes the ways of a bundle: two inventories, grace, due, blocked, cleaned, spared."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from reconciler.decide.cleanups import GUARDS, RATE
from reconciler.decide.debris_cycle import BATCH
from reconciler.decide.debris_pace import PAUSE
from reconciler.decide.debris_verdicts import ORDER
from reconciler.model.debris import DebrisCleaned, DebrisKind, DebrisResult
from reconciler.model.decisions import CleanDebris, Phase
from reconciler.model.evidence import Answer
from reconciler.model.observations import Guard, GuardsChecked, Refusal
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import (
    DebrisAction,
    DebrisPolicy,
    Match,
    Policies,
    Rule,
)
from tests.decide.debris_world import GRACE, DebrisWorld, cleaning, place, places
from tests.decide.world import ENFORCE, EPOCH, SILENT, UP, key

pytestmark = pytest.mark.safety


def waiting(policies: Policies | None = None, **fields: object) -> DebrisWorld:
    """A world in which one cgroup was found debris a moment ago."""
    world = DebrisWorld(cleaning() if policies is None else policies)
    world.there = [place(**fields)]  # type: ignore[arg-type]  # as place() takes them
    world.begin()
    return world


def test_debris_is_removed_after_its_grace_and_a_second_inventory_and_no_sooner() -> None:
    world = waiting()
    assert world.one().phase is Phase.WAITING
    assert world.one().due_in_seconds == pytest.approx(GRACE, abs=0.1)
    world.pass_time(GRACE - 0.1)
    assert not world.batches
    assert len(world.taken) == 1
    world.pass_time(0.2)
    assert world.asked_for() == ["/ns/x"], "the grace's end asks for another inventory"
    assert world.taken[1] - world.taken[0] >= GRACE
    assert not world.shown(), "it is gone, and an inventory has shown that"
    assert len(world.taken) == 3


def test_idle_stays_idle() -> None:
    world = DebrisWorld()
    world.begin()
    world.pass_time(10 * PAUSE)
    assert len(world.taken) == 1
    for _ in range(20):
        world.begin()
        world.pass_time(PAUSE / 10)
    assert len(world.taken) <= 4


@pytest.mark.parametrize(
    "other",
    [
        {"lives": Answer.YES},
        {"owned": Answer.YES},
        {"lives": Answer.NONE},
        {"owned": Answer.NONE},
        {"ino": 99},
        {"since": EPOCH + 5.0},
    ],
    ids=["lives", "owned", "no answer who lives", "no answer who owns", "another", "young"],
)
def test_an_inventory_that_says_otherwise_begins_the_wait_anew(other: dict[str, object]) -> None:
    world = waiting()
    world.pass_time(GRACE / 2)
    world.there = [place(**other)]  # type: ignore[arg-type]  # as place() takes them
    world.inventory()
    world.there = [place()]
    world.inventory()
    begun = world.taken[-1]
    world.pass_time(GRACE / 2 + 0.1)
    assert not world.batches
    world.pass_time(GRACE)
    assert world.batches[0][0] >= begun + GRACE


def test_a_kind_that_is_not_looked_for_is_never_due_by_that() -> None:
    world = waiting()
    world.looked = tuple(kind for kind in DebrisKind if kind is not DebrisKind.CGROUP)
    world.pass_time(20 * GRACE)
    assert not world.batches
    assert len(world.taken) <= 2, "asked again, and not at once"
    world.looked = tuple(DebrisKind)
    world.inventory()
    assert world.asked_for() == ["/ns/x"]


def test_what_is_unknown_stays_however_long_it_lasts() -> None:
    world = waiting(owned=Answer.NONE)
    for _ in range(50):
        world.begin()
        world.pass_time(PAUSE)
    assert not world.batches
    assert world.one().phase is Phase.NONE


def test_what_must_be_older_waits_until_it_is() -> None:
    policies = replace(
        cleaning(), debris=(DebrisPolicy(DebrisKind.CGROUP, DebrisAction.CLEAN, 50.0),)
    )
    world = waiting(policies, since=EPOCH)
    while world.now < 49.0:
        world.inventory()
        world.pass_time(5.0)
    assert not world.batches
    world.pass_time(5.0)
    world.inventory()
    world.pass_time(GRACE + 1.0)
    assert world.asked_for() == ["/ns/x"]


@pytest.mark.parametrize("kind", DebrisKind)
def test_a_kind_is_removed_only_where_that_is_said(kind: DebrisKind) -> None:
    for action in DebrisAction:
        policies = replace(cleaning(), debris=(DebrisPolicy(kind, action),))
        world = DebrisWorld(policies)
        world.there = [place(one, f"/ns/{one.value}") for one in DebrisKind]
        world.begin()
        world.pass_time(2 * GRACE)
        goes = action is DebrisAction.CLEAN and kind is not DebrisKind.SHIM
        assert world.asked_for() == ([f"/ns/{kind.value}"] if goes else [])
        left = {one.place.key.kind: one for one in world.shown()}
        assert all(one.phase is Phase.DUE and one.objection for one in left.values())


def test_observing_shows_what_would_be_due_and_asks_for_nothing() -> None:
    world = waiting(cleaning(replace(ENFORCE, enforce=False)))
    world.pass_time(10 * GRACE)
    assert not world.batches
    assert world.one().phase is Phase.DUE
    assert len(world.taken) == 2


def test_batches_hold_one_kind_follow_one_another_and_end_with_the_last_place() -> None:
    world = DebrisWorld()
    world.there = [*places(3 * BATCH), *places(10, DebrisKind.MOUNT)]
    world.begin()
    world.pass_time(GRACE + 1.0)
    assert not world.there
    kinds = [{one.key.kind for one in batch} for _, batch in world.batches]
    assert kinds == [{DebrisKind.MOUNT}, *3 * [{DebrisKind.CGROUP}]]
    assert all(len(batch) <= BATCH for _, batch in world.batches)


def test_one_batch_is_under_way_at_a_time() -> None:
    world = DebrisWorld()
    world.there, world.result = [*places(2 * BATCH)], None
    world.begin()
    world.pass_time(10 * GRACE)
    world.inventory()
    assert len(world.batches) == 1


def test_every_kind_has_its_turn() -> None:
    assert sorted(ORDER, key=str) == sorted(DebrisKind, key=str)


def test_what_more_there_is_than_an_inventory_names_goes_as_well() -> None:
    world, most = DebrisWorld(), 200
    everything = left = list(places(1000))
    world.there = everything[:most]
    world.begin()
    for _ in range(20):
        world.pass_time(GRACE + 1.0)
        gone = set(world.asked_for())
        left = [one for one in everything if one.key.path not in gone]
        world.there = left[:most]
        world.inventory()
    assert not left


def test_the_rate_counts_places_by_itself() -> None:
    world = DebrisWorld(cleaning(limit=70))
    world.there = list(places(200))
    world.begin()
    world.pass_time(GRACE + 1.0)
    assert len(world.asked_for()) == 70
    held = [one for one in world.shown() if one.phase is Phase.HELD]
    assert held
    assert all(one.cause.startswith(RATE) for one in held)
    world.pass_time(60.0)
    assert len(world.asked_for()) == 140
    world.pass_time(60.0)
    assert not world.there


def test_a_guard_that_refuses_holds_debris() -> None:
    world = waiting()
    refusal = Refusal(Guard.STATE_ROOT, "on a disk")
    world.observe(GuardsChecked((refusal,)))
    world.pass_time(2 * GRACE)
    assert not world.batches
    assert world.one().phase is Phase.HELD
    assert world.one().cause.startswith(GUARDS)
    world.carry(world.observe(GuardsChecked()))
    assert world.asked_for() == ["/ns/x"]


def test_while_containerd_does_not_answer_nothing_is_removed() -> None:
    """Of a socket it knows nothing; but it may be sweeping, or starting."""
    world = DebrisWorld(containerd=SILENT)
    world.there = [place(DebrisKind.SHIM_SOCKET, "/s/x", names=("", ""))]
    world.begin()
    world.pass_time(2 * GRACE)
    assert not world.batches
    assert world.one().cause.startswith("containerd")
    world.containerd = UP
    world.ask_node()
    assert world.asked_for() == ["/s/x"]


# ---------------------------------------------------------------------- at the moment it is sent


def begun() -> tuple[DebrisWorld, CleanDebris]:
    """A batch that was asked for and waits for a worker."""
    world = waiting()
    world.result = None
    world.pass_time(GRACE + 0.1)
    ((_, batch),) = world.batches
    return world, CleanDebris(batch)


def refusal(world: DebrisWorld, batch: CleanDebris) -> str:
    refused = world.engine.refusal(batch, world.stamp.mono, ())
    assert refused is None or refused.result is Result.HELD
    return "" if refused is None else refused.detail


def test_a_batch_is_sent_if_nothing_has_changed() -> None:
    world, batch = begun()
    assert not refusal(world, batch)
    world.ask_node()
    assert not refusal(world, batch)


def test_a_reload_holds_back_what_is_queued() -> None:
    for policies in (
        cleaning(replace(ENFORCE, enforce=False)),
        replace(cleaning(), debris=()),
        replace(cleaning(), rules=(Rule(Match(id="x"), replace(ENFORCE, protect=True)),)),
        cleaning(replace(ENFORCE, grace=3600.0)),
        cleaning(replace(ENFORCE, threshold=1e9)),
    ):
        world, batch = begun()
        world.engine.configure(world.stamp, policies)
        assert refusal(world, batch)
        world.result = Result.CLEANED
        world.end(batch.places)
        world.pass_time(2 * GRACE)
        assert len(world.batches) == 1


def test_a_task_that_came_meanwhile_holds_its_debris_back() -> None:
    world, batch = begun()
    world.containerd = replace(UP, tasks=frozenset({key("ns/x")}))
    world.ask_node()
    assert refusal(world, batch)
    world.result = Result.CLEANED
    world.end(batch.places)
    world.pass_time(5 * GRACE)
    assert len(world.batches) == 1


def test_guards_and_silence_hold_it_back() -> None:
    world, batch = begun()
    refused = (Refusal(Guard.PID_NAMESPACE, "foreign"),)
    outcome = world.engine.refusal(batch, world.stamp.mono, refused)
    assert outcome is not None
    assert outcome.reason is BlockReason.GUARD
    world.observe(GuardsChecked(refused))
    assert refusal(world, batch)
    world.observe(GuardsChecked())
    world.containerd = SILENT
    world.ask_node()
    assert refusal(world, batch)


# ---------------------------------------------------------------------- what comes of it


def test_what_is_blocked_is_tried_again_after_growing_pauses_and_goes_when_it_can() -> None:
    world = waiting()
    world.result, world.reason = Result.BLOCKED, BlockReason.MOUNT_BUSY
    world.pass_time(GRACE + 100.0)
    times = [at for at, _ in world.batches]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == pytest.approx([5.0, 10.0, 20.0, 40.0], abs=0.1)
    assert (world.one().phase, world.one().cause) == (Phase.BLOCKED, "mount busy")
    assert world.one().attempts == 5
    world.result = Result.CLEANED
    world.pass_time(300.0)
    assert not world.there


def test_where_the_second_look_disagreed_two_inventories_must_agree_anew() -> None:
    world = waiting()
    world.result = Result.SKIPPED
    world.pass_time(GRACE + 0.1)
    (at, _), world.result = world.batches[0], Result.CLEANED
    world.pass_time(6.0)
    world.inventory()
    world.pass_time(GRACE + 0.1)
    assert world.batches[1][0] >= at + GRACE
    assert not world.there


def test_a_place_of_which_nothing_was_said_has_failed() -> None:
    world, _ = begun()
    world.observe(DebrisCleaned(()))
    assert world.one().phase is Phase.BLOCKED
    assert world.one().cause == "failed"


def test_what_comes_of_one_place_is_not_what_comes_of_another() -> None:
    world = DebrisWorld(result=None)
    world.there = [*places(3)]
    world.begin()
    world.pass_time(GRACE + 0.1)
    first, second, third = world.there
    world.there = [second]
    results = [
        DebrisResult(first.key, first.identity, Result.CLEANED),
        DebrisResult(second.key, second.identity, Result.BLOCKED, BlockReason.IO),
        DebrisResult(third.key, third.identity, Result.CLEANED),
    ]
    world.carry(world.observe(DebrisCleaned(tuple(results))))
    assert world.one().place == second
    assert world.one().cause == "i/o error"


def test_nothing_is_settled_before_what_waits_has_come_to_an_end() -> None:
    world = waiting()
    assert not world.engine.is_settled(world.stamp.mono)
    world.pass_time(GRACE + 1.0)
    assert world.engine.is_settled(world.stamp.mono)
    for policies in (Policies(default=ENFORCE), cleaning(replace(ENFORCE, enforce=False))):
        assert waiting(policies).engine.is_settled(world.stamp.mono), "it is only reported"


# ---------------------------------------------------------------------- rules

PROTECTS = replace(ENFORCE, name="keep", protect=True)
SOCKET = {"kind": DebrisKind.SHIM_SOCKET, "names": ("", "")}
FIFOS = {"kind": DebrisKind.FIFO_DIR, "names": ("", "x")}
GROUP = {"kind": DebrisKind.CGROUP, "names": ("ns", "x")}


@pytest.mark.parametrize(
    ("match", "spared"),
    [
        (Match(), [GROUP, FIFOS, SOCKET]),
        (Match(namespace="*"), [GROUP, FIFOS, SOCKET]),
        (Match(namespace="ns"), [GROUP]),
        (Match(namespace="other"), []),
        (Match(id="x"), [GROUP, FIFOS, SOCKET]),
        (Match(id="y"), [SOCKET]),
        (Match(namespace="ns", id="x"), [GROUP, FIFOS, SOCKET]),
        (Match(namespace="other", id="x"), [FIFOS, SOCKET]),
        (Match(namespace="ns", pod="p"), [GROUP, FIFOS, SOCKET]),
        (Match(namespace="other", pod="p"), [FIFOS, SOCKET]),
        (Match(pod_namespace="kube-*"), [GROUP, FIFOS, SOCKET]),
    ],
    ids=str,
)
def test_a_rule_protects_what_may_be_its_own(match: Match, spared: list[object]) -> None:
    for fields in (GROUP, FIFOS, SOCKET):
        for says in (None, DebrisAction.CLEAN):
            rule = Rule(match, replace(PROTECTS, debris=says))
            world = waiting(replace(cleaning(), rules=(rule,)), **fields)
            world.pass_time(2 * GRACE)
            is_spared = fields in spared and says is None
            assert bool(world.there) == is_spared, (match, fields, says)
            if is_spared:
                assert (world.one().phase, world.one().cause) == (Phase.PROTECTED, "keep")


def test_a_rule_says_what_happens_to_debris() -> None:
    only_reports = Rule(Match(namespace="ns"), replace(ENFORCE, debris=DebrisAction.REPORT))
    cleans = Rule(Match(namespace="ns"), replace(ENFORCE, debris=DebrisAction.CLEAN))
    for rule, policies, goes in (
        (only_reports, cleaning(), False),
        (cleans, Policies(default=ENFORCE), True),
    ):
        world = waiting(replace(policies, rules=(rule,)))
        world.pass_time(2 * GRACE)
        assert bool(world.batches) == goes
