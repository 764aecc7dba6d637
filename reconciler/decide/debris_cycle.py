"""The life cycle of debris: when it is looked for, when it is due, what is removed now. Pure.

A place goes the ways of a bundle (:mod:`reconciler.decide.lifecycle`), by inventories in place of
looks. It waits from the first inventory that finds it debris. It is due when another one, begun at
least its grace later, finds the same object debris, and none between them said otherwise. No
waiting makes debris of what is unknown, and of a kind that an inventory did not look for it says
nothing.

An inventory belongs to a listing of the whole tree (:mod:`reconciler.decide.debris_pace`); and it
is asked for when a grace ends, and when what was due was removed, for it may not have named all.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from reconciler.decide.brakes import RateBrake
from reconciler.decide.cleanups import RATE, Hold
from reconciler.decide.debris_pace import Pace
from reconciler.decide.debris_requests import DebrisRequests
from reconciler.decide.debris_track import DebrisView, PlaceTrack, groups_to_go, view_of
from reconciler.decide.debris_verdicts import ORDER, DebrisJudgement, DebrisVerdict, judge_all
from reconciler.decide.lifecycle import Event, event_of
from reconciler.decide.nodestate import NodeState
from reconciler.errors import InvariantError
from reconciler.model.debris import (
    DebrisKind,
    DebrisResult,
    Inventory,
    Place,
    PlaceKey,
    RequestedPlace,
)
from reconciler.model.decisions import CleanDebris, Phase
from reconciler.model.evidence import ContainerdState
from reconciler.model.observations import Stamp
from reconciler.model.outcome import Result
from reconciler.model.policy import Policies, Policy

BATCH: Final = 50
"""Places that are removed by one job, at most."""

SILENT: Final = "containerd runs and does not answer"


class Debris:
    """What the last inventory found, whether another is wanted, and which batch is under way.

    Args:
        policies: What the operator allows.
        node_state: What the node's witnesses said last.
        is_one_pass: Whether all ends when nothing more is to be waited for.

    Attributes:
        may_begin: Whether :meth:`begin` may find anything that is due and may be removed.
    """

    def __init__(
        self, policies: Policies, node_state: NodeState, *, is_one_pass: bool = False
    ) -> None:
        self._policies = policies
        self._node_state = node_state
        self.requests = DebrisRequests()
        self.pace = Pace(is_one_pass=is_one_pass)
        self._last: Inventory | None = None
        self._judged: Inventory | None = None  # the last of which every witness has spoken
        self._number = 0
        self._tracks: dict[PlaceKey, PlaceTrack] = {}
        self._batch: tuple[Place, ...] = ()
        self._rate = RateBrake()
        self.may_begin = False
        self._ask_at: float | None = None
        self._turn_at: float | None = None
        self._free_at: float | None = None

    # ------------------------------------------------------------------ inventories

    def ask(self, now: float) -> bool:
        """Return whether an inventory is to be taken now."""
        if not self.pace.ask(now):
            return False
        self._node_state.inventory_begins()
        return True

    def receive(self, inventory: Inventory) -> None:
        """Take in an inventory; of kinds that it did not look for the last one counts no more."""
        self._last = inventory
        self.pace.received(inventory, self._policies)
        self._node_state.inventory_told(inventory)
        self._number += 1

    def judge(self, stamp: Stamp, *, anew: bool = False) -> None:
        """Judge the last inventory, as soon as the witnesses were asked after it.

        ``anew``: the guards changed what evidence counts.
        """
        last = self._last
        if last is None or not self._node_state.covers(last.since + last.seconds):
            return
        if self._judged is last and not anew:
            return
        self._judged = last
        found = set[PlaceKey]()
        for judgement in judge_all(last, self._node_state, self._policies, stamp.wall):
            found.add(judgement.place.key)
            self._take(judgement, last.since, stamp.mono)
        for key in [key for key in self._tracks if key not in found and key.kind in last.looked]:
            if self._tracks[key].phase is not Phase.CLEANING:
                del self._tracks[key]
        self.requests.settle(last, self._debris())
        self.place_all(stamp.mono)

    def _take(self, judgement: DebrisJudgement, since: float, now: float) -> None:
        key = judgement.place.key
        track = self._tracks.get(key)
        if track is not None and track.phase is Phase.CLEANING:
            return  # our own worker is at it; the result will show
        if track is None or track.place.identity != judgement.place.identity:
            track = self._tracks[key] = PlaceTrack(judgement, float("-inf"))
        # A clock that jumps makes nothing older.
        first = since if track.life == float("-inf") else track.life
        track.life = first if judgement.age is None else max(track.life, now - judgement.age)
        track.judge(judgement, since, self._number)

    # ------------------------------------------------------------------ phases

    def configure(self, policies: Policies, now: float) -> None:
        """Let other policies hold; a batch that is under way is asked about when it is sent."""
        self._policies = policies
        self.requests.clear()
        self.place_all(now)

    def request(self, places: Iterable[RequestedPlace], now: float) -> None:
        """Let these wait no longer than two looks take, also what no inventory has found yet."""
        wanted = [one for one in places if not self.refusal(one)]
        self.requests.add(wanted, self._debris(), now)
        for key in self.requests.keys & self._tracks.keys():
            self._tracks[key].retry_at = now
        self.pace.wanted = self.pace.wanted or bool(wanted)
        self.place_all(now)

    def _debris(self) -> dict[PlaceKey, Place]:
        return {key: one.place for key, one in self._tracks.items() if one.since is not None}

    def refusal(self, asked: RequestedPlace) -> str:
        """Say why a request for a place would have no effect; empty if it may have one."""
        track = self._tracks.get(asked.key)
        if track is None:
            return ""
        if not asked.means(track.place.identity):
            return "the daemon sees another object there"
        return self._policies.objection_to_debris(track.place, is_requested=True)

    def place_all(self, now: float) -> None:
        """Move every place to where it stands now, and note when that must be asked again."""
        asks: list[float | None] = []
        turns: list[float] = []
        groups = groups_to_go(self._tracks.values(), self._objection)
        for track in self._tracks.values():
            policy = self._policy(track.place)
            self._place(track, policy, now, groups)
            asks_at, due_at = track.asks_at(policy), track.due_at(policy)
            if asks_at is not None:
                is_unheard = track.judged_by != self._number
                asks.append(self.pace.unheard_at(asks_at) if is_unheard else asks_at)
            elif track.phase is Phase.WAITING and due_at is not None and due_at > now:
                turns.append(due_at)
            elif track.phase is Phase.BLOCKED:
                turns.append(track.retry_at)
        self._ask_at = min((at for at in asks if at is not None), default=None)
        self._turn_at = min(turns, default=None)
        self.may_begin = any(True for _ in self._ready())
        if not self.may_begin:
            self._free_at = None

    def _place(
        self, track: PlaceTrack, policy: Policy, now: float, groups: frozenset[tuple[str, str]]
    ) -> None:
        """Move a place to where it stands now; the cases are those of a bundle.

        1. It is not debris, and no attempt on it has just failed.
        2. A rule protects it.
        3. The pause after a failed attempt is not over.
        4. No second inventory has found it debris yet, or its time has not come, or a cgroup is
           there that it alone may show to be a container's.
        5. Its time has come.
        """
        is_paused = track.attempts > 0 and now < track.retry_at
        if track.since is None and not is_paused:
            track.attempts = 0
            track.move(Event.NOT_CONCERNED)
        elif policy.protect and policy.debris is None:
            track.move(Event.PROTECTED, policy.name)
        elif is_paused:
            track.move(Event.PAUSED, track.cause)
        elif not track.is_due(policy, now) or track.shows_one_of(groups):
            track.move(Event.EARLY)
        else:
            track.move(Event.DUE)

    def _policy(self, place: Place) -> Policy:
        return self.requests.hurried(place, self._policies.applied_to_place(place))

    def _objection(self, place: Place) -> str:
        is_requested = self.requests.holds(place)
        return self._policies.objection_to_debris(place, is_requested=is_requested)

    # ------------------------------------------------------------------ batches

    def advance(self, now: float) -> None:
        """Let time pass: a grace or a pause may be over."""
        if self._turn_at is not None and self._turn_at <= now:
            self.place_all(now)
        if self._ask_at is not None and self._ask_at <= now:
            self._ask_at = None
            self.pace.ask_again()
        self.pace.advance(now)

    @property
    def wake(self) -> float | None:
        """When :meth:`advance` wants to be called, or :meth:`begin`; None for never."""
        times = (self._ask_at, self._turn_at, self._free_at, self.pace.retry_at)
        return min((at for at in times if at is not None), default=None)

    def _ready(self) -> Iterator[PlaceTrack]:
        """Give what may be removed now, if no brake holds it, of kinds that were looked for."""
        looked = self.looked
        for track in self._tracks.values():
            place = track.place
            is_due = track.phase is Phase.DUE and place.key.kind in looked
            if is_due and not self._objection(place):
                yield track

    def hold(self, now: float, stop: Hold | None) -> Hold | None:
        """Give what holds debris that is due; ``stop``: the brake that holds all removals."""
        if stop is not None:
            return stop
        if self._node_state.node.containerd.state is ContainerdState.NONE:
            return Hold("containerd", SILENT, None)  # it is sweeping, or hangs
        limit = self._policies.brakes.max_per_minute
        free_at = self._rate.free_at(now, limit)
        return None if free_at is None else Hold(RATE, f"{limit} in the last minute", free_at)

    def begin(self, now: float, stop: Hold | None) -> CleanDebris | None:
        """Take a batch of what is due, of one kind; None if there is none, or a brake holds it."""
        self._free_at = None
        if not self.may_begin or self._batch:
            return None
        hold = self.hold(now, stop)
        if hold is not None:
            self._free_at = hold.until if hold.brake == RATE else None
            return None
        by_kind: dict[DebrisKind, list[PlaceTrack]] = {}
        for track in self._ready():
            by_kind.setdefault(track.place.key.kind, []).append(track)
        kind = next((kind for kind in ORDER if kind in by_kind), None)
        if kind is None:
            self.may_begin = False
            return None
        room = self._rate.room(now, self._policies.brakes.max_per_minute)
        oldest = sorted(by_kind[kind], key=lambda track: (track.life, track.place.key.path))
        batch = oldest[: BATCH if room is None else min(BATCH, room)]
        for track in batch:
            track.move(Event.BEGUN)
            track.number = self._rate.begin(now)
        self._batch = tuple(track.place for track in batch)
        return CleanDebris(self._batch)

    def objection(self, places: Iterable[Place], now: float) -> str:
        """Say why a batch that was begun must not be sent any more; empty if it may."""
        if self._node_state.node.containerd.state is ContainerdState.NONE:
            return SILENT
        return next(filter(None, (self._objection_now(place, now) for place in places)), "")

    def _objection_now(self, place: Place, now: float) -> str:
        limit, track = self._policies.brakes.max_per_minute, self._tracks.get(place.key)
        if track is None or track.place != place:
            return f"{place.key} is not what was judged"
        if not self._rate.allows(track.number, limit):
            return f"{limit} in the last minute"
        if not track.is_due(self._policy(place), now):
            return f"{place.key} is not due any more"
        objection = self._objection(place)
        if objection:
            return f"{place.key}: {objection}"
        judgement = self._judge_now(place)
        return "" if judgement.verdict is DebrisVerdict.DEBRIS else judgement.reason

    def _judge_now(self, place: Place) -> DebrisJudgement:
        """Judge a place by what the witnesses say now; it was old enough once."""
        last = self._judged
        if last is None:
            raise InvariantError(f"{place.key} was never judged")
        asked = replace(last, places=(place,))
        return next(judge_all(asked, self._node_state, self._policies, None))

    def ended(self, results: Iterable[DebrisResult], stamp: Stamp) -> None:
        """Take in what came of the batch: each of its places has come to something."""
        by_key = {one.key: one for one in results}
        batch, self._batch = self._batch, ()
        is_any_gone = False
        for place in batch:
            lost = DebrisResult(place.key, place.identity, Result.FAILED, detail="no result")
            result = by_key.get(place.key, lost)
            is_any_gone = is_any_gone or result.result is Result.CLEANED
            self.requests.ended(place, result)
            self._take_result(self._tracks[place.key], result, stamp)
        self.place_all(stamp.mono)
        if is_any_gone and not self.may_begin:
            self.pace.wanted = True

    def _take_result(self, track: PlaceTrack, result: DebrisResult, stamp: Stamp) -> None:
        """Take in what came of one place.

        1. It is gone.
        2. A worker has tried. It is tried again after a pause, and where the second look disagreed
           two inventories must find it debris anew.
        3. Nobody has tried: it stands where policies, brakes and witnesses put it now.
        """
        match event_of(result):
            case Event.CLEANED:
                track.move(Event.CLEANED)
                del self._tracks[track.place.key]
            case Event.FAILED:
                track.attempts += 1
                track.retry_at = stamp.mono + self._policies.backoff.after(track.attempts)
                if result.result is Result.SKIPPED:
                    track.doubt()
                    track.move(Event.FAILED, "second look disagreed")
                else:
                    cause = result.reason.value if result.reason else result.result.value
                    track.move(Event.FAILED, cause)
            case event:
                track.move(event)
                if self._judge_now(track.place).verdict is not DebrisVerdict.DEBRIS:
                    track.doubt()

    def release(self) -> None:
        """Count anew for the brake on the rate."""
        self._rate.release()

    @property
    def is_tracking(self) -> bool:
        """Whether anything is remembered that may have gone."""
        return bool(self._tracks)

    def is_settled(self, now: float, stop: Hold | None) -> bool:
        """Return whether waiting out the grace would change nothing any more."""
        if self._batch or (self.may_begin and self.hold(now, stop) is None):
            return False
        looked, gives_up = self.looked, self.pace.has_given_up
        return not any(
            track.asks_at(self._policy(track.place)) is not None
            and not track.attempts
            and not self._objection(track.place)
            and not (gives_up and track.place.key.kind not in looked)
            for track in self._tracks.values()
        )

    # ------------------------------------------------------------------ for people

    @property
    def looked(self) -> frozenset[DebrisKind]:
        """The kinds that the last inventory has looked for."""
        return frozenset(() if self._shown is None else self._shown.looked)

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why other kinds were not looked for."""
        return () if self._shown is None else self._shown.troubles

    @property
    def is_more(self) -> bool:
        """Whether there is more than the last inventory names."""
        return self._shown is not None and self._shown.more

    @property
    def _shown(self) -> Inventory | None:
        return self._judged or self._last

    def views(self, stamp: Stamp, stop: Hold | None = None) -> Iterator[DebrisView]:
        """Show every place that the last inventory has found, but what was removed since.

        ``stop``: the brake that holds all removals.
        """
        if self._shown is None:
            return
        hold = self.hold(stamp.mono, stop)
        for judgement in judge_all(self._shown, self._node_state, self._policies, stamp.wall):
            track = self._tracks.get(judgement.place.key)
            if track is None and self._judged is not None:
                continue  # it was removed
            if track is None:
                place, verdict, reason, task, age = judgement
                yield DebrisView(place, verdict, reason, age, task)
                continue
            policy, objection = self._policy(track.place), self._objection(track.place)
            held = None if objection else hold
            yield view_of(track, judgement, policy, objection=objection, hold=held, now=stamp.mono)
