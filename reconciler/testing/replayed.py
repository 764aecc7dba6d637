"""A replay as a value for tests: what was cleaned when, what came of each bundle, what differed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.journal import expect
from reconciler.journal.compare import ReplayDiff
from reconciler.journal.reader import Journal
from reconciler.journal.replay import Repeater, Turn
from reconciler.journal.what_if import WhatIf, enforcing
from reconciler.model.decisions import Clean, Judged, Vanished, Verdict
from reconciler.model.policy import Policies
from reconciler.present.comparison import Differing, describe
from reconciler.present.decisions import DecisionSummary, is_conclusion, summary


@dataclass(slots=True)
class Replayed:
    """What came of a replay. Times are seconds since the journal began.

    Attributes:
        observations: How many were played.
        summaries: Every conclusion, in order.
        differences: Where a plain replay decided otherwise.
        warnings: What the reader complained about.
        unmet: Expectations that were not met, one line each.
        cleaned: For each bundle (``NAMESPACE/ID``), when it was given to the cleaner.
        verdicts: For each bundle, the last verdict; absent once it is gone.
    """

    observations: int = 0
    summaries: list[DecisionSummary] = field(default_factory=list)
    differences: list[Differing] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    cleaned: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def take(self, at: float, turn: Turn) -> None:
        """Take in a turn."""
        self.observations += turn.observation is not None
        for decision in turn.replayed:
            if is_conclusion(decision):
                self.summaries.append(summary(at, decision))
            match decision:
                case Clean():
                    self.cleaned.setdefault(str(decision.key), []).append(at)
                case Judged():
                    self.verdicts[str(decision.key)] = decision.judgement.verdict
                case Vanished():
                    self.verdicts.pop(str(decision.key), None)
                case _:
                    pass


def replay(
    path: Path,
    policies: Policies | None = None,
    expectations: Iterable[expect.Expectation] = (),
    until: float | None = None,
) -> Replayed:
    """Replay a journal.

    Args:
        path: The journal.
        policies: Let these decide; None for the recorded ones, which are compared. If they only
            observe, they are asked what they would remove.
        expectations: What must come true; see :mod:`reconciler.journal.expect`.
        until: Seconds after the begin; with ``policies`` also beyond the end.

    Raises:
        BadJournalError: It is damaged.
    """
    result = Replayed()
    journal = Journal(path, result.warnings.append)
    begin = journal.header.mono
    end = None if until is None else begin + until
    watch = expect.Watch(tuple(expectations))
    likeness = ReplayDiff(None, in_order=not journal.header.redacted)
    player = Repeater() if policies is None else WhatIf(enforcing(policies))
    items = journal.items()
    turns = player.play(items) if isinstance(player, Repeater) else player.play(items, end)
    for turn in turns:
        if end is not None and turn.stamp.mono > end:
            break
        at = turn.stamp.mono - begin
        result.take(at, turn)
        watch.follow(at, turn)
        found = likeness.take(turn)
        if found is not None:
            result.differences.append(describe(found.recorded, found.replayed, at, begin, None))
    result.unmet = list(watch.failures())
    return result
