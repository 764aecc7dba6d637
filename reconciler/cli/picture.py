"""The picture the live view shows, kept up to date from what goes through the loop.

A listener: observations and decisions flow in; the view reads. Cost is per change, whatever the
number of bundles. No drawing here.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Final

from typing_extensions import override

from reconciler.decide.track import Track
from reconciler.model.decisions import Braked, Decision, Judged, Phase, Vanished, Verdict
from reconciler.model.evidence import Containerd
from reconciler.model.ids import BundleKey
from reconciler.model.observations import GuardsChecked, NodeLooked, Observation, Refusal, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.ports import Listener
from reconciler.present import decisions, observations
from reconciler.present.events import LogEvent
from reconciler.present.formatting import URGENCY
from reconciler.present.records import Level, Record, Repeats
from reconciler.present.shapes import pod as pod_of

RECENT: Final = 8
_SHOWN_ELSEWHERE: Final = frozenset(
    {
        LogEvent.STEP_FINISHED,
        LogEvent.BRAKE_PULLED,
        LogEvent.BRAKE_RELEASED,
        LogEvent.GUARDS_CHECKED,
    }
)
STUCK: Final = frozenset({Result.BLOCKED, Result.FAILED})
"""Results after which a leftover stays, and is tried again."""

_STILL_BLOCKED: Final = frozenset({Phase.BLOCKED, Phase.DUE, Phase.CLEANING, Phase.HELD})


@dataclass(frozen=True, slots=True)
class RecentRecord:
    """Something that happened lately."""

    stamp: Stamp
    record: Record


@dataclass(slots=True)
class Picture(Listener):
    """What there is to see.

    Attributes:
        enforce: Whether what is due may be removed, so that a brake can hold it.
        counts: Bundles by verdict.
        leftovers: The leftovers, by name, as last judged.
        blocked: The last outcome of each leftover that stays.
        tally: Attempts by result so far.
        recent: The last few events.
        brakes: Brakes that are on, with the reason.
        refused: Reasons of guards that do not let us act.
        find: Is asked whose a bundle is; None for nobody.
        changed: Set with each change; whoever draws clears it.
    """

    enforce: bool = False
    counts: Counter[Verdict] = field(default_factory=Counter)
    leftovers: dict[BundleKey, Judged] = field(default_factory=dict)
    blocked: dict[BundleKey, Outcome] = field(default_factory=dict)
    tally: Counter[Result] = field(default_factory=Counter)
    recent: deque[RecentRecord] = field(default_factory=lambda: deque(maxlen=RECENT))
    brakes: dict[str, str] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    containerd: Containerd | None = None
    find: Callable[[BundleKey], Track | None] | None = None
    changed: bool = True
    _verdicts: dict[BundleKey, Verdict] = field(default_factory=dict)
    _repeats: Repeats = field(default_factory=Repeats)

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Take in what was learnt."""
        match observation:
            case NodeLooked(containerd=containerd) if containerd is not None:
                self.containerd = containerd
            case GuardsChecked(refused=refused):
                self.refused = refused
            case Outcome():
                self._ended(observation)
            case _:
                pass
        for record in observations.records(observation):
            self._remember(stamp, record)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Take in what was concluded."""
        match decision:
            case Judged():
                self._judged(decision)
            case Vanished(key=key):
                self._forget(key)
                self.blocked.pop(key, None)
            case Braked(brake=brake, on=on, detail=detail):
                self.brakes.pop(brake, None)
                if on:
                    self.brakes[brake] = detail
            case _:
                pass
        record = decisions.record(stamp, decision)
        if record is not None:
            self._remember(stamp, record)

    @property
    def total(self) -> int:
        """How many bundles there are."""
        return len(self._verdicts)

    def pod_of(self, key: BundleKey) -> str:
        """Name the pod and the container of a bundle; empty where that is not known."""
        track = None if self.find is None else self.find(key)
        pod = None if track is None else pod_of(track.labels)
        return "" if pod is None else pod.path

    def urgent(self, most: int) -> Sequence[Judged]:
        """The leftovers to show first: what is worked on, then what is stuck, then by time."""
        return nsmallest(
            most,
            self.leftovers.values(),
            key=lambda one: (
                URGENCY.get(self.phase_of(one), len(URGENCY)),
                one.due_at or 0.0,
                one.key,
            ),
        )

    def phase_of(self, one: Judged) -> Phase:
        """Give a leftover's phase now: a brake holds and releases all of them, and is told once."""
        if one.phase not in (Phase.DUE, Phase.HELD):
            return one.phase
        is_held = bool(self.brakes) and (self.enforce or one.phase is Phase.HELD)
        return Phase.HELD if is_held else Phase.DUE

    def cause_of(self, one: Judged) -> str:
        """Say why a leftover is not further: of what is held, the brake that is on."""
        if self.phase_of(one) is Phase.HELD:
            return "; ".join(f"{name}: {why}" for name, why in self.brakes.items())
        return "" if one.phase is Phase.HELD else one.cause

    def _judged(self, judged: Judged) -> None:
        self._forget(judged.key)
        verdict = judged.judgement.verdict
        self._verdicts[judged.key] = verdict
        self.counts[verdict] += 1
        if verdict is Verdict.LEFTOVER:
            self.leftovers[judged.key] = judged
        if judged.phase not in _STILL_BLOCKED:
            self.blocked.pop(judged.key, None)

    def _forget(self, key: BundleKey) -> None:
        before = self._verdicts.pop(key, None)
        if before is not None:
            self.counts[before] -= 1
        self.leftovers.pop(key, None)

    def _ended(self, outcome: Outcome) -> None:
        self.tally[outcome.result] += 1
        if outcome.result in STUCK:
            self.blocked[outcome.key] = outcome
        else:
            self.blocked.pop(outcome.key, None)

    def _remember(self, stamp: Stamp, record: Record) -> None:
        self.changed = True
        said = self._repeats.admit(stamp.mono, record)
        quiet = said is None or said.level is Level.DEBUG
        if not quiet and record.event not in _SHOWN_ELSEWHERE:
            self.recent.append(RecentRecord(stamp, record))
