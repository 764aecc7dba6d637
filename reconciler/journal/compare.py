"""Comparisons: what a replay is asked, kept small enough for journals of any size.

:class:`ReplayDiff` finds where a repeated run concludes otherwise; :class:`CleanupChanges`
remembers what was cleaned when, in the recording and now, for `replay --config`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.journal.replay import Difference, Turn, difference
from reconciler.model.decisions import Clean, Decision
from reconciler.model.ids import BundleKey, Identity
from reconciler.present.comparison import CleanupChange
from reconciler.present.decisions import key_of


def concerns(decision: Decision, only: BundleKey | None) -> bool:
    """Return whether a decision is about the one bundle that is asked for, if one is."""
    return only is None or key_of(decision) == only


class ReplayDiff:
    """Compares turn by turn.

    Attributes:
        first: The first difference.
        count: How many turns differ.
        compared: How many could be compared.
    """

    def __init__(self, only: BundleKey | None, *, in_order: bool) -> None:
        self._only = only
        self._in_order = in_order
        self.first: Difference | None = None
        self.count = 0
        self.compared = 0

    def take(self, turn: Turn) -> Difference | None:
        """Take in a turn; return its difference, if there is one."""
        if self._only is not None:
            turn = _narrowed(turn, self._only)
        self.compared += turn.comparable
        found = difference(turn, in_order=self._in_order)
        if found is not None:
            self.count += 1
            self.first = self.first or found
        return found


def _narrowed(turn: Turn, only: BundleKey) -> Turn:
    return Turn(
        turn.stamp,
        turn.observation,
        tuple(decision for decision in turn.recorded if key_of(decision) == only),
        tuple(decision for decision in turn.replayed if key_of(decision) == only),
        turn.comparable,
    )


@dataclass(slots=True)
class CleanupChanges:
    """What was cleaned in the recording and what is now. Grows with what is cleaned only."""

    only: BundleKey | None = None
    _fates: dict[tuple[BundleKey, Identity], CleanupChange] = field(default_factory=dict)

    def take(self, at: float, turn: Turn) -> None:
        """Take in a turn."""
        for clean in self._cleanups(turn.recorded):
            fate = self._fate(clean)
            fate.recorded = at if fate.recorded is None else fate.recorded
        for clean in self._cleanups(turn.replayed):
            fate = self._fate(clean)
            fate.replayed = at if fate.replayed is None else fate.replayed

    def _cleanups(self, decisions: tuple[Decision, ...]) -> Iterator[Clean]:
        for decision in decisions:
            if isinstance(decision, Clean) and not decision.kill and concerns(decision, self.only):
                yield decision

    def _fate(self, clean: Clean) -> CleanupChange:
        return self._fates.setdefault((clean.key, clean.identity), CleanupChange(clean.key))

    def __iter__(self) -> Iterator[CleanupChange]:
        """Give all, in order of time."""
        return iter(sorted(self._fates.values(), key=_when))


def _when(fate: CleanupChange) -> tuple[float, BundleKey]:
    times = [at for at in (fate.replayed, fate.recorded) if at is not None]
    return (times[0], fate.key)
