"""Cleanups: which due leftovers are begun now. Brakes may only hold them back. Pure.

So are removals of ours that were cut short: a listing shows them by their hidden names.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from reconciler.decide.brakes import MassDeathBrake, RateBrake
from reconciler.decide.queue import PriorityQueue
from reconciler.model.decisions import Braked, FinishRemoval
from reconciler.model.evidence import ContainerdState
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hidden, Listed, Refusal
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies, Policy


class Hold(msgspec.Struct, frozen=True):
    """A brake that holds everything now, and when to ask again (None: when something changes)."""

    brake: str
    detail: str
    until: float | None


GUARDS: Final = "guards"
MASS_DEATH: Final = "mass death"
RATE: Final = "max_per_minute"
BRAKES: Final = (GUARDS, MASS_DEATH, RATE)
"""Every name of a hold."""

_BY_ITSELF: Final = "released"
_UNCHECKED: Final = Hold(GUARDS, "guards not checked yet", None)


class Cleanups:
    """The queue of due leftovers, oldest first, and the brakes before it."""

    def __init__(self) -> None:
        self.mass = MassDeathBrake()
        self._rate = RateBrake()
        self._ready = PriorityQueue()
        self._under_way: dict[BundleKey, int] = {}  # with its number for the brake
        self._refusal: Hold | None = _UNCHECKED
        self._hold: Hold | None = None
        self._reported: Hold | None = None
        self._released = _BY_ITSELF

    @property
    def hold(self) -> Hold | None:
        """The brake that is on, None if the way is free."""
        return self._hold

    @property
    def refused(self) -> bool:
        """Whether a guard refuses, or none was checked yet."""
        return self._refusal is not None

    @property
    def busy(self) -> bool:
        """Whether anything is under way or waits only for a free worker."""
        return bool(self._under_way) or (bool(self._ready) and self._hold is None)

    def guard(self, refused: tuple[Refusal, ...]) -> None:
        """Receive what the guards report; any refusal holds everything."""
        reasons = "; ".join(refusal.reason for refusal in refused)
        self._refusal = Hold(GUARDS, reasons, None) if refused else None

    def release(self, who: str) -> None:
        """Release the brakes and note who did; what guards refuse stays refused."""
        self.mass.release()
        self._rate.release()
        self._released = f"{_BY_ITSELF} by {who}"

    def queue(self, key: BundleKey, life: float) -> None:
        """Put a due leftover into the queue; ``life`` orders it, oldest first."""
        if key not in self._ready.at:
            self._ready.set(key, life)

    def withdraw(self, key: BundleKey) -> None:
        """Take a bundle out of the queue; nothing happens to one under way."""
        self._ready.set(key, None)

    def ended(self, key: BundleKey) -> None:
        """Take note that an attempt is over."""
        self._under_way.pop(key, None)

    def is_idle(self, policies: Policies) -> bool:
        """Return whether :meth:`begin` would begin nothing and change no brake.

        Nothing is due, too few have died for the brake, and that which is on is the one that
        listeners know: then time alone changes nothing.
        """
        return (
            self._refusal is self._hold is self._reported
            and not self._ready.at
            and self._released is _BY_ITSELF
            and self.mass.is_idle(policies.brakes)
        )

    def begin(
        self, now: float, policies: Policies, alive: int, containerd: ContainerdState
    ) -> tuple[list[BundleKey], list[Braked]]:
        """Take from the queue whatever may begin now.

        Returns:
            The bundles to begin with, and the brakes that changed.
        """
        self.mass.update(now, alive, containerd, policies.brakes)
        hold = self.stop(now, policies)
        begun: list[BundleKey] = []
        if not self._ready:
            return begun, self._change(hold)
        hold = hold or self._rate_hold(now, policies)
        while hold is None and len(self._under_way) < policies.parallel and self._ready:
            _, key = self._ready.pop()
            begun.append(key)
            self._under_way[key] = self._rate.begin(now)
            hold = self._rate_hold(now, policies) if self._ready else None
        return begun, self._change(hold)

    def stopped(self) -> str:
        """Say why nothing at all may be removed now; empty if something may."""
        if self._refusal is not None:
            return self._refusal.detail
        return f"{self.mass.deaths} bundles died at once" if self.mass.pulled else ""

    def objection(self, key: BundleKey, policies: Policies) -> str:
        """Say which brake holds a cleanup that was begun here and not sent yet; empty if none."""
        stopped = self.stopped()
        if stopped:
            return stopped
        number, limit = self._under_way.get(key), policies.brakes.max_per_minute
        if number is not None and not self._rate.allows(number, limit):
            return f"{limit} cleanups in the last minute"
        return ""

    def stop(self, now: float, policies: Policies) -> Hold | None:
        """Give the brake that holds all removals, of debris as well."""
        if self._refusal is not None:
            return self._refusal
        if self.mass.pulled:
            detail = f"{self.mass.deaths} bundles died at once"
            release_at = self.mass.release_at(policies.brakes) or now
            # While containerd stays silent past that time, ask again now and then.
            return Hold(MASS_DEATH, detail, max(release_at, now + policies.recheck))
        return None

    def _rate_hold(self, now: float, policies: Policies) -> Hold | None:
        limit = policies.brakes.max_per_minute
        free_at = self._rate.free_at(now, limit)
        if free_at is None:
            return None
        return Hold(RATE, f"{limit} cleanups in the last minute", free_at)

    def _change(self, hold: Hold | None) -> list[Braked]:
        self._hold = hold
        released, self._released = self._released, _BY_ITSELF
        if hold is _UNCHECKED or hold is self._reported:
            return []  # every run begins unchecked: no news
        before, self._reported = self._reported, hold
        if (before.brake if before else None) == (hold.brake if hold else None):
            return []
        changes = [Braked(before.brake, on=False, detail=released)] if before else []
        if hold:
            changes.append(Braked(hold.brake, on=True, detail=hold.detail))
        return changes


class Unfinished:
    """Hidden directories found by the last listing: what ours were cut short at is finished.

    One that is at work this moment has such a name, too, and is left to its worker. Each is asked
    for once per listing, as soon as the guards let us, and never twice at a time.

    Attributes:
        wanted: Those whose end is still to be asked for.
    """

    def __init__(self) -> None:
        self._hidden: dict[BundleKey, Hidden] = {}
        self.wanted: dict[BundleKey, Hidden] = {}
        self._under_way: set[BundleKey] = set()

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        """All of them, in order of name."""
        return tuple(self._hidden[key] for key in sorted(self._hidden))

    @property
    def busy(self) -> bool:
        """Whether a cleanup is under way on one of them."""
        return bool(self._under_way)

    def listed(self, listed: Listed, at_work: frozenset[Identity]) -> None:
        """Take in a listing; ``at_work`` are the bundles that are being cleaned."""
        for found in (self._hidden, self.wanted):
            for key in [key for key in found if listed.covers(key)]:
                del found[key]
        for hidden in listed.hidden:
            self._hidden[hidden.key] = hidden
            if hidden.ours and hidden.identity not in at_work:
                self.wanted[hidden.key] = hidden

    def begin(self, policy_of: Callable[[str], Policy]) -> Iterator[FinishRemoval]:
        """Ask for the end of those that nobody is at; call it only where the guards allow it.

        Args:
            policy_of: Gives what applies in a namespace.
        """
        for key in [key for key in self.wanted if key not in self._under_way]:
            if policy_of(key.namespace).objection():
                continue
            self._under_way.add(key)
            yield FinishRemoval(key, self.wanted.pop(key).identity)

    def ended(self, outcome: Outcome) -> None:
        """Take note that an attempt is over; what stayed is asked for again at the next listing."""
        self._under_way.discard(outcome.key)
        if outcome.result is Result.CLEANED:
            self._hidden.pop(outcome.key, None)
