"""Debris that somebody asked for: it waits less, and nothing else is weaker for it."""

import pytest
from msgspec.structs import replace

from reconciler.decide.due import BETWEEN_LOOKS
from reconciler.model.debris import DebrisKind, Place, PlaceKey, RequestedPlace
from reconciler.model.decisions import Phase
from reconciler.model.evidence import Answer
from reconciler.model.observations import CleanRequested
from reconciler.model.outcome import Result
from reconciler.model.policy import DebrisAction, DebrisPolicy, Match, Policies, Rule, Shims
from tests.decide.debris_world import DebrisWorld, place, places
from tests.decide.world import ENFORCE, EPOCH

pytestmark = pytest.mark.safety

SLOW = replace(ENFORCE, grace=600.0, threshold=1e9)
REPORTING = Policies(default=SLOW)
"""As a daemon is configured of which nothing is said: debris is only reported."""


def please(world: DebrisWorld, *of: Place, dev: int = 1) -> None:
    its = tuple(RequestedPlace(one.key, dev, one.identity.ino) for one in of)
    world.carry(world.observe(CleanRequested((), 0, 7, its)))


def world_of(*there: Place, policies: Policies = REPORTING) -> DebrisWorld:
    world = DebrisWorld(policies)
    world.there = list(there)
    world.begin()
    return world


def test_it_goes_after_two_inventories_the_time_between_looks_apart() -> None:
    other = place(path="/ns/y", ino=9, names=("ns", "y"))
    world = world_of(place(), other)
    world.pass_time(100.0)
    assert not world.batches, "it is only reported"
    please(world, place())
    world.pass_time(BETWEEN_LOOKS + 0.1)
    assert world.asked_for() == ["/ns/x"]
    assert world.taken[-1] > world.taken[0]
    ((asked, came),) = world.engine.debris.requests.done
    assert (asked.key, came.result) == (place().key, Result.CLEANED)
    assert not world.engine.debris.requests.keys
    world.pass_time(10_000.0)
    assert world.asked_for() == ["/ns/x"], "nobody asked for any other"


def test_what_no_inventory_has_found_yet_is_looked_for_twice() -> None:
    world = world_of()
    world.there = [place()]
    please(world, place())
    assert len(world.taken) == 2
    assert world.engine.debris.requests.unseen == 0
    assert not world.batches
    world.pass_time(BETWEEN_LOOKS + 0.1)
    assert world.asked_for() == ["/ns/x"]
    assert world.taken[2] - world.taken[1] == pytest.approx(BETWEEN_LOOKS)


@pytest.mark.parametrize(
    "other",
    [
        {"ino": 99},
        {"lives": Answer.YES},
        {"owned": Answer.YES},
        {"owned": Answer.NONE},
        {"lives": Answer.NONE},
        {"since": EPOCH + 1e6},
    ],
    ids=["another object", "lives", "owned", "owner unknown", "life unknown", "young"],
)
def test_whatever_is_not_the_debris_that_was_shown_stays(other: dict[str, object]) -> None:
    for is_known in (True, False):
        world = world_of(*([place()] if is_known else []))
        please(world, place())
        world.there = [place(**other)]  # type: ignore[arg-type]  # as place() takes them
        for _ in range(5):
            world.inventory()
            world.pass_time(20.0)
        assert not world.batches
        assert not world.engine.debris.requests.keys, "it ends with the object"
        world.there = [place()]
        world.inventory()
        world.pass_time(500.0)
        assert not world.batches, "and does not begin again"


@pytest.mark.parametrize(
    ("policies", "kind", "why"),
    [
        (Policies(default=replace(SLOW, enforce=False)), DebrisKind.CGROUP, "only be observed"),
        (
            replace(REPORTING, rules=(Rule(Match("ns"), replace(SLOW, protect=True)),)),
            *(DebrisKind.CGROUP, "protects it"),
        ),
        (
            replace(
                REPORTING,
                rules=(Rule(Match("ns"), replace(SLOW, debris=DebrisAction.REPORT)),),
            ),
            *(DebrisKind.CGROUP, "only reported"),
        ),
        (REPORTING, DebrisKind.SHIM, "living shims are only reported"),
    ],
    ids=["observe", "protect", "a rule's report", "a living shim"],
)
def test_it_overrules_nothing_but_what_is_said_of_a_kind(
    policies: Policies, kind: DebrisKind, why: str
) -> None:
    there = place(kind)
    world = world_of(there, policies=policies)
    asked = RequestedPlace(there.key, 1, there.identity.ino)
    assert why in world.engine.debris.refusal(asked)
    please(world, there)
    world.pass_time(2000.0)
    assert not world.batches
    late = world_of(policies=policies)
    late.there = [there]
    please(late, there)
    late.pass_time(2000.0)
    assert not late.batches


def test_a_shim_goes_where_shims_are_ended_and_at_once_where_asked() -> None:
    shim = place(DebrisKind.SHIM, "4711")
    world = world_of(shim, policies=Policies(default=replace(SLOW, shims=Shims.KILL)))
    please(world, shim)
    world.pass_time(BETWEEN_LOOKS + 0.1)
    assert world.asked_for() == ["4711"]


def test_an_age_and_a_shorter_grace_stay_and_other_policies_end_it() -> None:
    aged = (DebrisPolicy(DebrisKind.CGROUP, DebrisAction.REPORT, 50.0),)
    young = place(since=EPOCH)
    world = world_of(young, policies=replace(REPORTING, debris=aged))
    please(world, young)
    world.pass_time(40.0)
    assert not world.batches
    world = world_of(place(), policies=Policies(default=replace(ENFORCE, grace=1.0)))
    please(world, place())
    world.pass_time(1.1)
    assert world.batches
    world = world_of(place())
    please(world, place())
    world.carry(world.engine.configure(world.stamp, REPORTING))
    world.pass_time(500.0)
    assert not world.batches


def test_another_object_is_told_and_a_kind_that_cannot_be_listed_is_waited_for() -> None:
    world = world_of(place())
    another = RequestedPlace(place().key, 1, 99)
    assert "another object" in world.engine.debris.refusal(another)
    assert not world.engine.debris.refusal(RequestedPlace(PlaceKey(DebrisKind.MOUNT, "/"), 0, 0))
    please(world, place())
    world.looked = (DebrisKind.MOUNT,)
    world.pass_time(100.0)
    assert world.engine.debris.requests.keys
    world.looked = tuple(DebrisKind)
    world.inventory()
    world.pass_time(400.0)
    assert world.asked_for() == ["/ns/x"]


def test_what_an_inventory_has_no_room_to_name_is_still_asked_for() -> None:
    many = places(5)
    world = DebrisWorld(REPORTING)
    world.there, world.most = list(many), 3
    world.begin()
    please(world, *many)
    assert world.engine.debris.requests.unseen == 2
    world.pass_time(60.0)
    assert sorted(world.asked_for()) == [one.key.path for one in many]
    assert not world.shown()


def test_a_blocked_one_stops_waiting_and_is_tried_again_at_a_request() -> None:
    world = world_of(place())
    world.result = Result.BLOCKED
    please(world, place())
    world.pass_time(BETWEEN_LOOKS + 0.1)
    assert len(world.batches) == 1
    assert world.one().phase is Phase.BLOCKED
    please(world, place())
    assert len(world.batches) == 2
