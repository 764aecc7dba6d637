"""Every decision and every observation has its words, and its mark on the report or none."""

import pytest

from reconciler.model.decisions import Decision
from reconciler.present import decisions, observations
from reconciler.present.records import MARKS
from tests.present.test_every_value import decisions as all_decisions
from tests.present.test_every_value import observations as all_observations
from tests.telemetry.test_logs import DECISIONS


@pytest.mark.parametrize("decision", [decision for decision, _ in DECISIONS])
def test_every_decision_is_told_with_its_reason(decision: Decision) -> None:
    told = decisions.summary(1.5, decision)
    assert told.at_seconds == 1.5
    assert told.action
    assert told.reason
    assert bool(told.id) == (decisions.key_of(decision) is not None)


def test_every_kind_of_mark_is_made_and_no_other() -> None:
    marks = [decisions.mark(one) for one in (*all_decisions("x"), *(d for d, _ in DECISIONS))]
    marks += [observations.mark(one) for one in all_observations("x")]
    made = [one for one in marks if one is not None]
    assert {one.kind for one in made} == set(MARKS)
    assert all(one.text for one in made)
    assert all((one.key is None) == (one.kind == "node") for one in made)
