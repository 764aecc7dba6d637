"""Removals of ours that were cut short, and when to ask for their end. Pure.

A listing shows them by their hidden names; one that is at work this moment has such a name, too,
and is left to the hands that are on it. Each is asked for once per listing, as soon as the guards
let us, and never twice at a time.
"""

from collections.abc import Callable, Iterator

from reconciler.model.decisions import FinishRemoval
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hidden, Listed
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policy


class Unfinished:
    """Hidden directories found by the last listing, ours and others'."""

    def __init__(self) -> None:
        self._hidden: dict[BundleKey, Hidden] = {}
        self._wanted: dict[BundleKey, Hidden] = {}
        self._under_way: set[BundleKey] = set()

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        """All of them, in order of name."""
        return tuple(self._hidden[key] for key in sorted(self._hidden))

    @property
    def wanted(self) -> bool:
        """Whether an end is to be asked for."""
        return bool(self._wanted)

    @property
    def busy(self) -> bool:
        """Whether hands are on one of them."""
        return bool(self._under_way)

    def listed(self, listed: Listed, at_work: frozenset[Identity]) -> None:
        """Take in a listing; ``at_work`` are the bundles that hands are on."""
        for found in (self._hidden, self._wanted):
            for key in [key for key in found if listed.namespace in (None, key.namespace)]:
                del found[key]
        for hidden in listed.hidden:
            self._hidden[hidden.key] = hidden
            if hidden.ours and hidden.identity not in at_work:
                self._wanted[hidden.key] = hidden

    def begin(self, policy_of: Callable[[str], Policy]) -> Iterator[FinishRemoval]:
        """Ask for the end of those that nobody is at; call it only where the guards allow it.

        Args:
            policy_of: Tells what applies in a namespace.
        """
        for key in [key for key in self._wanted if key not in self._under_way]:
            if policy_of(key.namespace).objection():
                continue
            self._under_way.add(key)
            yield FinishRemoval(key, self._wanted.pop(key).identity)

    def ended(self, outcome: Outcome) -> None:
        """Hear that an attempt is over; what stayed is asked for again at the next listing."""
        self._under_way.discard(outcome.key)
        if outcome.result is Result.CLEANED:
            self._hidden.pop(outcome.key, None)
