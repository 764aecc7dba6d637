"""Decisions as people and programs read them: when, which bundle, what, why.

The shape is a promise (`replay -o json`): {"at_seconds","namespace","id","action","reason"}.
Requests for a look, a listing or a word of the witnesses are compared like everything else, but
they are not conclusions and not told here unless they differ.
"""

from typing import Final, assert_never

import msgspec

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
    Relist,
    Vanished,
)
from reconciler.model.ids import BundleKey

NOBODY: Final = BundleKey("", "")


class Told(msgspec.Struct, frozen=True):
    """One decision.

    Attributes:
        at_seconds: Seconds since the journal began.
        namespace, id: The bundle; empty where it concerns the node.
        action: ``judge``, ``clean``, ``kill``, ``finish``, ``vanish``, ``die``, ``over-budget``,
            ``brake``, ``release``, and where they differ ``look``, ``relist``, ``ask``.
        reason: Why, in words.
    """

    at_seconds: float
    namespace: str
    id: str
    action: str
    reason: str


def is_conclusion(decision: Decision) -> bool:
    """Tell whether a decision is told, or only asks for evidence."""
    return not isinstance(decision, LookAt | Relist | AskNode)


def tell(at: float, decision: Decision) -> Told:
    """Put a decision into words."""
    key = key_of(decision) or NOBODY
    action, reason = _words(decision)
    return Told(round(at, 6), key.namespace, key.id, action, reason)


def key_of(decision: Decision) -> BundleKey | None:
    """Name the bundle a decision is about; None where it concerns the node."""
    match decision:
        case Relist() | AskNode() | Braked():
            return None
        case _:
            return decision.key


def _words(decision: Decision) -> tuple[str, str]:  # noqa: C901, PLR0911 - one case each
    match decision:
        case Judged():
            return "judge", _judged(decision)
        case Clean() if decision.kill:
            return "kill", f"orphaned and due, attempt {decision.attempt}"
        case Clean():
            claimed = ", claimed by containerd" if decision.claimed else ""
            return "clean", f"leftover and due, attempt {decision.attempt}{claimed}"
        case FinishRemoval():
            return "finish", "a removal of ours was cut short"
        case Vanished():
            last = "never looked at" if decision.last is None else f"was {decision.last.value}"
            return "vanish", f"cleaned, {last}" if decision.cleaned else f"gone, {last}"
        case Died():
            return "die", f"abnormal end of {decision.cause}"
        case OverBudget():
            return "over-budget", f"running and over its {decision.kind.value} budget"
        case Braked():
            return "brake" if decision.on else "release", f"{decision.brake}: {decision.detail}"
        case LookAt():
            return "look", decision.why.value
        case Relist():
            return "relist", decision.why.value
        case AskNode():
            return "ask", decision.why
        case _:
            assert_never(decision)


def _judged(judged: Judged) -> str:
    judgement = judged.judgement
    words = [judgement.verdict.value]
    if judged.phase.value:
        words.append(judged.phase.value)
    if judged.cause:
        words.append(judged.cause)
    return f"{', '.join(words)}: {judgement.reason} (rule {judgement.rule})"


def span(seconds: float) -> str:
    """Put a time since the begin into words, exact enough to tell two apart: ``1h02m03.4s``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(abs(tenths), 600)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if tenths < 0 else ""
    tail = f"{rest / 10:04.1f}s"
    if hours:
        return f"{sign}{hours}h{minutes:02d}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else f"{sign}{rest / 10:.1f}s"
