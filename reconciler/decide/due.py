"""When a leftover is due: grace, threshold, and the budgets that shorten the wait. Pure.

When debris is due is told by :mod:`reconciler.decide.debris_track`.

A budget never overrides a verdict: only leftovers come here, and two looks remain two looks, with
the time between them that the policy asks for.

A scope is what a size budget applies to: all leftovers of a namespace under one policy, or of the
node. Oldest first, each leftover is marked at most once, so the cost is per change. A scope keeps
its total; which leftovers it is made of is asked, and their order put up, only once it has exceeded
its limit, which most never do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Final

import msgspec

from reconciler.decide.queue import PriorityQueue
from reconciler.decide.track import ENDED, NOT_REPORTED, Track
from reconciler.model.decisions import BudgetKind, OverBudget, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policy

Scope = tuple[str, str]

BETWEEN_LOOKS: Final = 5.0
"""Seconds between the two looks at a leftover that somebody asked for, as with `clean`."""

_NODE: Final[Scope] = ("node", "")
_RUNNING: Final = Verdict.RUNNING
_EXCEEDED: Final = {
    (False, False): frozenset[BudgetKind](),
    (True, False): frozenset({BudgetKind.AGE}),
    (False, True): frozenset({BudgetKind.SIZE}),
    (True, True): frozenset(BudgetKind),
}


class _Tally(msgspec.Struct):
    count: int = 0
    total: int = 0
    marked: int = 0
    marks: set[BundleKey] = msgspec.field(default_factory=set)
    oldest: PriorityQueue | None = None


class SizeBudgets:
    """Running totals of leftovers per scope, and the leftovers marked for going early.

    Args:
        life_of: Gives a leftover's last sign of life.
        size_of: Gives the size with which a leftover is counted.
        unfixed: Lists the leftovers that are counted in a scope and may be marked.
    """

    def __init__(
        self,
        life_of: Callable[[BundleKey], float],
        size_of: Callable[[BundleKey], int],
        unfixed: Callable[[Scope], Iterable[BundleKey]],
    ) -> None:
        self._life_of = life_of
        self._size_of = size_of
        self._unfixed = unfixed
        self._tallies: dict[Scope, _Tally] = {}
        self._marks = 0

    def put(self, scope: Scope, key: BundleKey, size: int, *, fixed: bool) -> None:
        """Count one more leftover. ``fixed`` ones (protected) count but are never marked."""
        tally = self._tallies.get(scope)
        if tally is None:
            tally = self._tallies[scope] = _Tally()
        tally.count += 1
        tally.total += size
        if tally.oldest is not None and not fixed:
            tally.oldest.set(key, self._life_of(key))

    def drop(self, scope: Scope, key: BundleKey, size: int) -> None:
        """Stop counting one: it is no leftover any more, or is put again with another size."""
        tally = self._tallies[scope]
        tally.count -= 1
        tally.total -= size
        if key in tally.marks:
            tally.marks.discard(key)
            tally.marked -= size
            self._marks -= 1
        if tally.oldest is not None:
            tally.oldest.set(key, None)
        if not tally.count:
            del self._tallies[scope]

    def mark(self, scope: Scope, limit: int | None) -> list[BundleKey]:
        """Mark the oldest leftovers until the rest fits ``limit`` bytes; return the new ones."""
        tally = self._tallies.get(scope)
        fresh: list[BundleKey] = []
        if tally is None or limit is None or tally.total - tally.marked <= limit:
            return fresh
        oldest = tally.oldest
        if oldest is None:
            oldest = tally.oldest = PriorityQueue()
            for key in self._unfixed(scope):
                oldest.set(key, self._life_of(key))
        while tally.total - tally.marked > limit and oldest:
            life, key = oldest.pop()
            now = self._life_of(key)
            if now != life:  # it lived since
                oldest.set(key, now)
            else:
                tally.marks.add(key)
                tally.marked += self._size_of(key)
                fresh.append(key)
        self._marks += len(fresh)
        return fresh

    @property
    def has_marked(self) -> bool:
        """Whether any leftover is to go early; none is where no budget is exceeded."""
        return self._marks > 0

    def is_marked(self, scope: Scope, key: BundleKey) -> bool:
        """Return whether a leftover is to go early for this scope's sake."""
        tally = self._tallies.get(scope)
        return tally is not None and key in tally.marks


class DueTimes:
    """Places leftovers in time, and keeps the running totals that size budgets need.

    Args:
        tracks: Everything that is remembered about every bundle; read only.
    """

    def __init__(self, tracks: Mapping[BundleKey, Track]) -> None:
        self._tracks = tracks
        self._sizes = SizeBudgets(self._life_of, self._size_of, self._unfixed)

    def _life_of(self, key: BundleKey) -> float:
        return self._tracks[key].life or 0.0

    def _size_of(self, key: BundleKey) -> int:
        return self._tracks[key].counted_size

    def _unfixed(self, scope: Scope) -> Iterator[BundleKey]:
        for track in self._tracks.values():
            policy = track.counted_as
            if policy is not None and not policy.protect and scope in {_NODE, _scope(track)}:
                yield track.key

    def enter(self, track: Track, policy: Policy, node_limit: int | None) -> list[BundleKey]:
        """Count a leftover; return the bundles (maybe others) that are to go early now."""
        key, scope = track.key, (policy.name, track.key.namespace)
        size = track.look.size_bytes if track.look else 0
        if size != track.counted_size or not _is_counted_alike(track.counted_as, policy):
            self.leave(track)
            track.counted_as, track.counted_size = policy, size
            self._sizes.put(scope, key, size, fixed=policy.protect)
            self._sizes.put(_NODE, key, size, fixed=policy.protect)
        return self._sizes.mark(scope, policy.max_size) + self._sizes.mark(_NODE, node_limit)

    def leave(self, track: Track) -> None:
        """Stop counting a bundle that is no leftover any more."""
        if track.counted_as is not None:
            self._sizes.drop(_scope(track), track.key, track.counted_size)
            self._sizes.drop(_NODE, track.key, track.counted_size)
            track.counted_as = None

    def due_at(self, track: Track, policy: Policy) -> float:
        """Monotonic time at which a leftover is due; a time that has passed if it is."""
        waits_since = track.leftover_since or 0.0
        since = waits_since + policy.between_looks
        if track.due_under is policy or track.due_under == policy or self._is_marked(track):
            return since
        life = (track.life if track.due_life is None else track.due_life) or 0.0
        due = max(since, waits_since + policy.grace, life + policy.threshold)
        if track.verdict in ENDED:
            return due  # no budget and no request is worth a living workload
        if track.is_requested:
            due = min(due, since + min(policy.grace, BETWEEN_LOOKS))
        return due if policy.max_age is None else min(due, max(since, life + policy.max_age))

    def _is_marked(self, track: Track) -> bool:
        is_counted = self._sizes.has_marked and track.counted_as is not None
        return is_counted and (
            self._sizes.is_marked(_NODE, track.key)
            or self._sizes.is_marked(_scope(track), track.key)
        )


def _scope(track: Track) -> Scope:
    return "" if track.counted_as is None else track.counted_as.name, track.key.namespace


def _is_counted_alike(before: Policy | None, now: Policy) -> bool:
    """Return whether a leftover counts by one policy for the same as by another."""
    return before is now or (
        before is not None and (before.name, before.protect) == (now.name, now.protect)
    )


def newly_exceeded(track: Track, policy: Policy, now: float) -> list[OverBudget]:
    """Report the budgets that a running task exceeds and was not reported for, in order of name.

    It counts as reported from now on, until it falls below them or runs no more. Nothing else is
    done to it.
    """
    before, track.reported = track.reported, NOT_REPORTED
    if track.verdict is _RUNNING:
        track.reported = _exceeded(track, policy, now)
    if not track.reported:
        return []
    exceeded = sorted(track.reported - before, key=attrgetter("value"))
    return [OverBudget(track.key, budget) for budget in exceeded]


def _exceeded(track: Track, policy: Policy, now: float) -> frozenset[BudgetKind]:
    age, size = policy.max_age, policy.max_size
    is_old = age is not None and track.age(now) >= age
    is_large = size is not None and track.look is not None and track.look.size_bytes > size
    return _EXCEEDED[is_old, is_large]
