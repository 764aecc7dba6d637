"""Pace: when the next inventory of what is left outside of bundles is to be taken. Pure.

One belongs to a listing of the whole tree, at most once in :data:`PAUSE`. What goes on for ever
keeps to that also where an inventory left out a kind, as where a tree could not be read just then.
A run of one pass looks again soon, a few times, and then ends without an answer for that kind.
"""

from typing import Final

from reconciler.model.debris import DebrisKind, Inventory
from reconciler.model.policy import DebrisAction, Policies

PAUSE: Final = 240.0
"""Seconds between two inventories, however often the tree must be listed."""

RETRIES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds from an inventory that left out a kind to the next one, in a run of one pass."""


class Pace:
    """Knows whether an inventory is wanted or under way, and when to ask anew for what it lacked.

    Args:
        is_one_pass: Whether all ends when nothing more is to be waited for.

    Attributes:
        wanted: Whether one is to be asked for.
        left_out: The kinds that are to be removed and that the last one did not look for.
    """

    def __init__(self, *, is_one_pass: bool) -> None:
        self._is_one_pass = is_one_pass
        self._misses = 0  # inventories in a row that left out such kinds
        self._asked_at = float("-inf")
        self._under_way = False
        self.wanted = False
        self.left_out: tuple[DebrisKind, ...] = ()

    def listed(self, now: float) -> None:
        """Take note that the whole tree was listed."""
        self.wanted = self.wanted or now - self._asked_at >= PAUSE

    @property
    def pending(self) -> bool:
        """Whether an inventory is under way, or still to be asked for."""
        return self.wanted or self._under_way or self.retry_at is not None

    def ask(self, now: float) -> bool:
        """Return whether an inventory is to be taken now."""
        if self._under_way or not self.wanted:
            return False
        self.wanted, self._under_way, self._asked_at = False, True, now
        return True

    def ask_again(self) -> None:
        """Want another one, unless one is under way."""
        self.wanted = self.wanted or not self._under_way

    def received(self, inventory: Inventory, policies: Policies) -> None:
        """Take note of an inventory, and whether it left out a kind that is to be removed."""
        self._under_way = False
        kinds, looked = kinds_to_clean(policies), inventory.looked
        self.left_out = tuple(kind for kind in kinds if kind not in looked)
        self._misses = self._misses + 1 if self.left_out else 0

    @property
    def retry_at(self) -> float | None:
        """When a run of one pass asks anew for a kind that was left out; None for not at all."""
        is_asked = self.wanted or self._under_way or not self._is_one_pass
        if is_asked or not 0 < self._misses <= len(RETRIES):
            return None
        return self._asked_at + RETRIES[self._misses - 1]

    def advance(self, now: float) -> None:
        """Let time pass: a kind that was left out may be asked for anew."""
        if self.retry_at is not None and self.retry_at <= now:
            self.ask_again()

    def unheard_at(self, at: float) -> float | None:
        """When to ask of a place of which the last inventory said nothing, at ``at`` or later.

        The next one may say nothing as well, so not at once. None in a run of one pass, which asks
        anew for whole kinds.
        """
        return None if self._is_one_pass else max(at, self._asked_at + PAUSE)

    @property
    def has_given_up(self) -> bool:
        """Whether nothing more is to be learnt of kinds that were left out."""
        return self._is_one_pass and self._misses > len(RETRIES)


def kinds_to_clean(policies: Policies) -> tuple[DebrisKind, ...]:
    """Give the kinds of which debris is removed, where no rule says otherwise."""
    asked_for = policies.debris_kinds
    return tuple(
        kind
        for kind in DebrisKind
        if policies.debris_of(kind).action is DebrisAction.CLEAN
        and (asked_for is None or kind in asked_for)
    )
