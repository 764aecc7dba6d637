"""What if: the recorded world, another policy, and a cleaner that succeeds.

The engine is given the world as it was recorded, and fires its timers in virtual time. What
it would have cleaned is gone from then on, though the recording goes on showing it; what the
recorded run cleaned and this one would not have is still there, as it was last seen. Where the
recording shows why a cleanup would not have worked (a foreign mount), it does not work. Nothing is
known of how a live workload would have fared otherwise: only leftovers differ.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, assert_never

from msgspec.structs import replace

from reconciler.decide.engine import Engine
from reconciler.decide.foreign_mounts import foreign_mount
from reconciler.journal.lines import Given, Lost
from reconciler.journal.reader import Begun, Item
from reconciler.journal.replay import Turn
from reconciler.model.debris import (
    WHOLE_BATCH,
    DebrisCleaned,
    Inventory,
    Place,
    PlaceKey,
    results_of,
)
from reconciler.model.decisions import (
    AskNode,
    Clean,
    CleanDebris,
    Decision,
    LookAt,
    TakeInventory,
)
from reconciler.model.evidence import Containerd, Look, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    CleanRequested,
    GuardsChecked,
    Hint,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    ReleaseRequested,
    Remembered,
    Resync,
    ResyncKind,
    Seen,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies

_RELIST: Final = 300.0
_MOST_TURNS: Final = 1_000_000


class WhatIf:
    """Plays a journal's world to an engine with policies of its own, whatever was configured then.

    Attributes:
        engine: What decides.
        lost: How many records are known to be missing.
        refused: Whether the guards refused to the end, which holds every cleanup.
    """

    def __init__(self, policies: Policies) -> None:
        self.engine = Engine(policies)
        self.lost = 0
        self.refused = False
        self._looks: dict[BundleKey, Look] = {}
        self._still_there: dict[BundleKey, Look] = {}
        self._removed: dict[BundleKey, Identity] = {}
        self._word = NodeLooked(0.0, ProcessScan(), Containerd())
        self._taken = Inventory(0.0)
        self._gone: dict[PlaceKey, Identity] = {}
        self._left: dict[PlaceKey, Place] = {}
        self._stamp: Stamp | None = None
        self._follow_up: deque[Observation] = deque()
        self._frozen = False

    def play(self, items: Iterable[Item], until: float | None = None) -> Iterator[Turn]:
        """Play everything, in order, to a monotonic time if one is given.

        Beyond the end of the journal the world stands still: this is how a snapshot tells what will
        be cleaned when.
        """
        for item in items:
            match item:
                case Begun():
                    pass
                case Lost():
                    self.lost += item.count
                case Given():
                    if until is not None and item.stamp.mono > until:
                        break
                    yield from self._fire_timers(item.stamp)
                    yield from self._live_through(item)
                case _:
                    assert_never(item)
        if until is not None:
            yield from self._stand_still(until)

    # ------------------------------------------------------------------ time

    def _fire_timers(self, stamp: Stamp) -> Iterator[Turn]:
        """Let the time pass up to a stamp; the wall clock goes along."""
        if self._stamp is None:
            self._stamp = stamp
        for _ in range(_MOST_TURNS):
            deadline = self.engine.deadline
            if deadline is None or deadline > stamp.mono:
                return
            mono = max(deadline, self._stamp.mono)
            self._stamp = Stamp(mono, stamp.wall - (stamp.mono - mono))
            yield from self._turns(self._stamp, None, self.engine.advance(self._stamp))

    def _stand_still(self, until: float) -> Iterator[Turn]:
        """Let the time pass beyond the end of the journal; looks and answers repeat themselves."""
        if self._stamp is None:
            return
        self._frozen = True
        while self._stamp.mono < until:
            mono = min(self._stamp.mono + _RELIST, until)
            then = Stamp(mono, self._stamp.wall + (mono - self._stamp.mono))
            yield from self._fire_timers(then)
            self._stamp = then
            seen = Resync(ResyncKind.TIMER)
            yield from self._turns(then, seen, self.engine.observe(then, seen))

    # ------------------------------------------------------------------ one turn

    def _live_through(self, given: Given) -> Iterator[Turn]:
        observation = None
        if given.observation is not None:
            observation = self._imagine(given.observation)
        replayed = [] if observation is None else self.engine.observe(given.stamp, observation)
        self._stamp = given.stamp
        turns = self._turns(given.stamp, observation, replayed)
        first = next(turns)
        yield replace(first, recorded=given.decisions)
        yield from turns

    def _turns(
        self, stamp: Stamp, observation: Observation | None, decisions: list[Decision]
    ) -> Iterator[Turn]:
        """Give a turn, and those that follow from it at once: outcomes and the looks after them."""
        yield Turn(stamp, observation, (), tuple(decisions), comparable=False)
        self._carry_out(stamp, decisions)
        for _ in range(_MOST_TURNS):
            if not self._follow_up:
                return
            observation = self._follow_up.popleft()
            decisions = self.engine.observe(stamp, observation)
            yield Turn(stamp, observation, (), tuple(decisions), comparable=False)
            self._carry_out(stamp, decisions)

    def _carry_out(self, stamp: Stamp, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Clean):
                self._follow_up.append(self._clean(decision))
            elif isinstance(decision, CleanDebris):
                self._follow_up.append(self._clean_debris(decision))
            elif isinstance(decision, TakeInventory) and self._frozen:
                self._follow_up.append(replace(self._taken, since=stamp.mono))
            elif isinstance(decision, LookAt):
                self._look(decision.key)
            elif isinstance(decision, AskNode) and self._frozen:
                self._follow_up.append(replace(self._word, since=stamp.mono))

    def _look(self, key: BundleKey) -> None:
        if key in self._removed:
            self._follow_up.append(Looked(key, None))
        elif key in self._still_there:
            self._follow_up.append(Looked(key, self._still_there[key]))
        elif self._frozen and key in self._looks:
            self._follow_up.append(Looked(key, self._looks[key]))

    def _clean(self, request: Clean) -> Outcome:
        look = self._still_there.get(request.key) or self._looks.get(request.key)
        outcome = Outcome(request.key, request.identity, Result.CLEANED)
        if request.kill:
            # How a workload would have ended is not known: it lives on, as it was recorded.
            return replace(outcome, result=Result.BLOCKED, reason=BlockReason.MOUNT_BUSY)
        if look is not None and foreign_mount(look.mounts):
            return replace(outcome, result=Result.BLOCKED, reason=BlockReason.FOREIGN_MOUNT)
        self._still_there.pop(request.key, None)
        self._removed[request.key] = request.identity
        return outcome

    # ------------------------------------------------------------------ the world, as it would be

    def _imagine(  # noqa: PLR0911 - one case each
        self, observation: Observation
    ) -> Observation | None:
        match observation:
            case Listed():
                return self._listed(observation)
            case Looked():
                return self._looked(observation)
            case NodeLooked():
                self._word = NodeLooked(
                    observation.since,
                    observation.processes or self._word.processes,
                    observation.containerd or self._word.containerd,
                )
                return observation
            case GuardsChecked():
                self.refused = bool(observation.refused)
                return observation
            case Inventory():
                return self._inventory(observation)
            case DebrisCleaned():
                self._debris_cleaned(observation)
                return None
            case Outcome():
                self._outcome(observation)
                return None
            case Hint() | Resync() | Remembered() | CleanRequested() | ReleaseRequested():
                return observation
            case _:
                assert_never(observation)

    def _listed(self, listed: Listed) -> Listed:
        if not listed.answered:
            return listed
        there = [seen for seen in listed.bundles if not self._is_gone(seen.key, seen.identity)]
        names = {seen.key for seen in listed.bundles}
        for key in [key for key in self._removed if key not in names and _covers(listed, key)]:
            del self._removed[key]
        for key in [key for key in self._looks if key not in names and _covers(listed, key)]:
            del self._looks[key]
        still_there = [
            Seen(key, look.identity)
            for key, look in self._still_there.items()
            if key not in names and _covers(listed, key)
        ]
        return replace(listed, bundles=(*there, *still_there), hidden=())

    def _inventory(self, taken: Inventory) -> Inventory:
        """Leave out what this engine removed, and add what the recorded one has and it has not."""
        found = {one.key: one for one in taken.places}
        for key in [key for key in self._left if key in found or key.kind not in taken.looked]:
            del self._left[key]
        gone = self._gone
        for key in [k for k in gone if k not in found or found[k].identity != gone[k]]:
            del gone[key]
        there = [one for one in taken.places if one.key not in gone]
        self._taken = replace(taken, places=(*there, *self._left.values()))
        return self._taken

    def _debris_cleaned(self, cleaned: DebrisCleaned) -> None:
        """Keep the debris that the recorded cleaner removed and these would not have."""
        places = {one.key: one for one in self._taken.places}
        for one in cleaned.results:
            place = places.get(one.key)
            if one.result is Result.CLEANED and place is not None and one.key not in self._gone:
                self._left[one.key] = place

    def _clean_debris(self, request: CleanDebris) -> DebrisCleaned:
        for place in request.places:
            self._left.pop(place.key, None)
            self._gone[place.key] = place.identity
        there = tuple(one for one in self._taken.places if one not in request.places)
        self._taken = replace(self._taken, places=there)
        return DebrisCleaned(
            results_of(request.places, replace(WHOLE_BATCH, result=Result.CLEANED))
        )

    def _looked(self, looked: Looked) -> Looked:
        key, look = looked.key, looked.look
        if look is None:
            self._looks.pop(key, None)
            self._removed.pop(key, None)
            return Looked(key, self._still_there.get(key))
        if self._is_gone(key, look.identity):
            return Looked(key, None)
        self._looks[key] = look
        self._still_there.pop(key, None)  # another bundle has taken the name
        return looked

    def _is_gone(self, key: BundleKey, identity: Identity) -> bool:
        removed = self._removed.get(key)
        if removed is None:
            return False
        if removed != identity:
            del self._removed[key]  # the name was used again
            return False
        return True

    def _outcome(self, outcome: Outcome) -> None:
        """Keep what the recorded cleaner removed and these would not have."""
        if outcome.result is not Result.CLEANED or self._is_gone(outcome.key, outcome.identity):
            return
        look = self._looks.pop(outcome.key, None)
        if look is not None and look.identity == outcome.identity:
            self._still_there[outcome.key] = look


def _covers(listed: Listed, key: BundleKey) -> bool:
    return listed.covers(key)


def removes(policies: Policies) -> bool:
    """Return whether anything may be removed at all."""
    return policies.default.enforce or any(rule.policy.enforce for rule in policies.rules)


def enforcing(policies: Policies) -> Policies:
    """Ask a configuration that only observes what it would remove; others are left as they are."""
    if removes(policies):
        return policies
    return replace(
        policies,
        default=replace(policies.default, enforce=True),
        rules=tuple(
            replace(rule, policy=replace(rule.policy, enforce=True)) for rule in policies.rules
        ),
    )
