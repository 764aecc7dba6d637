"""Records: what an observation or a decision says, as an event name and flat fields.

Pure: values flow in, values flow out; no clock, no logger. The log and the live view read the same
records. Every name is printable already (:func:`~reconciler.model.ids.escape`): no consumer ever
handles raw bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from reconciler.decide.decisions import (
    AskNode,
    Braked,
    Clean,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import Containerd, Facts
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    Doubt,
    DoubtKind,
    GuardsChecked,
    Hint,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Remembered,
    Stamp,
)
from reconciler.model.outcome import Outcome, Result, Step, StepResult
from reconciler.model.unread import UnreadProcess
from reconciler.supervision import Fault

Field = str | int | float | bool | None | list[str] | dict[str, str]


class Level(Enum):
    """How much a record matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The same as :mod:`logging` numbers it."""
        return {"debug": 10, "info": 20, "warning": 30, "error": 40}[self.value]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to tell.

    Attributes:
        event: ``verdict``, ``step``, ``cleaned``, ``blocked``, ...
        level: How much it matters.
        fields: What it says; names are printable.
        key: The bundle it is about, if one.
        repeats: What it says, to be compared with what was said before; None if each one counts.
        kind: What it is compared with: the last record of this kind about the same bundle.
        is_state: It tells what is so now, and not what happens on the way.
        is_detail: It is one of several that tell of the same change.
        is_end: It is the last thing that can be told of the bundle, which is gone.
    """

    event: str
    level: Level
    fields: dict[str, Field] = field(default_factory=dict)
    key: BundleKey | None = None
    repeats: tuple[str, ...] | None = None
    kind: str = ""
    is_state: bool = False
    is_detail: bool = False
    is_end: bool = False


_QUIET_DOUBTS = frozenset({DoubtKind.START, DoubtKind.TIMER, DoubtKind.ASKED, DoubtKind.NAMESPACE})
_ON_THE_WAY = frozenset({Phase.DUE, Phase.CLEANING})
_RETRIED = _ON_THE_WAY | {Phase.BLOCKED, Phase.HELD}
"""Phases a leftover passes again at each attempt; those on the way it is not in for long."""

_RESULT_LEVELS = {
    Result.CLEANED: Level.INFO,
    Result.BLOCKED: Level.WARNING,
    Result.FAILED: Level.ERROR,
    Result.HELD: Level.INFO,
    Result.PROTECTED: Level.INFO,
    Result.KILLED: Level.WARNING,  # a workload was ended, if only one that nobody managed
    Result.SKIPPED: Level.INFO,
}


def observed(observation: Observation) -> Iterator[Record]:
    """Tell what was learnt."""
    match observation:
        case Outcome():
            yield from _outcome(observation)
        case Doubt(kind=kind, namespace=namespace):
            level = Level.DEBUG if kind in _QUIET_DOUBTS else Level.WARNING
            yield Record("doubt", level, {"reason": kind.value, **_namespace(namespace)})
        case Listed():
            yield _listed(observation)
        case NodeLooked():
            yield from _node(observation)
        case GuardsChecked(refused=refused):
            yield Record(
                "guards",
                Level.WARNING if refused else Level.DEBUG,
                {"ok": not refused, "refused": [refusal.reason for refusal in refused]},
                repeats=tuple(refusal.reason for refusal in refused) or ("ok",),
                kind="guards",
                is_state=True,
            )
        case Hint(key=key, kind=kind):
            yield Record("hint", Level.DEBUG, {**_named(key), "why": kind.value}, key)
        case Remembered(key=key):
            yield Record("remembered", Level.DEBUG, _named(key), key)
        case Looked():
            pass  # what a look changed is told by the verdict
        case _:
            assert_never(observation)


def decided(stamp: Stamp, decision: Decision) -> Iterator[Record]:
    """Tell what was concluded; requests are told by what comes of them."""
    match decision:
        case Judged():
            yield _judged(stamp, decision)
        case Vanished(key=key, last=last, cleaned=cleaned):
            fields: dict[str, Field] = {
                **_named(key),
                "last": last.value if last else None,
                "cleaned": cleaned,
            }
            yield Record("vanished", Level.INFO, fields, key, is_end=True)
        case Died(key=key, cause=cause):
            yield Record("died", Level.WARNING, {**_named(key), "cause": cause}, key)
        case OverBudget(key=key, kind=kind):
            fields = {**_named(key), "budget": kind.value}
            news = (kind.value,)
            yield Record("over budget", Level.WARNING, fields, key, news, f"budget {kind.value}")
        case Braked(brake=brake, on=on, detail=detail):
            fields = {"brake": brake, "on": on, "detail": detail}
            yield Record("brake", Level.WARNING if on else Level.INFO, fields)
        case LookAt() | Relist() | AskNode() | Clean() | FinishRemoval():
            pass
        case _:
            assert_never(decision)


def watching(backend: str, reason: str) -> Record:
    """Tell which watch backend works now, and if it is not the wanted one, why and what to do."""
    level = Level.WARNING if reason else Level.INFO
    fields: dict[str, Field] = {"backend": backend, "problem": reason}
    return Record("watching", level, fields, None, (backend, reason), "watching", is_state=True)


def internal_error(fault: Fault) -> Record:
    """Tell that a part of ours has failed, and where; everything else goes on."""
    fields: dict[str, Field] = {
        "where": fault.where,
        "problem": fault.what,
        "frames": list(fault.frames),
    }
    return Record("internal error", Level.ERROR, fields)


def facts_fields(facts: Facts) -> dict[str, str]:
    """Spell out the row a verdict was made from."""
    return {
        name: str(fact.value) if isinstance(fact, Enum) else ("yes" if fact else "no")
        for name, fact in facts._asdict().items()
    }


def _named(key: BundleKey) -> dict[str, Field]:
    return {"namespace": key.namespace, "id": key.id}


def _namespace(namespace: str | None) -> dict[str, Field]:
    return {} if namespace is None else {"namespace": namespace}


def _judged(stamp: Stamp, judged: Judged) -> Record:
    judgement = judged.judgement
    due = None if judged.due_at is None else round(max(0.0, judged.due_at - stamp.mono), 3)
    fields: dict[str, Field] = {
        **_named(judged.key),
        "verdict": judgement.verdict.value,
        "previous": judged.previous.value if judged.previous else None,
        "phase": judged.phase.value,
        "cause": judged.cause,
        "rule": judgement.rule,
        "reason": judgement.reason,
        "due_in_seconds": due,
        "facts": {} if judged.facts is None else facts_fields(judged.facts),
    }
    known = judged.previous is judgement.verdict and judged.phase in _RETRIED
    return Record(
        "verdict",
        Level.WARNING if judgement.verdict is Verdict.ORPHANED else Level.INFO,
        fields,
        judged.key,
        (judgement.verdict.value, judged.phase.value, judged.cause) if known else None,
        judged.phase.value if judged.phase in _ON_THE_WAY else "verdict",
        is_state=judged.phase not in _ON_THE_WAY,
    )


def _outcome(outcome: Outcome) -> Iterator[Record]:
    for place, step in enumerate(outcome.steps):
        yield _step(outcome.key, step, place)
    reason = "" if outcome.reason is None else outcome.reason.value
    fields: dict[str, Field] = {
        **_named(outcome.key),
        "reason": reason,
        "detail": outcome.detail,
        "holders": [f"{who.pid} {who.name} ({who.how})" for who in outcome.holders],
        "seconds": round(outcome.seconds, 6),
        "mutations": sum(step.mutations for step in outcome.steps),
    }
    cleaned = outcome.result is Result.CLEANED
    yield Record(
        outcome.result.value,
        _RESULT_LEVELS[outcome.result],
        fields,
        outcome.key,
        None if cleaned else (outcome.result.value, reason, outcome.detail),
        "outcome",
    )


def _step(key: BundleKey, step: Step, place: int) -> Record:
    level = Level.INFO
    if step.result in (StepResult.WARNING, StepResult.BLOCKED):
        level = Level.WARNING
    elif step.result is StepResult.NOTHING and not step.detail:
        level = Level.DEBUG
    fields: dict[str, Field] = {
        **_named(key),
        "step": step.step,
        "result": step.result.value,
        "detail": step.detail,
        "seconds": round(step.seconds, 6),
        "mutations": step.mutations,
    }
    # A step that changed something is never withheld: the records must add up to what was done.
    repeats = None if step.mutations else (step.step, step.result.value, step.detail)
    return Record("step", level, fields, key, repeats, f"step {place}", is_detail=True)


def _listed(listed: Listed) -> Record:
    where = _namespace(listed.namespace)
    kind = f"listing {where.get('namespace', '')}"
    news: tuple[str, ...] | None = ("no answer",)
    if not listed.answered:
        event, level = "relist failed", Level.WARNING
    elif not listed.present and listed.namespace is None:
        event, level, news = "no state tree", Level.INFO, ("absent",)
    else:
        event, level, news = "relisted", Level.DEBUG, None
        where |= {
            "bundles": len(listed.bundles),
            "hidden": len(listed.hidden),
            "seconds": round(listed.seconds, 6),
        }
    return Record(event, level, where, None, news, kind, is_state=True)


def _node(heard: NodeLooked) -> Iterator[Record]:
    if heard.sweep is not None:
        answered = heard.sweep.answered
        fields: dict[str, Field] = {"answered": answered, "shims": len(heard.sweep.shims)}
        unread = [_unread(one) for one in heard.sweep.unread]
        if unread:
            fields["unread"] = unread
        unplaced = heard.sweep.unplaced
        if unplaced:
            fields["unplaced"] = f"pid {unplaced}"
        level = Level.DEBUG if answered and not unread and not unplaced else Level.WARNING
        said = (str(answered), *unread, str(bool(unplaced)))
        yield Record("sweep", level, fields, None, said, "sweep", is_state=True)
    if heard.containerd is not None:
        yield _containerd(heard.containerd)


def _unread(process: UnreadProcess) -> str:
    return f"pid {process.pid}" if process.key is None else f"pid {process.pid} ({process.key})"


def _containerd(containerd: Containerd) -> Record:
    fields: dict[str, Field] = {
        "state": containerd.state.value,
        "tasks": len(containerd.tasks),
        "pid": containerd.pid,
        "version": containerd.version,
        "detail": containerd.detail,
    }
    wedged = sorted(str(key) for key in containerd.wedged)
    if wedged:
        fields["wedged"] = [*wedged]
    return Record(
        "containerd",
        Level.WARNING if wedged else Level.INFO,
        fields,
        repeats=(containerd.state.value, containerd.version, *wedged),
        kind="containerd",
        is_state=True,
    )
