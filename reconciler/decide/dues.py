"""When a leftover is due: grace, threshold, and the budgets that shorten the wait. Pure.

A budget never overrides a verdict: only leftovers come here, and two looks remain two looks.
"""

from collections.abc import Callable
from typing import Final

from reconciler.decide.budgets import Scope, SizeBudgets
from reconciler.decide.track import Track
from reconciler.model.decisions import BudgetKind, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policy

_NODE: Final[Scope] = ("node", "")
_EXCEEDED: Final = {
    (False, False): frozenset[BudgetKind](),
    (True, False): frozenset({BudgetKind.AGE}),
    (False, True): frozenset({BudgetKind.SIZE}),
    (True, True): frozenset(BudgetKind),
}


class Dues:
    """Places leftovers in time, and keeps the running totals that size budgets need.

    Args:
        life_of: Tells a leftover's last sign of life.
    """

    def __init__(self, life_of: Callable[[BundleKey], float]) -> None:
        self._sizes = SizeBudgets(life_of)

    def enter(self, track: Track, policy: Policy, node_limit: int | None) -> list[BundleKey]:
        """Count a leftover; return the bundles (maybe others) that are to go early now."""
        if track.counted_as != policy.name:
            self.leave(track)
            track.counted_as = policy.name
        size = track.look.size_bytes if track.look else 0
        marked: list[BundleKey] = []
        for where, limit in ((_scope(track), policy.max_size), (_NODE, node_limit)):
            self._sizes.put(where, track.key, size, fixed=policy.protect)
            marked += self._sizes.mark(where, limit)
        return marked

    def leave(self, track: Track) -> None:
        """Stop counting a bundle that is no leftover any more."""
        if track.counted_as is not None:
            self._sizes.drop(_scope(track), track.key)
            self._sizes.drop(_NODE, track.key)
            track.counted_as = None

    def due_at(self, track: Track, policy: Policy) -> float:
        """Monotonic time at which a leftover is due; a time that has passed if it is."""
        since = track.leftover_since or 0.0
        if track.due_under is policy or track.due_under == policy or self._is_marked(track):
            return since
        life = (track.life if track.due_life is None else track.due_life) or 0.0
        due = max(since + policy.grace, life + policy.threshold)
        if track.verdict is Verdict.ORPHANED:
            return due  # no budget is worth a living workload
        return due if policy.max_age is None else min(due, max(since, life + policy.max_age))

    def _is_marked(self, track: Track) -> bool:
        return track.counted_as is not None and (
            self._sizes.is_marked(_NODE, track.key)
            or self._sizes.is_marked(_scope(track), track.key)
        )


def _scope(track: Track) -> Scope:
    return track.counted_as or "", track.key.namespace


def exceeded(track: Track, policy: Policy, now: float) -> frozenset[BudgetKind]:
    """Name the budgets a running task exceeds."""
    age, size = policy.max_age, policy.max_size
    is_old = age is not None and track.age(now) >= age
    is_large = size is not None and track.look is not None and track.look.size_bytes > size
    return _EXCEEDED[is_old, is_large]
