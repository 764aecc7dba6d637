"""Decisions as words: for the log and the live view, for `replay`, for the report. Pure.

The one place that has words for them: a decision of another kind gets a case in each ``match``
here. The shape of ``replay -o json`` is a promise: {"at_seconds","namespace","id","action",
"reason"}. Requests for a look, a listing or the node's witnesses are compared like everything else,
but they are not conclusions, and are told only where they differ.
"""

from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, assert_never

from reconciler.model.debris import Place
from reconciler.model.decisions import (
    AskNode,
    Braked,
    Clean,
    CleanDebris,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    TakeInventory,
    Vanished,
    Verdict,
    assert_requested,
)
from reconciler.model.evidence import Answer, Facts
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Stamp
from reconciler.present.envelope import Shape
from reconciler.present.events import LogEvent
from reconciler.present.records import Field, Level, Mark, MarkKind, Record, named

NOBODY: Final = BundleKey("", "")

_ON_THE_WAY: Final = frozenset({Phase.DUE, Phase.CLEANING})
_RETRIED: Final = _ON_THE_WAY | {Phase.BLOCKED, Phase.HELD}
"""Phases a leftover passes again at each attempt; those on the way it is not in for long."""

_STAYS: Final = frozenset({Phase.BLOCKED, Phase.PROTECTED, Phase.HELD})

_WITNESSES: Final = {
    "identifier": "name",
    "helper": "shim helper",
    "task": "containerd",
    "members": "its pod",
}
"""What a fact is called where it is told by witness, if not as it is."""


class DecisionSummary(Shape, frozen=True, kw_only=True):
    """One decision.

    Attributes:
        at_seconds: Seconds since the journal began.
        namespace, id: The bundle; none where it concerns the node.
        action: ``judge``, ``clean``, ``kill``, ``finish``, ``clean-debris``, ``vanish``, ``die``,
            ``over-budget``, ``brake``, ``release``, and where they differ ``look``, ``relist``,
            ``ask``, ``inventory``.
        reason: Why, in words.
    """

    at_seconds: float
    namespace: str = ""
    id: str = ""
    tree: str = ""
    action: str
    reason: str


class _Words(NamedTuple):
    """What is decided and why, and what kind of mark the report makes of it.

    None for what the report shows by itself.
    """

    action: str
    reason: str
    kind: MarkKind | None = None


def is_conclusion(decision: Decision) -> bool:
    """Return whether a decision is told, or only asks for evidence."""
    return not isinstance(decision, LookAt | Relist | AskNode | TakeInventory)


def key_of(decision: Decision) -> BundleKey | None:
    """Name the bundle a decision is about; None where it concerns the node."""
    match decision:
        case Relist() | AskNode() | TakeInventory() | CleanDebris() | Braked():
            return None
        case _:
            return decision.key


def summary(at: float, decision: Decision) -> DecisionSummary:
    """Tell a decision; ``at`` counts seconds since the journal began."""
    key = key_of(decision) or NOBODY
    words = _words(decision)
    return DecisionSummary(
        at_seconds=round(at, 6),
        namespace=key.namespace,
        id=key.id,
        tree=key.tree,
        action=words.action,
        reason=words.reason,
    )


def mark(decision: Decision) -> Mark | None:
    """Mark a decision on the report, in the words of `replay`; None for what shows by itself."""
    action, reason, kind = _words(decision)
    key = key_of(decision)
    if kind is None:
        return None
    if kind == "node" and key is not None:
        return Mark(kind, f"{action} {key}: {reason}")
    return Mark(kind, f"{action}: {reason}", key)


def _words(  # noqa: C901, PLR0911, PLR0912 - one case each
    decision: Decision,
) -> _Words:
    match decision:
        case Judged():
            return _Words("judge", _judged(decision))
        case Clean(kill=True, attempt=attempt):
            return _Words("kill", f"orphaned and due, attempt {attempt}", "clean")
        case Clean(shim=True, attempt=attempt):
            return _Words("end-shim", f"abandoned and due, attempt {attempt}", "clean")
        case Clean(attempt=attempt):
            claimed = ", claimed by containerd" if decision.claimed else ""
            return _Words("clean", f"leftover and due, attempt {attempt}{claimed}", "clean")
        case CleanDebris(places=places):
            return _Words("clean-debris", _batch(places), "node")
        case FinishRemoval():
            return _Words("finish", "a removal of ours was cut short", "node")
        case Vanished():
            last = "never looked at" if decision.last is None else f"was {decision.last.value}"
            return _Words("vanish", f"cleaned, {last}" if decision.cleaned else f"gone, {last}")
        case Died(cause=cause):
            return _Words("die", f"abnormal end of {cause.value}", "death")
        case OverBudget(kind=kind):
            why = f"running and over its {kind.value} budget"
            return _Words("over-budget", why, "budget")
        case Braked():
            why = f"{decision.brake}: {decision.detail}"
            return _Words("brake" if decision.on else "release", why, "node")
        case LookAt(why=why) | Relist(why=why):
            return _Words("look" if isinstance(decision, LookAt) else "relist", why.value)
        case AskNode():
            return _Words("ask", decision.why)
        case TakeInventory():
            return _Words("inventory", "what lies outside of bundles")
        case _:
            assert_never(decision)


def _batch(places: tuple[Place, ...]) -> str:
    if len(places) == 1:
        return str(places[0].key)
    return f"{len(places)} of kind {places[0].key.kind.value}" if places else "nothing"


def _judged(judged: Judged) -> str:
    judgement = judged.judgement
    parts = (judgement.verdict.value, judged.phase.value, judged.cause)
    return f"{', '.join(filter(None, parts))}: {judgement.reason} (rule {judgement.rule})"


# ---------------------------------------------------------------------- for the log


def record(stamp: Stamp, decision: Decision, *, observed: bool = False) -> Record | None:
    """Write what was concluded as a record; requests are told by what comes of them.

    Args:
        stamp: When.
        decision: What was concluded.
        observed: Its bundle is only observed: nothing will come of a verdict.
    """
    match decision:
        case Judged():
            return _verdict(stamp, decision, observed=observed)
        case Vanished(key=key, last=last, cleaned=cleaned):
            fields: dict[str, Field] = {"last": last.value if last else None, "cleaned": cleaned}
            return Record(
                LogEvent.BUNDLE_VANISHED, Level.DEBUG, named(key) | fields, key, is_end=True
            )
        case Died(key=key, cause=cause):
            fields = {**named(key), "cause": cause.value}
            return Record(LogEvent.TASK_DIED, Level.WARNING, fields, key)
        case OverBudget(key=key, kind=kind):
            fields = {**named(key), "budget": kind.value}
            news, what = (kind.value,), f"budget {kind.value}"
            return Record(LogEvent.BUDGET_EXCEEDED, Level.WARNING, fields, key, news, what)
        case Braked(brake=brake, on=on, detail=detail):
            fields = {"brake": brake, "detail": detail}
            pulled, released = LogEvent.BRAKE_PULLED, LogEvent.BRAKE_RELEASED
            return Record(pulled if on else released, Level.WARNING if on else Level.INFO, fields)
        case _:
            assert_requested(decision)
            return None


def _verdict(stamp: Stamp, judged: Judged, *, observed: bool) -> Record:
    judgement = judged.judgement
    due = None if judged.due_at is None else round(max(0.0, judged.due_at - stamp.mono), 3)
    fields: dict[str, Field] = {
        **named(judged.key),
        "verdict": judgement.verdict.value,
        "previous": judged.previous.value if judged.previous else None,
        "phase": judged.phase.value,
        "cause": judged.cause,
        "rule": judgement.rule,
        "reason": judgement.reason,
        "due_in_seconds": due,
        "facts": {} if judged.facts is None else facts_of(judged.facts),
    }
    known = judged.previous is judgement.verdict and judged.phase in _RETRIED
    return Record(
        LogEvent.BUNDLE_JUDGED,
        _level(judged, observed=observed),
        fields,
        judged.key,
        (judgement.verdict.value, judged.phase.value, judged.cause) if known else None,
        judged.phase.value if judged.phase in _ON_THE_WAY else "verdict",
        is_state=judged.phase not in _ON_THE_WAY,
    )


def _level(judged: Judged, *, observed: bool) -> Level:
    """Say how much a verdict matters.

    1. A workload that nobody manages, a shim that nobody needs: somebody should look.
    2. A leftover that stays, because of a rule or a blocker, or because it is only observed; and
       what is no bundle at all: worth a line.
    3. A leftover on its way to removal: the line about its end is the one that counts.
    4. All else is healthy, comes and goes, and is nobody's news.
    """
    match judged.judgement.verdict:
        case Verdict.ORPHANED | Verdict.ABANDONED:
            return Level.WARNING
        case Verdict.FOREIGN:
            return Level.INFO
        case Verdict.LEFTOVER if observed or judged.phase in _STAYS:
            return Level.INFO
        case _:
            return Level.DEBUG


# ---------------------------------------------------------------------- facts


def facts_of(facts: Facts) -> dict[str, str]:
    """Spell out the row a verdict was made from; few rows have records, or are of sandboxes."""
    return dict(_spelt(facts))


@lru_cache(1024)
def _spelt(facts: Facts) -> dict[str, str]:
    """Spell out a row once for all bundles that have it: a row is its words, and no more."""
    row = facts._asdict()
    if facts.recorded is Answer.NONE:
        del row["recorded"]
    if facts.members is None:
        del row["members"]
    return {
        name: str(fact.value) if isinstance(fact, Enum) else ("yes" if fact else "no")
        for name, fact in row.items()
    }


def evidence(facts: Facts) -> dict[str, str]:
    """Put facts into words, by witness."""
    said = {**facts_of(facts), "identifier": "valid" if facts.identifier else "invalid"}
    return {_WITNESSES.get(name, name): value for name, value in said.items()}
