"""The line for node-problem-detector: never well by mistake, never longer than it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.model.layout import Layout
from reconciler.model.observations import SPOILS_LOOKING, Guard, Listed, Stamp
from reconciler.present import status_text
from reconciler.present.status import (
    Attempts,
    ConfigStatus,
    JournalStatus,
    RefusalStatus,
    Status,
    StuckStatus,
    gather,
)
from reconciler.present.status_text import DetectorState
from tests.present.test_every_value import status as everything_wrong
from tests.present.test_page import about, busy_world


@pytest.fixture(scope="module")
def busy() -> Status:
    """Two that run, one that waits, one that is blocked and one that is orphaned."""
    world, attempts = busy_world()
    return gather(world.engine, attempts, about(), world.stamp)


@pytest.fixture(scope="module")
def well(busy: Status) -> Status:
    """The same without what needs a person."""
    verdicts = busy.summary.verdicts | {"orphaned": 0, "abandoned": 0}
    return replace(busy, summary=replace(busy.summary, blocked={}, verdicts=verdicts))


def test_what_waits_and_what_lives_is_no_problem(well: Status) -> None:
    assert status_text.detector_answer(well) == (
        DetectorState.OK,
        "4 bundles, 1 leftover, no problem",
    )
    paced = replace(well, brake="max_per_minute: 120 in a minute")
    spoilt = replace(paced, journal=JournalStatus("/j", 3), internal_errors={"page": 1})
    assert status_text.detector_answer(spoilt).state is DetectorState.OK


def test_it_says_what_is_wrong_and_of_one_thing_why(busy: Status, well: Status) -> None:
    assert status_text.detector_answer(busy) == (DetectorState.NON_OK, "1 blocked; 1 orphaned")
    one = replace(well, summary=replace(well.summary, blocked={"mount busy": 2, "refused": 0}))
    assert status_text.detector_answer(one) == (DetectorState.NON_OK, "2 blocked: mount busy")
    held = replace(well, brake="mass death: 8 of 9 died")
    assert status_text.detector_answer(held) == (
        DetectorState.NON_OK,
        "held: mass death: 8 of 9 died",
    )
    hung = replace(well, containerd=replace(well.containerd, state="no answer", detail="timeout"))
    assert status_text.detector_answer(hung) == (
        DetectorState.NON_OK,
        "containerd does not answer: timeout",
    )
    leaked = well.summary.verdicts | {"abandoned": 2}
    shims = replace(well, summary=replace(well.summary, verdicts=leaked))
    assert status_text.detector_answer(shims) == (DetectorState.NON_OK, "2 abandoned")
    for wrong in (
        replace(well, summary=replace(well.summary, unlisted=1)),
        replace(well, config=ConfigStatus([], 0.0, ok=False, after_restart=[])),
        replace(well, stuck=[StuckStatus(7)]),
        replace(well, summary=replace(well.summary, wedged_shims=1)),
        replace(well, listing_trouble="the tree of sandboxes cannot be read"),
    ):
        assert status_text.detector_answer(wrong).state is DetectorState.NON_OK


def test_more_than_fits_is_counted(busy: Status) -> None:
    many = replace(busy, brake="mass death: all", stuck=[StuckStatus(n) for n in range(40)])
    state, line = status_text.detector_answer(many)
    assert state is DetectorState.NON_OK
    assert line == "1 blocked; 1 orphaned; held; " + "stuck; " * 6 + "34 more"


@pytest.mark.safety
def test_who_has_not_seen_everything_never_says_that_all_is_well(well: Status) -> None:
    """As "no answer" is never "no": a condition that is not known is neither True nor False."""
    assert status_text.detector_answer(replace(well, ready=False)).state is DetectorState.UNKNOWN
    for guard in Guard:
        refused = [RefusalStatus(guard.value, "it is so")]
        expected = DetectorState.UNKNOWN if guard in SPOILS_LOOKING else DetectorState.NON_OK
        assert status_text.detector_answer(replace(well, refused=refused)).state is expected, guard
        if guard not in SPOILS_LOOKING:
            observing = replace(well, refused=refused, mode="observe")
            assert status_text.detector_answer(observing).state is DetectorState.OK, guard


@given(st.text(max_size=200))
def test_a_line_is_one_line_and_fits(text: str) -> None:
    wrong = everything_wrong(text)
    nothing = replace(wrong.summary, blocked={}, verdicts={}, wedged_shims=0)
    plain = replace(wrong, refused=[], stuck=[], summary=nothing)
    known = replace(plain, containerd=replace(plain.containerd, state="up"))
    for one in (wrong, plain, replace(known, brake=""), replace(known, config=about().config)):
        line = status_text.detector_answer(one).line
        assert line.isprintable()
        assert len(line.encode()) <= status_text.LONGEST_LINE
    assert len(status_text.detector_unknown(text).line.encode()) <= status_text.LONGEST_LINE


def test_that_one_namespace_was_listed_ends_no_trouble_with_the_tree() -> None:
    attempts, stamp = Attempts(Layout()), Stamp(0.0, 0.0)
    for listed, is_trouble in (
        (Listed(answered=False, present=True), True),
        (Listed(answered=True, present=True, namespace="good"), True),
        (Listed(answered=True, present=True), False),
        (Listed(answered=False, present=True, namespace="bad"), True),
        (Listed(answered=True, present=True, sandboxes=False), True),
        (Listed(answered=True, present=True), False),
    ):
        attempts.observed(stamp, listed)
        assert bool(attempts.unread) is is_trouble, listed
