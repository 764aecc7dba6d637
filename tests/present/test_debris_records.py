"""What came of debris, as the log tells it: few places one by one, many alike in one line."""

import pytest
from msgspec.structs import replace

from reconciler.model.debris import (
    WHOLE_BATCH,
    DebrisCleaned,
    DebrisKind,
    Place,
    PlaceKey,
    results_of,
)
from reconciler.model.ids import NOWHERE
from reconciler.model.outcome import BlockReason, Result, Step, StepResult
from reconciler.present.events import LogEvent
from reconciler.present.observations import mark, records
from reconciler.present.records import Level

PLACES = tuple(
    Place(PlaceKey(DebrisKind.CGROUP, f"/ns/{n}"), NOWHERE, "ns", str(n)) for n in range(50)
)


def cleaned(result: Result, *, first: int = 0, end: int = 1) -> DebrisCleaned:
    return DebrisCleaned(results_of(PLACES[first:end], replace(WHOLE_BATCH, result=result)))


@pytest.mark.parametrize("result", Result)
def test_every_result_has_its_record(result: Result) -> None:
    (told,) = records(cleaned(result))
    assert told.event.value.startswith("debris.")
    assert (told.event is LogEvent.DEBRIS_CLEANED) == (
        result in (Result.CLEANED, Result.KILLED)  # a shim is ended, and is debris no more
    )
    assert (told.level is Level.ERROR) == (result is Result.FAILED)


def test_many_places_with_the_same_result_are_one_line() -> None:
    many, few = cleaned(Result.CLEANED, end=48), cleaned(Result.BLOCKED, first=48, end=50)
    both = DebrisCleaned(few.results + many.results)
    told = [(one.event, one.fields["path"], one.fields["places"]) for one in records(both)]
    blocks = [(LogEvent.DEBRIS_BLOCKED, "/ns/48", 1), (LogEvent.DEBRIS_BLOCKED, "/ns/49", 1)]
    assert told == [*blocks, (LogEvent.DEBRIS_CLEANED, "/ns/0", 48)]
    shown = mark(both)
    assert shown is not None
    assert shown.text == "debris: 2 blocked, 48 cleaned"


def test_what_was_changed_adds_up() -> None:
    step = Step("cgroup", StepResult.DONE, mutations=2)
    results = cleaned(Result.CLEANED, end=9).results
    (told,) = records(DebrisCleaned(tuple(replace(one, steps=(step,)) for one in results)))
    assert told.fields["mutations"] == 18


def test_what_stays_blocked_is_told_once() -> None:
    blocked = cleaned(Result.BLOCKED).results
    busy = tuple(replace(one, reason=BlockReason.MOUNT_BUSY) for one in blocked)
    (first,), (again,) = records(DebrisCleaned(busy)), records(DebrisCleaned(busy))
    assert first.repeats is not None
    assert first.repeats == again.repeats
    (other,) = records(DebrisCleaned(blocked))
    assert other.repeats != first.repeats
