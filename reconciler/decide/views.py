"""Views: what is believed about one bundle, for people, `scan -o json` and the status page."""

from dataclasses import dataclass

from reconciler.decide.cleanups import Hold
from reconciler.decide.track import Track
from reconciler.model.decisions import Judgement, Phase
from reconciler.model.evidence import Facts, Look
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policy


@dataclass(frozen=True, slots=True)
class BundleView:
    """One bundle as the engine sees it.

    Attributes:
        key, look, facts, judgement: What was found and concluded.
        phase, cause: Where a leftover stands; ``held`` while a brake is on.
        policy: Name of the rule that applies.
        age_seconds: Time since the last sign of life.
        due_in_seconds: 0 if due, None if no time is known.
        attempts: Failed attempts so far.
        wedged: Its shim lives and gives containerd no answer.
    """

    key: BundleKey
    look: Look
    facts: Facts
    judgement: Judgement
    phase: Phase
    cause: str
    policy: str
    age_seconds: float
    due_in_seconds: float | None
    attempts: int
    wedged: bool = False


def view_of(  # noqa: PLR0913 - all that a view shows
    track: Track,
    facts: Facts,
    policy: Policy,
    *,
    hold: Hold | None,
    due_at: float,
    now: float,
    wedged: bool = False,
) -> BundleView | None:
    """Show a track; None before its first look."""
    if track.look is None or track.judgement is None:
        return None
    phase, cause = track.phase, track.cause
    if phase is Phase.DUE and policy.enforce and hold is not None:
        phase, cause = Phase.HELD, f"{hold.brake}: {hold.detail}"
    times = {Phase.WAITING: due_at, Phase.BLOCKED: track.retry_at, Phase.DUE: now}
    at = times.get(phase)
    return BundleView(
        key=track.key,
        look=track.look,
        facts=facts,
        judgement=track.judgement,
        phase=phase,
        cause=cause,
        policy=policy.name,
        age_seconds=track.age(now),
        due_in_seconds=None if at is None else max(0.0, at - now),
        attempts=track.attempts,
        wedged=wedged,
    )
