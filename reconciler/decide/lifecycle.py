"""The life cycle of a bundle as data: which event moves it from which phase to which. Pure.

A phase says how far a bundle is on its way to removal. :data:`TABLE` is total, as the verdict table
is: it names the next phase for each event in each phase. The engine moves a bundle by this table
alone, and whoever shows or counts phases reads what it says.

These are the ways through it:

1. Whatever is judged moves by its standing: not concerned, protected, waiting, paused, due. It may
   go from any of these to any other, because files, policies and budgets change under us.
2. Only what is due is held by a brake, and only what is due and not held is cleaned.
3. While a cleanup is under way nothing but its outcome moves the bundle: looks are out of date, and
   a listing may miss what our own worker has just renamed.
4. An outcome leads to the end, back to a pause before the next attempt, or out of the way: then
   another look or another policy judges the bundle anew.
5. What was cleaned stays so; the same name is another bundle then.

Debris, which is left outside of bundles, goes the same ways by the same table.
"""

from collections.abc import Mapping
from typing import Final

from reconciler.model.debris import DebrisResult
from reconciler.model.decisions import Phase
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.values import Word


class Event(Word):
    """What moves a bundle, each in a sentence about it."""

    NOT_CONCERNED = "it is no leftover, and nothing that may be ended"
    PROTECTED = "a rule protects it"
    EARLY = "its grace or its threshold is not over, and no budget is exceeded"
    PAUSED = "it is due, and the pause after a failed attempt is not over"
    DUE = "grace and threshold are over, or a budget is exceeded"
    BRAKED = "a brake was pulled"
    RELEASED = "the brake was released"
    BEGUN = "a cleanup of it was begun"
    CLEANED = "the cleanup has removed it"
    FAILED = "the cleanup is blocked or has failed, or the second look disagreed"
    RETURNED = "nothing was tried, or processes were ended: it must be judged anew"
    VANISHED = "it is not there any more"


_SAME: Final = {phase: phase for phase in Phase}
_FIXED: Final = frozenset({Phase.CLEANING, Phase.CLEANED})


def _judged(now: Phase) -> dict[Phase, Phase]:
    """Lead to one phase from all others, but for those that no judgement leaves."""
    return {before: before if before in _FIXED else now for before in Phase}


TABLE: Final[Mapping[Event, Mapping[Phase, Phase]]] = {
    Event.NOT_CONCERNED: _judged(Phase.NONE),
    Event.PROTECTED: _judged(Phase.PROTECTED),
    Event.EARLY: _judged(Phase.WAITING),
    Event.PAUSED: _judged(Phase.BLOCKED),
    Event.DUE: _judged(Phase.DUE),
    Event.BRAKED: {**_SAME, Phase.DUE: Phase.HELD},
    Event.RELEASED: {**_SAME, Phase.HELD: Phase.DUE},
    Event.BEGUN: {**_SAME, Phase.DUE: Phase.CLEANING},
    Event.CLEANED: dict.fromkeys(Phase, Phase.CLEANED),
    Event.FAILED: {**dict.fromkeys(Phase, Phase.BLOCKED), Phase.CLEANED: Phase.CLEANED},
    Event.RETURNED: {**_SAME, Phase.CLEANING: Phase.NONE},
    Event.VANISHED: _judged(Phase.NONE),
}
"""The next phase, for each event in each phase."""

OUTCOMES: Final[Mapping[Result, Event]] = {
    Result.CLEANED: Event.CLEANED,
    Result.BLOCKED: Event.FAILED,
    Result.FAILED: Event.FAILED,
    Result.HELD: Event.FAILED,
    Result.PROTECTED: Event.FAILED,
    Result.SKIPPED: Event.FAILED,
    Result.KILLED: Event.RETURNED,
}
"""What each result of an attempt means to the bundle."""


def event_of(outcome: Outcome | DebrisResult) -> Event:
    """Return what an outcome means to what it is about; one that was not tried has not failed."""
    is_tried = outcome.reason is not BlockReason.POLICY
    return OUTCOMES[outcome.result] if is_tried else Event.RETURNED
