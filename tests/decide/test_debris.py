"""Debris: every combination of answers has one verdict, and no answer is never a no."""

from itertools import product

import pytest
from msgspec.structs import replace

from reconciler.decide.debris_pace import PAUSE
from reconciler.decide.debris_verdicts import AGES, DebrisVerdict, judge_place
from reconciler.model.debris import DebrisKind, Inventory, Place, PlaceKey
from reconciler.model.decisions import AskNode, TakeInventory
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, GuardsChecked, Listed, NodeLooked, Refusal, Stamp
from tests.decide.world import World, key

NAMED = frozenset(DebrisKind) - {
    DebrisKind.SHIM_SOCKET,
    DebrisKind.MOUNT,
    DebrisKind.HIDDEN_BUNDLE,
}
LISTED = Listed(answered=True, present=True)


def place(kind: DebrisKind, lives: Answer = Answer.NO, owned: Answer = Answer.NO) -> Place:
    return Place(PlaceKey(kind, "/somewhere"), Identity(1, 2, 3), "ns", "x", 1.0, lives, owned)


@pytest.mark.safety
@pytest.mark.parametrize("kind", DebrisKind)
def test_debris_needs_every_witness(kind: DebrisKind) -> None:
    for lives, owned, task in product(Answer, repeat=3):
        for age in (None, 0.0, AGES[kind] - 0.001, AGES[kind], 1e9):
            verdict, reason = judge_place(place(kind, lives, owned), task, age)
            asked_of = (lives, owned, task) if kind in NAMED else (lives, owned)
            is_old = age is None or age >= AGES[kind]
            assert (verdict is DebrisVerdict.DEBRIS) == (set(asked_of) == {Answer.NO} and is_old)
            if lives is Answer.YES:
                assert verdict is DebrisVerdict.USED
            elif Answer.YES in asked_of:
                assert verdict is DebrisVerdict.OWNED
            elif Answer.NONE in asked_of:
                assert verdict is DebrisVerdict.UNKNOWN, "waiting never makes it debris"
            assert reason


def verdicts(world: World) -> list[DebrisVerdict]:
    stamp = Stamp(world.stamp.mono, 1e9)
    return [one.verdict for one in world.engine.debris.views(stamp)]


def inventory(world: World) -> Inventory:
    return Inventory(world.stamp.mono, tuple(DebrisKind), (place(DebrisKind.WORK_DIR),))


@pytest.mark.safety
def test_what_containerd_said_before_an_inventory_does_not_count() -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)
    world.wait(1.0)
    taken = inventory(world)
    world.wait(1.0)
    asked = [*world.observe(taken), *world.wait(1.0)]
    assert verdicts(world) == [DebrisVerdict.UNKNOWN]
    assert [one for one in asked if isinstance(one, AskNode)], "it is asked after the inventory"
    assert not world.engine.is_answered
    lists = Containerd(ContainerdState.UP, frozenset({BundleKey("ns", "x")}))
    world.observe(NodeLooked(world.stamp.mono, containerd=lists))
    assert verdicts(world) == [DebrisVerdict.OWNED]
    world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.UP)))
    assert verdicts(world) == [DebrisVerdict.DEBRIS]
    silent = Containerd(ContainerdState.UP, unlisted=frozenset({"ns"}))
    world.observe(NodeLooked(world.stamp.mono, containerd=silent))
    assert verdicts(world) == [DebrisVerdict.UNKNOWN]
    world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.NONE)))
    assert verdicts(world) == [DebrisVerdict.UNKNOWN]


@pytest.mark.safety
def test_a_task_of_any_namespace_may_own_what_has_an_id_alone() -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)
    fifos = replace(place(DebrisKind.FIFO_DIR), namespace="")
    world.observe(Inventory(world.stamp.mono, (DebrisKind.FIFO_DIR,), (fifos,)))
    for namespaces, tasks, expected in (
        ((), ("elsewhere/x",), DebrisVerdict.OWNED),
        (("elsewhere",), (), DebrisVerdict.UNKNOWN),
        ((), ("elsewhere/y",), DebrisVerdict.DEBRIS),
    ):
        said = Containerd(
            ContainerdState.UP, frozenset(map(key, tasks)), unlisted=frozenset(namespaces)
        )
        world.observe(NodeLooked(world.stamp.mono, containerd=said))
        assert verdicts(world) == [expected]


@pytest.mark.safety
def test_an_answer_from_while_the_inventory_was_taken_does_not_count() -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)
    began = world.stamp.mono
    world.wait(1.0)
    world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.UP)))
    world.wait(4.0)
    taken = Inventory(began, (DebrisKind.SHIM,), (place(DebrisKind.SHIM),), seconds=5.0)
    world.observe(taken)
    assert verdicts(world) == [DebrisVerdict.UNKNOWN]


@pytest.mark.safety
@pytest.mark.parametrize(
    "guard", [Guard.PID_NAMESPACE, Guard.TIME_NAMESPACE, Guard.MOUNT_NAMESPACE]
)
def test_from_a_foreign_namespace_nothing_is_debris(guard: Guard) -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)
    places = tuple(place(kind) for kind in DebrisKind)
    world.observe(Inventory(world.stamp.mono, tuple(DebrisKind), places))
    world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.UP)))
    world.observe(GuardsChecked((Refusal(guard, "foreign"),)))
    assert set(verdicts(world)) == {DebrisVerdict.UNKNOWN}
    world.observe(GuardsChecked())
    world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.UP)))
    assert DebrisVerdict.DEBRIS in verdicts(world)


def begin_inventory(world: World) -> None:
    """List, have the node asked, and so have an inventory asked for."""
    assert TakeInventory() not in world.observe(LISTED), "the node is asked first"
    asked = world.observe(NodeLooked(world.stamp.mono, containerd=Containerd(ContainerdState.UP)))
    assert TakeInventory() in asked


def test_an_inventory_is_taken_with_a_listing_and_not_too_often() -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)

    def listed_again(namespace: str | None = None) -> bool:
        out = world.observe(Listed(answered=True, present=True, namespace=namespace))
        out += world.wait(1.0)
        up = Containerd(ContainerdState.UP)
        out += world.observe(NodeLooked(world.stamp.mono, containerd=up))
        return TakeInventory() in out

    assert not listed_again(), "one at a time"
    world.observe(Inventory(world.stamp.mono, tuple(DebrisKind)))
    assert not listed_again(), "not too often"
    world.wait(PAUSE)
    assert not listed_again("ns")
    assert listed_again()


def test_a_kind_that_was_not_looked_for_is_not_counted() -> None:
    world = World(nothing_outside=False)
    begin_inventory(world)
    world.observe(Inventory(world.stamp.mono, (DebrisKind.CGROUP,), troubles=("fifo-dir: x",)))
    assert world.engine.debris.looked == {DebrisKind.CGROUP}
    assert world.engine.debris.troubles == ("fifo-dir: x",)
