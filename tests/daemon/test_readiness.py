"""When a daemon is ready, and when it is not to run at all."""

import pytest

from reconciler.daemon.endpoints import readiness
from reconciler.daemon.readiness import Readiness, held
from reconciler.decide.cleanups import Hold
from reconciler.model.observations import Guard, GuardsChecked, Listed, Refusal, Stamp

pytestmark = pytest.mark.safety

NOW = Stamp(1.0, 1.0)
LISTED = Listed(answered=True, present=True)
NOBODY = GuardsChecked((Refusal(Guard.WORKER, "nobody"),))
FOREIGN = GuardsChecked((Refusal(Guard.PID_NAMESPACE, "foreign"), *NOBODY.refused))


class Heard:
    """A readiness, and what it has done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.readiness = Readiness(enforce=True, became_ready=lambda: self.done.append("ready"))
        self.readiness.stop = lambda: self.done.append("stop")

    def receive(self, *told: GuardsChecked | Listed) -> list[str]:
        for one in told:
            self.readiness.observed(NOW, one)
        return self.done


def test_a_guard_that_refuses_at_the_start_stops_it() -> None:
    received = Heard()
    assert received.receive(LISTED, FOREIGN) == ["stop"]
    assert received.readiness.refused_at_start == FOREIGN.refused


def test_no_worker_at_the_start_is_waited_for() -> None:
    received = Heard()
    assert received.receive(LISTED, NOBODY, NOBODY) == []
    assert not all(check.ok for check in received.readiness.checks())
    assert received.receive(GuardsChecked()) == ["ready"]


def test_a_guard_that_refuses_once_somebody_could_look_stops_it_all_the_same() -> None:
    assert Heard().receive(LISTED, NOBODY, FOREIGN) == ["stop"]


def test_a_guard_that_comes_to_refuse_later_does_not_stop_it() -> None:
    assert Heard().receive(LISTED, GuardsChecked(), FOREIGN, NOBODY) == ["ready"]


def test_a_hold_is_told_and_is_no_reason_to_be_unready() -> None:
    hold = Hold("mass death", "12 bundles died at once", 600.0)
    told = readiness((held(hold),), verbose=True)
    assert told.status == 200
    assert told.body == (
        b"[+]brake ok (on: mass death: 12 bundles died at once)\nreadyz check passed\n"
    )
    assert b"[+]brake ok\n" in readiness((held(None),), verbose=True).body
