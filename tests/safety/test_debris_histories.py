"""What lies outside of bundles, in histories: what is used again between two looks stays."""

from collections.abc import Callable

import pytest
from typing_extensions import override

from reconciler.model.debris import DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.outcome import Result
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon
from reconciler.testing.simulator import Manners, Simulation
from tests.safety.machine import GRACE, KEYS
from tests.safety.outside_machine import POLICIES

pytestmark = pytest.mark.safety

HOUR = 3600.0


class WithoutSecondLook(Simulation):
    """One whose cleaner believes what it was told, as long as something is there."""

    @override
    def _remove(self, place: Place) -> DebrisResult:
        blank = DebrisResult(place.key, place.identity, Result.SKIPPED)
        return self._take_away(place, blank) if place.key in self.outside.things else blank


def used_again(
    kind: type[Simulation], what: DebrisKind, meanwhile: Callable[[Simulation, PlaceKey], None]
) -> tuple[Simulation, PlaceKey]:
    """Between the request to remove a piece of debris and its removal, something happens."""
    simulation = kind(POLICIES, Node(), Manners(clean=40.0))
    key = simulation.outside.make(KEYS[0], what)
    simulation.node.mono += 2 * HOUR
    simulation.relist()
    simulation.wait(GRACE + 5.0)  # it was asked for, and the worker takes its time
    meanwhile(simulation, key)
    simulation.wait(60.0)
    return simulation, key


def made_anew(simulation: Simulation, key: PlaceKey) -> None:
    """By the same number, and by another one's hand."""
    simulation.outside.enter(simulation.outside.make(KEYS[0], key.kind, same_number=True))


def entered(simulation: Simulation, key: PlaceKey) -> None:
    simulation.outside.enter(key)


def owned(simulation: Simulation, key: PlaceKey) -> None:
    simulation.node.start(KEYS[0])


@pytest.mark.parametrize("meanwhile", [made_anew, entered, owned])
@pytest.mark.parametrize("kind", DebrisKind)
def test_what_is_used_again_is_seen_by_the_second_look(
    kind: DebrisKind, meanwhile: Callable[[Simulation, PlaceKey], None]
) -> None:
    simulation, key = used_again(Simulation, kind, meanwhile)
    assert simulation.harm == []
    assert key in simulation.outside.things


@pytest.mark.parametrize("meanwhile", [made_anew, entered])
@pytest.mark.parametrize("kind", [kind for kind in DebrisKind if kind is not DebrisKind.SHIM])
def test_without_a_second_look_it_is_lost(
    kind: DebrisKind, meanwhile: Callable[[Simulation, PlaceKey], None]
) -> None:
    simulation, key = used_again(WithoutSecondLook, kind, meanwhile)
    assert len(simulation.harm) == 1
    assert key not in simulation.outside.things


@pytest.mark.parametrize("kind", [kind for kind in DebrisKind if kind is not DebrisKind.SHIM])
def test_what_nobody_uses_goes(kind: DebrisKind) -> None:
    simulation, key = used_again(Simulation, kind, lambda _simulation, _key: None)
    assert simulation.debris_cleaned == [key]


def test_a_shim_stays() -> None:
    simulation, key = used_again(Simulation, DebrisKind.SHIM, lambda _simulation, _key: None)
    simulation.wait(24 * HOUR)
    assert key in simulation.outside.things


def test_from_a_foreign_namespace_and_beside_a_silent_containerd_all_of_it_stays() -> None:
    for spoil in (
        lambda simulation: setattr(simulation.sight, "foreign", True),
        lambda simulation: simulation.node.set_daemon(Daemon.HUNG),
    ):
        simulation = Simulation(POLICIES, Node())
        key = simulation.outside.make(KEYS[0], DebrisKind.CGROUP)
        simulation.node.mono += 2 * HOUR
        spoil(simulation)
        simulation.relist()
        simulation.wait(24 * HOUR)
        assert key in simulation.outside.things


def test_a_killed_reconciler_begins_anew_and_finishes() -> None:
    simulation = Simulation(POLICIES, Node(), Manners(clean=40.0))
    key = simulation.outside.make(KEYS[0], DebrisKind.RUNC_STATE)
    simulation.node.mono += 2 * HOUR
    for _ in range(5):
        simulation.wait(GRACE + 5.0)
        simulation.restart()
    assert key in simulation.outside.things
    simulation.wait(HOUR)
    assert simulation.debris_cleaned == [key]
