"""Observations as words: records for the log and the live view, marks for the report. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, assert_never

from reconciler.model.debris import DebrisCleaned, Inventory
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    CleanRequested,
    GuardsChecked,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    ReleaseRequested,
    Remembered,
    Resync,
    ResyncKind,
)
from reconciler.model.outcome import Outcome, Result, Step, StepResult
from reconciler.model.processes import UnreadProcess
from reconciler.present import debris, formatting
from reconciler.present.events import LogEvent
from reconciler.present.records import Field, Level, Mark, Record, named

_QUIET: Final = frozenset(
    {ResyncKind.START, ResyncKind.TIMER, ResyncKind.ASKED, ResyncKind.NAMESPACE}
)
"""Why the tree is listed again while nothing is wrong: said only to who wants every detail."""

_UNMARKED: Final = frozenset({ResyncKind.START, ResyncKind.TIMER})

_RESULTS: Final = {
    Result.CLEANED: (LogEvent.BUNDLE_CLEANED, Level.INFO),
    Result.BLOCKED: (LogEvent.BUNDLE_BLOCKED, Level.WARNING),
    Result.FAILED: (LogEvent.CLEANUP_FAILED, Level.ERROR),
    Result.HELD: (LogEvent.BUNDLE_HELD, Level.INFO),
    Result.PROTECTED: (LogEvent.BUNDLE_PROTECTED, Level.INFO),
    # A workload was ended, if only one that nobody managed.
    Result.KILLED: (LogEvent.WORKLOAD_KILLED, Level.WARNING),
    Result.SKIPPED: (LogEvent.BUNDLE_SKIPPED, Level.INFO),
}

_CONTAINERD_LEVELS: Final = {
    ContainerdState.UP: Level.INFO,
    ContainerdState.DOWN: Level.WARNING,
    ContainerdState.NONE: Level.WARNING,
    ContainerdState.SKIPPED: Level.INFO,
}


def records(observation: Observation) -> Iterator[Record]:  # noqa: C901 - one case each
    """Tell what was learnt."""
    match observation:
        case Outcome():
            yield from _outcome(observation)
        case Resync(kind=kind, namespace=namespace):
            level = Level.DEBUG if kind in _QUIET else Level.WARNING
            yield Record(
                LogEvent.RESYNC_STARTED, level, {"reason": kind.value, **_namespace(namespace)}
            )
        case Listed():
            yield _listed(observation)
        case NodeLooked():
            yield from _node(observation)
        case Inventory():
            yield _inventory(observation)
        case DebrisCleaned():
            yield from debris.records(observation)
        case GuardsChecked():
            yield _guards(observation)
        case Hint(key=key, kind=kind):
            yield Record(
                LogEvent.HINT_RECEIVED, Level.DEBUG, {**named(key), "why": kind.value}, key
            )
        case CleanRequested() | ReleaseRequested():
            yield _request(observation)
        case Remembered(key=key):
            yield Record(LogEvent.BUNDLE_REMEMBERED, Level.DEBUG, named(key), key)
        case Looked():
            pass  # what a look changed is told by the verdict
        case _:
            assert_never(observation)


def mark(observation: Observation) -> Mark | None:  # noqa: PLR0911 - one case each
    """Mark what was learnt on the report; None for what shows by itself."""
    match observation:
        case Outcome(key=key, result=result, reason=reason, detail=detail):
            because = "" if reason is None else f": {reason.value}"
            more = f" ({detail})" if detail else ""
            return Mark("outcome", f"{result.value}{because}{more}", key)
        case Hint(key=key, kind=kind) if kind is not HintKind.CHANGED:
            return Mark("event", kind.value, key)
        case Resync(kind=kind) if kind not in _UNMARKED:
            return Mark("node", kind.value)
        case NodeLooked(containerd=containerd) if containerd is not None:
            return Mark("node", f"containerd: {containerd.state.value}")
        case CleanRequested() | ReleaseRequested():
            return Mark("node", _asked(observation))
        case DebrisCleaned(results=results):
            return Mark("node", f"debris: {debris.tally(results)}")
        case (
            Hint()
            | Resync()
            | NodeLooked()
            | Inventory()
            | Listed()
            | Looked()
            | GuardsChecked()
            | Remembered()
        ):
            return None
        case _:
            assert_never(observation)


def _request(request: CleanRequested | ReleaseRequested) -> Record:
    """Tell who asked for what: whoever acts by hand is to be found again."""
    who: dict[str, Field] = {"uid": request.uid, "pid": request.pid}
    if isinstance(request, ReleaseRequested):
        return Record(LogEvent.RELEASE_REQUESTED, Level.WARNING, who)
    names = [str(key) for key in request.keys]
    debris = {"debris": [str(one.key) for one in request.places]} if request.places else {}
    return Record(LogEvent.CLEANUP_REQUESTED, Level.WARNING, {"bundles": names, **debris, **who})


def _asked(request: CleanRequested | ReleaseRequested) -> str:
    who = f"requested by uid {request.uid}, pid {request.pid}"
    if isinstance(request, ReleaseRequested):
        return f"release of the brakes {who}"
    what = formatting.plural(len(request.keys), "bundle")
    if request.places:
        what += f" and {formatting.plural(len(request.places), 'piece')} of debris"
    return f"cleaning of {what} {who}"


def watching(backend: str, reason: str) -> Record:
    """Tell which watch backend works now, and if it is not the wanted one, why and what to do."""
    level = Level.WARNING if reason else Level.INFO
    fields: dict[str, Field] = {"backend": backend, "problem": reason}
    news = (backend, reason)
    return Record(LogEvent.WATCH_SWITCHED, level, fields, None, news, "watching", is_state=True)


def _namespace(namespace: str | None) -> dict[str, Field]:
    return {} if namespace is None else {"namespace": namespace}


def _outcome(outcome: Outcome) -> Iterator[Record]:
    for place, step in enumerate(outcome.steps):
        yield _step(outcome.key, step, place)
    reason = "" if outcome.reason is None else outcome.reason.value
    fields: dict[str, Field] = {
        **named(outcome.key),
        "reason": reason,
        "detail": outcome.detail,
        "holders": [formatting.holder(who) for who in outcome.holders],
        "seconds": round(outcome.seconds, 6),
        "mutations": sum(step.mutations for step in outcome.steps),
    }
    cleaned = outcome.result is Result.CLEANED
    event, level = _RESULTS[outcome.result]
    yield Record(
        event,
        level,
        fields,
        outcome.key,
        None if cleaned else (outcome.result.value, reason, outcome.detail),
        "outcome",
        is_end=cleaned,
    )


def _step(key: BundleKey, step: Step, place: int) -> Record:
    is_wrong = step.result in (StepResult.WARNING, StepResult.BLOCKED)
    level = Level.WARNING if is_wrong else Level.DEBUG
    fields: dict[str, Field] = {
        **named(key),
        "step": step.step,
        "result": step.result.value,
        "detail": step.detail,
        "seconds": round(step.seconds, 6),
        "mutations": step.mutations,
    }
    # A step that changed something is never withheld: the records must add up to what was done.
    repeats = None if step.mutations else (step.step, step.result.value, step.detail)
    kind = f"step {place}"
    return Record(LogEvent.STEP_FINISHED, level, fields, key, repeats, kind, is_detail=True)


def _guards(checked: GuardsChecked) -> Record:
    reasons = [refusal.reason for refusal in checked.refused]
    fields: dict[str, Field] = {"ok": not reasons, "refused": reasons}
    if checked.slow:
        fields["slow"] = [*checked.slow]
    level = Level.WARNING if reasons or checked.slow else Level.DEBUG
    news = (*reasons, "slow" if checked.slow else "in time")
    return Record(LogEvent.GUARDS_CHECKED, level, fields, None, news, "guards", is_state=True)


def _listed(listed: Listed) -> Record:
    where = _namespace(listed.namespace)
    kind = f"listing {where.get('namespace', '')}"
    news: tuple[str, ...] | None
    unread = formatting.unread(listed)
    if unread:
        event, level, news = LogEvent.LISTING_FAILED, Level.WARNING, (unread,)
        where |= {"problem": unread}
    elif not listed.present and listed.namespace is None:
        event, level, news = LogEvent.TREE_NOT_FOUND, Level.INFO, ("absent",)
    else:
        event, level, news = LogEvent.TREE_LISTED, Level.DEBUG, None
        where |= {
            "bundles": len(listed.bundles),
            "hidden": len(listed.hidden),
            "seconds": round(listed.seconds, 6),
        }
    return Record(event, level, where, None, news, kind, is_state=True)


def _inventory(taken: Inventory) -> Record:
    """Tell how many places there are that no bundle explains; whether they are debris is judged."""
    counts = Counter(place.key.kind.value for place in taken.places)
    fields: dict[str, Field] = {
        "places": len(taken.places),
        **dict(sorted(counts.items())),
        "problem": "; ".join(taken.troubles),
        "seconds": round(taken.seconds, 6),
    }
    level = Level.WARNING if taken.troubles else Level.DEBUG
    event, said = LogEvent.INVENTORY_COUNTED, taken.troubles
    return Record(event, level, fields, None, said, "inventory", is_state=True)


def _node(received: NodeLooked) -> Iterator[Record]:
    if received.processes is not None:
        answered = received.processes.answered
        fields: dict[str, Field] = {"answered": answered, "shims": len(received.processes.shims)}
        unread = [_unread(one) for one in received.processes.unread]
        if unread:
            fields["unread"] = unread
        unplaced = received.processes.unplaced
        if unplaced:
            fields["unplaced"] = f"pid {unplaced}"
        level = Level.DEBUG if answered and not unread and not unplaced else Level.WARNING
        said = (str(answered), *unread, str(bool(unplaced)))
        kind = "process scan"
        yield Record(LogEvent.PROCESSES_SCANNED, level, fields, None, said, kind, is_state=True)
    if received.containerd is not None:
        yield _containerd(received.containerd)


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
        LogEvent.CONTAINERD_ASKED,
        Level.WARNING if wedged else _CONTAINERD_LEVELS[containerd.state],
        fields,
        repeats=(containerd.state.value, containerd.version, *wedged),
        kind="containerd",
        is_state=True,
    )
