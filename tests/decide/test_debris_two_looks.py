"""Whatever happens: nothing is asked for that two inventories, a grace apart, did not find debris.

The rule is written down here a second time, over the whole history, and not as the engine has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.model.debris import (
    WHOLE_BATCH,
    DebrisCleaned,
    DebrisKind,
    Inventory,
    Place,
    results_of,
)
from reconciler.model.decisions import CleanDebris, Decision, TakeInventory
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Listed,
    NodeLooked,
    Observation,
    Refusal,
)
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import Match, Policies, Rule
from tests.decide.debris_world import GRACE, cleaning, place
from tests.decide.world import ENFORCE, UP, World, key

KINDS = (DebrisKind.CGROUP, DebrisKind.SHIM_SOCKET)
FOREIGN = Refusal(Guard.PID_NAMESPACE, "foreign")
POLICIES = (
    cleaning(),
    cleaning(replace(ENFORCE, enforce=False)),
    replace(cleaning(), rules=(Rule(Match(id="0"), replace(ENFORCE, protect=True)),)),
    Policies(default=ENFORCE),
)
NAMES = ((KINDS[0], "0"), (KINDS[0], "1"), (KINDS[1], "2"))
STATES = ("debris",) * 8 + ("another", "lives", "owned", "no answer", "absent")
INVENTORIES = st.tuples(
    st.just("inventory"),
    st.tuples(*(st.sampled_from(STATES) for _ in NAMES)),
    st.sampled_from((KINDS, KINDS, KINDS, KINDS[:1], ())),
)
WAITS = st.tuples(st.just("wait"), st.sampled_from((GRACE / 2, GRACE, 1.0, 3 * GRACE)))
RESULTS = st.tuples(
    st.just("result"),
    st.sampled_from((Result.BLOCKED, *Result)),
    st.sampled_from((None, *BlockReason)),
)
OTHERS = st.one_of(
    st.tuples(st.just("node"), st.sampled_from((UP, Containerd())), st.booleans()),
    st.tuples(st.just("guards"), st.booleans()),
    st.tuples(st.just("configure"), st.sampled_from(POLICIES)),
)
EVENTS = st.one_of(INVENTORIES, WAITS, INVENTORIES, WAITS, RESULTS, OTHERS)


def found_as(state: str, kind: DebrisKind, name: str) -> Place | None:
    """Give what an inventory finds in a place that is in this state."""
    one = place(kind, f"/{name}", ino=7 if state == "another" else 1, names=("ns", name))
    match state:
        case "absent":
            return None
        case "lives":
            return replace(one, lives=Answer.YES)
        case "owned":
            return replace(one, owned=Answer.YES)
        case "no answer":
            return replace(one, owned=Answer.NONE)
        case _:
            return one


@dataclass
class Watched(World):
    """A world whose every batch is compared with all that was ever said."""

    policies: Policies = field(default_factory=cleaning)
    nothing_outside: bool = False
    said_of: list[tuple[float, frozenset[DebrisKind], dict[str, Place]]] = field(
        default_factory=list
    )
    waits: list[tuple[Place, ...]] = field(default_factory=list)
    asked: int = 0
    foreign: bool = False

    def watch(self, decisions: list[Decision]) -> list[Decision]:
        for decision in decisions:
            if isinstance(decision, CleanDebris):
                assert not self.waits, "one batch at a time"
                assert len({one.key.kind for one in decision.places}) == 1
                self.waits.append(decision.places)
                self.asked += len(decision.places)
                for one in decision.places:
                    self.check(one)
        return decisions

    def check(self, one: Place) -> None:
        """Two inventories found this object debris, a grace apart, and none between denied it."""
        agreeing: list[float] = []
        for since, looked, found in reversed(self.said_of):
            if one.key.kind not in looked:
                continue
            there = found.get(str(one.key))
            is_debris = (
                there is not None
                and there.identity == one.identity
                and (there.lives, there.owned) == (Answer.NO, Answer.NO)
            )
            if not is_debris:
                break
            agreeing.append(since)
        assert len(agreeing) >= 2
        assert agreeing[0] - agreeing[-1] >= GRACE
        assert not self.foreign
        assert self.policies.default.enforce
        assert self.policies.debris
        assert not (self.policies.rules and one.id == "0")
        tasks = self.engine.node.containerd.tasks
        assert one.key.kind is DebrisKind.SHIM_SOCKET or key(f"ns/{one.id}") not in tasks

    def tell(self, observation: Observation) -> list[Decision]:
        return self.watch(self.observe(observation))


@pytest.mark.safety
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENTS, min_size=10, max_size=40))
def test_nothing_is_asked_for_that_two_inventories_did_not_find_debris(
    events: list[tuple[object, ...]],
) -> None:
    play(events)


def play(events: Sequence[tuple[object, ...]]) -> Watched:
    world = Watched()
    world.tell(Listed(answered=True, present=True))
    world.tell(NodeLooked(world.stamp.mono, containerd=UP))
    for event in events:
        match event:
            case ("inventory", found, looked):
                _inventory(world, found, looked)  # type: ignore[arg-type]  # as EVENTS makes them
            case ("wait", float(seconds)):
                world.watch(world.wait(seconds))
            case ("node", Containerd() as said, bool(lists)):
                tasks = frozenset({key("ns/1")}) if lists else frozenset()
                is_up = said.state is ContainerdState.UP
                world.tell(
                    NodeLooked(
                        world.stamp.mono, containerd=replace(said, tasks=tasks) if is_up else said
                    )
                )
            case ("guards", bool(foreign)):
                world.foreign = foreign
                world.tell(GuardsChecked((FOREIGN,) if foreign else ()))
            case ("configure", Policies() as policies):
                world.policies = policies
                world.watch(world.engine.configure(world.stamp, policies))
            case ("result", Result() as result, reason) if world.waits:
                came = replace(WHOLE_BATCH, result=result, reason=reason)
                batch = world.waits.pop()
                world.tell(DebrisCleaned(results_of(batch, came)))
            case _:
                pass
    return world


def _inventory(world: Watched, states: Sequence[str], looked: Sequence[DebrisKind]) -> None:
    found = (
        found_as(state, *name)
        for state, name in zip(states, NAMES, strict=True)
        if name[0] in looked
    )
    by_key = {str(one.key): one for one in found if one is not None}
    begun = world.stamp.mono
    world.said_of.append((begun, frozenset(looked), by_key))
    world.tell(Inventory(begun, tuple(looked), tuple(by_key.values())))
    world.now += 0.01
    world.tell(NodeLooked(world.stamp.mono, containerd=UP))


def test_the_property_sees_batches() -> None:
    """It would hold as well if nothing were ever asked for."""
    events = [("inventory", ("debris",) * 3, KINDS), ("wait", GRACE)]
    assert play([*events, *events]).asked == 2
    assert TakeInventory() in play(events).said
