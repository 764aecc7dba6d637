"""Very many pieces of debris: the limit on the rate sets the pace, not what is named at once."""

import pytest
from msgspec.structs import replace

from reconciler.model.debris import DebrisKind
from reconciler.model.policy import Policy
from reconciler.worker.inventory import MOST
from tests.decide.debris_world import DebrisWorld, cleaning, places
from tests.decide.world import ENFORCE

pytestmark = pytest.mark.safety

USUAL = replace(ENFORCE, grace=Policy().grace)
RELIST = 300.0
LIMIT = 120


def hours_for(count: int, most: int) -> float:
    """How long it takes until so many are removed, where an inventory names some of them."""
    world = DebrisWorld(cleaning(USUAL, limit=LIMIT), most=most)
    world.there += places(count, DebrisKind.SHIM_SOCKET)
    while world.there:
        world.begin()
        world.pass_time(RELIST)
        assert world.now < 24 * 3600.0, "it comes to an end"
    assert len(world.asked_for()) == len(set(world.asked_for())) == count
    return world.now / 3600.0


def test_an_inventory_names_enough_for_the_limit_on_the_rate() -> None:
    count = 5000
    least = count / LIMIT / 60.0
    assert hours_for(count, MOST) < least + (USUAL.grace + 2 * RELIST) / 3600.0


def test_few_names_would_make_each_wait_for_the_grace_of_others() -> None:
    assert hours_for(2000, 200) > 3 * 2000 / LIMIT / 60.0


def test_that_there_is_more_is_known() -> None:
    world = DebrisWorld(most=3)
    world.there += places(4)
    world.begin()
    assert world.engine.debris.is_more
    del world.there[0]
    world.inventory()
    assert not world.engine.debris.is_more
