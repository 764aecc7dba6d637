"""What is kept for each bundle: one object for equal values, and no index that only grows."""

import random
from typing import Never

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.decide.cleanups import Cleanups
from reconciler.decide.due import SizeBudgets
from reconciler.decide.queue import PriorityQueue
from reconciler.model.decisions import LookAt, Verdict
from reconciler.model.evidence import Init, InitState, Kind, Look, Mount, Shim, ShimState
from reconciler.model.ids import NOWHERE, BundleKey, Identity
from reconciler.model.policy import Policies
from tests.decide.world import ENFORCE, World, dead, key, leftover

SCOPE = ("cleanup", "ns")


def test_key_and_identity_are_kept_once() -> None:
    world = World()
    world.listed(a=1)
    world.look(dead())
    asked = [d.key for d in world.listed(a=1) if isinstance(d, LookAt)]
    world.look(dead())
    (track,) = world.engine.tracks
    assert track.look is not None
    assert track.look.identity is track.identity
    assert asked[0] is track.key
    assert world.engine.kept(key()) is track.key
    assert world.engine.kept(key("ns/other")) == key("ns/other")


def test_equal_facts_are_one_object() -> None:
    world = World()
    world.listed(a=1, b=2)
    for name, ino in (("ns/a", 1), ("ns/b", 2)):
        world.look(dead(ino), name)
    one, other = world.engine.tracks
    assert one.facts is other.facts is not None


def test_a_failed_look_answers_nothing_and_forgets_nothing() -> None:
    world = leftover(replace(ENFORCE, grace=3600.0))
    world.wait(60.0)
    said = world.look(Look(NOWHERE, Kind.DIRECTORY))
    assert world.view().judgement.verdict is Verdict.UNKNOWN
    (track,) = world.engine.tracks
    assert track.identity == Identity(1, 1, 1)
    assert track.labels.known
    assert track.leftover_since is None, "the unbroken time under our eyes is broken"
    assert not [d for d in said if type(d).__name__ == "Vanished"]


@pytest.mark.parametrize("seed", range(20))
def test_size_budgets_mark_what_the_simplest_rule_would(seed: int) -> None:
    """Oldest first until the rest fits; whatever was marked once stays marked."""
    rng = random.Random(seed)  # noqa: S311 - a story, not a secret
    lives: dict[BundleKey, float] = {}
    sizes: dict[BundleKey, int] = {}
    budgets, limit = SizeBudgets(lives.__getitem__, sizes.__getitem__, lambda _: sizes), 500
    marked: set[BundleKey] = set()
    for _ in range(400):
        name = BundleKey("ns", f"{rng.randrange(30)}")
        if rng.random() < 0.3:
            if name in sizes:
                budgets.drop(SCOPE, name, sizes.pop(name))
            marked.discard(name)
        elif name not in sizes:
            lives[name] = rng.random()
            sizes[name] = rng.randrange(1, 100)
            budgets.put(SCOPE, name, sizes[name], fixed=False)
        fresh = set()
        while sum(size for each, size in sizes.items() if each not in marked) > limit:
            oldest = min(sizes.keys() - marked, key=lambda each: (lives[each], each))
            marked.add(oldest)
            fresh.add(oldest)
        assert set(budgets.mark(SCOPE, limit)) == fresh
        assert {each for each in sizes if budgets.is_marked(SCOPE, each)} == marked
        tally = budgets._tallies.get(SCOPE)
        assert (tally.total if tally else 0) == sum(sizes.values())


def test_no_order_is_put_up_before_a_limit_is_exceeded() -> None:
    def nobody_asks(_: object) -> Never:
        raise AssertionError

    budgets = SizeBudgets(nobody_asks, nobody_asks, nobody_asks)
    for number in range(100):
        budgets.put(SCOPE, BundleKey("ns", f"{number}"), 1, fixed=False)
        assert budgets.mark(SCOPE, 100) == []


def test_indexes_shrink_with_what_they_index() -> None:
    queue, cleanups = PriorityQueue(), Cleanups()
    budgets = SizeBudgets(lambda _: 0.0, lambda _: 10, lambda _: [key("ns/large")])
    budgets.put(SCOPE, key("ns/large"), 10, fixed=False)
    assert budgets.mark(SCOPE, 1) == [key("ns/large")]
    for number in range(10_000):
        name = BundleKey("ns", f"{number % 100}")
        queue.set(name, float(number))
        cleanups.queue(name, float(number))
        budgets.put(SCOPE, name, number, fixed=False)
        queue.set(name, None)
        cleanups.withdraw(name)
        budgets.drop(SCOPE, name, number)
    for kept in (queue, cleanups._ready, budgets._tallies[SCOPE].oldest):
        assert kept is not None
        assert len(kept._heap) <= 100
    assert queue.next is None


def test_what_looks_have_alike_is_one_object_and_every_look_says_what_it_said() -> None:
    world, names = World(), ("ns/a", "ns/b")
    world.listed(a=1, b=2)
    seen = [
        replace(
            dead(number),
            init=Init(InitState.DEAD, number, "no such process"),
            shim=Shim(ShimState.DEAD, "/run/s", key(name).id, detail="connection refused"),
            mounts=(Mount("rootfs", number, "overlay"),),
        )
        for number, name in enumerate(names, 1)
    ]
    text = [msgspec.msgpack.encode(look) for look in seen]
    own = [msgspec.msgpack.decode(one, type=Look) for one in text]
    for name, look in zip(names, own, strict=True):
        world.look(look, name)
    assert own == seen
    assert [msgspec.msgpack.encode(look) for look in own] == text
    first, second = own
    assert first.runtime is second.runtime
    assert first.init.detail is second.init.detail
    assert first.shim.detail is second.shim.detail
    assert first.mounts[0].fstype is second.mounts[0].fstype
    for look, name in zip(own, names, strict=True):
        assert look.shim.group is world.engine.kept(key(name)).id


def test_what_is_due_comes_oldest_first_after_withdrawals() -> None:
    world = World(Policies(default=ENFORCE, parallel=1))
    world.listed(**{f"b{number}": number + 1 for number in range(3)})
    for number, age in enumerate((100.0, 300.0, 200.0)):
        world.look(dead(number + 1, age=age), f"ns/b{number}")
    world.node()
    world.wait(11.0)
    assert world.cleans() == ["ns/b1"]
