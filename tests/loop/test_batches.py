"""Piles: others help with looks, every look is made once, and the later one counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
import pytest

from reconciler.loop.looks import BATCH, PILE, Helpers
from reconciler.model.evidence import Kind, Look, PartialLook
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import HintKind
from reconciler.supervision import Supervisor

SIZE = PILE + 250


def keys(count: int = SIZE) -> list[BundleKey]:
    return [BundleKey("ns", f"{number}") for number in range(count)]


def look_of(key: BundleKey) -> Look:
    return Look(Identity(1, int(key.id), 1), Kind.DIRECTORY)


@dataclass
class FakeLookers:
    """Others. Implements `ports.BatchInspector`."""

    many: int = 1
    asked: list[BundleKey] = field(default_factory=list)
    answers: bool = True
    meanwhile: Callable[[], None] = lambda: None

    async def look(self, keys: Sequence[BundleKey]) -> Sequence[Look | None] | None:
        self.asked += keys
        await anyio.lowlevel.checkpoint()
        self.meanwhile()
        return [look_of(key) for key in keys] if self.answers else None


@dataclass
class Rig:
    lookers: FakeLookers = field(default_factory=FakeLookers)
    waiting: dict[BundleKey, HintKind] = field(
        default_factory=lambda: dict.fromkeys(keys(), HintKind.CHANGED)
    )
    received: dict[BundleKey, Look | PartialLook | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.helpers = Helpers(self.lookers, Supervisor().part("looks"), self.waiting, self.receive)

    def receive(self, key: BundleKey, look: Look | PartialLook | None) -> None:
        assert key not in self.received
        self.received[key] = look


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_each_look_is_made_by_one_of_us(rig: Rig) -> None:
    await rig.helpers.help()
    assert rig.received == {key: look_of(key) for key in rig.lookers.asked}
    assert rig.received.keys() | rig.waiting.keys() == set(keys())
    assert not rig.received.keys() & rig.waiting.keys()
    assert len(rig.waiting) <= BATCH
    assert next(iter(rig.waiting)) == keys()[0], "we begin at the other end"


async def test_no_answer_says_nothing_and_leaves_the_looks_to_us(rig: Rig) -> None:
    rig.lookers.answers = False
    await rig.helpers.help()
    assert rig.received == {}
    assert rig.waiting.keys() == set(keys())
    assert rig.helpers.missing == 0, "it is not asked again"


async def test_a_look_of_ours_made_meanwhile_counts(rig: Rig) -> None:
    newer = keys()[-1]
    rig.lookers.meanwhile = lambda: rig.helpers.overtake(newer)
    await rig.helpers.help()
    assert newer in rig.lookers.asked
    assert newer not in rig.received
    assert newer not in rig.waiting


async def test_what_we_looked_at_meanwhile_is_not_taken_back(rig: Rig) -> None:
    newer = keys()[-1]
    rig.lookers.answers = False
    rig.lookers.meanwhile = lambda: rig.helpers.overtake(newer)
    await rig.helpers.help()
    assert rig.waiting.keys() == set(keys()) - {newer}


def test_help_is_wanted_for_a_pile_only(rig: Rig) -> None:
    assert rig.helpers.missing == 1
    del rig.waiting[keys()[0]]
    for key in keys(251):
        rig.waiting.pop(key, None)
    assert len(rig.waiting) < PILE
    assert rig.helpers.missing == 0


async def test_as_many_help_as_are_worth_having() -> None:
    rig = Rig(FakeLookers(many=3))
    assert rig.helpers.missing == 3
    seen: list[int] = []
    rig.lookers.meanwhile = lambda: seen.append(rig.helpers.missing)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(rig.helpers.help)
    assert 0 in seen
    assert rig.received.keys() | rig.waiting.keys() == set(keys())


def test_without_others_nobody_is_missing() -> None:
    rig = Rig()
    assert Helpers(None, Supervisor().part("looks"), rig.waiting, rig.receive).missing == 0
