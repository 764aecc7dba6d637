"""A place over time: what is remembered of one piece of debris, and how it is shown. Pure."""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Final

from reconciler.decide.cleanups import Hold
from reconciler.decide.debris_verdicts import DebrisJudgement, DebrisVerdict
from reconciler.decide.lifecycle import TABLE, Event
from reconciler.model.debris import DebrisKind, Place
from reconciler.model.decisions import Phase
from reconciler.model.evidence import Answer
from reconciler.model.policy import Policy

_EVIDENCE: Final = frozenset({DebrisKind.SHIM_SOCKET, DebrisKind.WORK_DIR})
"""Kinds that show a cgroup of their name to be a container's and not an administrator's."""


@dataclass(slots=True)
class PlaceTrack:
    """One place over time. Monotonic seconds throughout.

    Attributes:
        judgement: What the last inventory that could tell made of it.
        since: When the first inventory began that found it debris, none after it saying otherwise;
            None if the last one did not.
        confirmed: When the last one of these began.
        looks: How many there were of these, each another inventory.
        judged_by: The number of the inventory that was judged last.
        life: Its last sign of life; where nothing tells, when it was first found.
        phase, cause: How far it is on its way to removal, and why it is not further.
        attempts: Failed attempts on it.
        retry_at: Not before, after a failed attempt.
        number: Its number for the brake, once it was begun.
    """

    judgement: DebrisJudgement
    life: float
    since: float | None = None
    confirmed: float = 0.0
    looks: int = 0
    judged_by: int = 0
    phase: Phase = Phase.NONE
    cause: str = ""
    attempts: int = 0
    retry_at: float = 0.0
    number: int = 0

    @property
    def place(self) -> Place:
        """What was found."""
        return self.judgement.place

    def shows_one_of(self, groups: Set[tuple[str, str]]) -> bool:
        """Return whether it shows one of these cgroups, by namespace and id, to be a container's.

        Without it that would be unknown for ever, so it stays until the group has gone.
        """
        place = self.place
        return place.key.kind in _EVIDENCE and (place.namespace, place.id) in groups

    def move(self, event: Event, cause: str = "") -> None:
        """Go where an event leads."""
        self.phase, self.cause = TABLE[event][self.phase], cause

    def judge(self, judgement: DebrisJudgement, since: float, number: int) -> None:
        """Take in what the inventory of this number, begun at ``since``, makes of it."""
        is_another, self.judged_by = number != self.judged_by, number
        self.judgement = judgement
        if judgement.verdict is not DebrisVerdict.DEBRIS:
            self.doubt()
            return
        if self.since is None:
            self.since = since
        self.confirmed = since
        self.looks += is_another or not self.looks

    def doubt(self) -> None:
        """Begin its wait anew: it is not debris, or not for certain."""
        self.since, self.looks = None, 0

    def grace_ends(self, policy: Policy) -> float | None:
        """When its grace is over; None while it is not debris."""
        return None if self.since is None else self.since + max(policy.grace, policy.between_looks)

    def asks_at(self, policy: Policy) -> float | None:
        """When another inventory may end its wait; None if that was, or nothing waits."""
        at = self.grace_ends(policy)
        is_confirmed = at is None or (self.looks > 1 and self.confirmed >= at)
        return None if is_confirmed or self.phase is not Phase.WAITING else at

    def due_at(self, policy: Policy) -> float | None:
        """When it is due at the earliest; None while it is not debris."""
        at = self.grace_ends(policy)
        return None if at is None else max(at, self.life + policy.threshold)

    def is_due(self, policy: Policy, now: float) -> bool:
        """Return whether two inventories, its grace apart, found it debris, and it is old enough.

        Nothing shortens that: not its age, no budget and no request.
        """
        grace_ends, due_at = self.grace_ends(policy), self.due_at(policy)
        if grace_ends is None or due_at is None:
            return False
        return self.looks > 1 and self.confirmed >= grace_ends and now >= due_at


def groups_to_go(
    tracks: Iterable[PlaceTrack], objection: Callable[[Place], str]
) -> frozenset[tuple[str, str]]:
    """Name the cgroups that are there and may be removed once they are debris for certain."""
    places = (one.place for one in tracks)
    groups = (one for one in places if one.key.kind is DebrisKind.CGROUP)
    return frozenset((one.namespace, one.id) for one in groups if not objection(one))


@dataclass(frozen=True, slots=True)
class DebrisView:
    """A place as it is shown.

    Attributes:
        place: What was found.
        verdict: What it is.
        reason: Why, in one line.
        age: Seconds since its last sign of life; None where nothing tells.
        task: Whether containerd knows a task of its name.
        phase, cause: How far it is on its way to removal, and why it is not further.
        policy: Name of the rule that applies.
        objection: Why it is not removed when it is due; empty if it is.
        due_in_seconds: 0 if due, None if no time is known.
        attempts: Failed attempts so far.
        debris_for: Seconds for which it has been found debris; None if it is not.
    """

    place: Place
    verdict: DebrisVerdict
    reason: str
    age: float | None
    task: Answer = Answer.NONE
    phase: Phase = Phase.NONE
    cause: str = ""
    policy: str = ""
    objection: str = ""
    due_in_seconds: float | None = None
    attempts: int = 0
    debris_for: float | None = None


def view_of(  # noqa: PLR0913 - all that a view shows
    track: PlaceTrack,
    judgement: DebrisJudgement,
    policy: Policy,
    *,
    objection: str,
    hold: Hold | None,
    now: float,
) -> DebrisView:
    """Show a track.

    Args:
        track: The place.
        judgement: What it is by what the witnesses say now.
        policy: The one that applies.
        objection: Why it may not be removed, whatever it is.
        hold: The brake that is on; None for none, or where nothing would be removed anyway.
        now: Monotonic seconds.
    """
    phase, cause = track.phase, track.cause
    if hold is not None and phase is Phase.DUE:
        phase, cause = TABLE[Event.BRAKED][phase], f"{hold.brake}: {hold.detail}"
    times = {Phase.WAITING: track.due_at(policy), Phase.BLOCKED: track.retry_at, Phase.DUE: now}
    at = times.get(phase)
    return DebrisView(
        place=judgement.place,
        verdict=judgement.verdict,
        reason=judgement.reason,
        age=judgement.age,
        task=judgement.task,
        phase=phase,
        cause=cause,
        policy=policy.name,
        objection=objection,
        due_in_seconds=None if at is None else max(0.0, at - now),
        attempts=track.attempts,
        debris_for=None if track.since is None else max(0.0, now - track.since),
    )
