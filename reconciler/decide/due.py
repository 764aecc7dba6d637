"""When a leftover is due: grace, threshold, and the budgets that shorten the wait. Pure.

A budget never overrides a verdict: only leftovers come here, and two looks remain two looks, with
the time between them that the policy asks for.

A scope is what a size budget applies to: all leftovers of a namespace under one policy, or of the
node. Oldest first, each leftover is marked at most once, so the cost is per change. Their order is
put up only once a scope has exceeded its limit, which most never do.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from reconciler.decide.queue import PriorityQueue
from reconciler.decide.track import ENDED, Track
from reconciler.model.decisions import BudgetKind
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policy

Scope = tuple[str, str]

BETWEEN_LOOKS: Final = 5.0
"""Seconds between the two looks at a leftover that somebody asked for, as with `clean`."""

_NODE: Final[Scope] = ("node", "")
_EXCEEDED: Final = {
    (False, False): frozenset[BudgetKind](),
    (True, False): frozenset({BudgetKind.AGE}),
    (False, True): frozenset({BudgetKind.SIZE}),
    (True, True): frozenset(BudgetKind),
}


class _Tally(msgspec.Struct):
    total: int = 0
    marked: int = 0
    sizes: dict[BundleKey, int] = msgspec.field(default_factory=dict)
    marks: set[BundleKey] = msgspec.field(default_factory=set)
    fixed: set[BundleKey] = msgspec.field(default_factory=set)
    oldest: PriorityQueue | None = None

    def sort(self, life_of: Callable[[BundleKey], float]) -> PriorityQueue:
        """Put up the order of all that may still be marked."""
        self.oldest = PriorityQueue()
        for key in self.sizes.keys() - self.marks - self.fixed:
            self.oldest.set(key, life_of(key))
        return self.oldest


class SizeBudgets:
    """Running totals of leftovers per scope, and the leftovers marked for going early.

    Args:
        life_of: Gives a leftover's last sign of life.
    """

    def __init__(self, life_of: Callable[[BundleKey], float]) -> None:
        self._life_of = life_of
        self._tallies: dict[Scope, _Tally] = {}

    def put(self, scope: Scope, key: BundleKey, size: int, *, fixed: bool) -> None:
        """Count a leftover. ``fixed`` ones (protected) count but are never marked."""
        tally = self._tallies.get(scope)
        if tally is not None and key in tally.sizes:
            if tally.sizes[key] == size and (key in tally.fixed) == fixed:
                return
            self.drop(scope, key)
            tally = self._tallies.get(scope)
        if tally is None:
            tally = self._tallies[scope] = _Tally()
        tally.sizes[key] = size
        tally.total += size
        if fixed:
            tally.fixed.add(key)
        elif tally.oldest is not None:
            tally.oldest.set(key, self._life_of(key))

    def drop(self, scope: Scope, key: BundleKey) -> None:
        """Stop counting a bundle that is no leftover any more."""
        tally = self._tallies.get(scope)
        if tally is None or key not in tally.sizes:
            return
        size = tally.sizes.pop(key)
        tally.total -= size
        if key in tally.marks:
            tally.marks.discard(key)
            tally.marked -= size
        tally.fixed.discard(key)
        if tally.oldest is not None:
            tally.oldest.set(key, None)
        if not tally.sizes:
            del self._tallies[scope]

    def mark(self, scope: Scope, limit: int | None) -> list[BundleKey]:
        """Mark the oldest leftovers until the rest fits ``limit`` bytes; return the new ones."""
        tally = self._tallies.get(scope)
        fresh: list[BundleKey] = []
        if tally is None or limit is None or tally.total - tally.marked <= limit:
            return fresh
        oldest = tally.sort(self._life_of) if tally.oldest is None else tally.oldest
        while tally.total - tally.marked > limit and oldest:
            life, key = oldest.pop()
            now = self._life_of(key)
            if now != life:  # it lived since
                oldest.set(key, now)
            else:
                tally.marks.add(key)
                tally.marked += tally.sizes[key]
                fresh.append(key)
        return fresh

    def is_marked(self, scope: Scope, key: BundleKey) -> bool:
        """Return whether a leftover is to go early for this scope's sake."""
        tally = self._tallies.get(scope)
        return tally is not None and key in tally.marks


class DueTimes:
    """Places leftovers in time, and keeps the running totals that size budgets need.

    Args:
        life_of: Gives a leftover's last sign of life.
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
        since = (track.leftover_since or 0.0) + policy.between_looks
        if track.due_under is policy or track.due_under == policy or self._is_marked(track):
            return since
        life = (track.life if track.due_life is None else track.due_life) or 0.0
        grace_ends = (track.leftover_since or 0.0) + policy.grace
        due = max(since, grace_ends, life + policy.threshold)
        if track.verdict in ENDED:
            return due  # no budget and no request is worth a living workload
        if track.is_requested:
            due = min(due, since + min(policy.grace, BETWEEN_LOOKS))
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
