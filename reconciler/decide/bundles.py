"""Bundles: every track, judged, placed in time, and appointed to be thought about again. Pure.

The lower half of the engine: :mod:`reconciler.decide.engine` says what was learnt, this module
says what it means for one bundle. It owns the indexes that keep the cost per change.
"""

from collections.abc import Iterator
from typing import Final

from reconciler.decide.agenda import Agenda
from reconciler.decide.asking import RECHECK, Asking
from reconciler.decide.cleanups import Cleanups
from reconciler.decide.dues import Dues, exceeded
from reconciler.decide.hearsay import Hearsay, NodeChange
from reconciler.decide.pods import Pods
from reconciler.decide.touched import is_touched
from reconciler.decide.track import LIVING, SERVED, Deaths, Track, is_wedged
from reconciler.decide.verdicts import judge
from reconciler.decide.views import BundleView, view_of
from reconciler.model.decisions import (
    Decision,
    Died,
    Judged,
    Judgement,
    LookAt,
    OverBudget,
    Phase,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import Facts, Look, RuntimeState, ShimState, weigh
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import HintKind, Remembered, Stamp
from reconciler.model.policy import Policies, Policy

_UNSURE: Final = frozenset({Verdict.BUSY, Verdict.UNKNOWN, Verdict.ORPHANED, Verdict.STARTING})


class Bundles:
    """What is believed about every bundle.

    Args:
        policies: What the operator allows.
        hearsay: The node's witnesses.
        asking: Where a fresh word of theirs is wished for.
        cleanups: Where due leftovers queue.
        tell: Takes decisions, in order.
    """

    def __init__(
        self,
        policies: Policies,
        hearsay: Hearsay,
        asking: Asking,
        cleanups: Cleanups,
        tell: list[Decision],
    ) -> None:
        self._policies = policies
        self._hearsay = hearsay
        self._asking = asking
        self._cleanups = cleanups
        self._out = tell
        self._tracks: dict[BundleKey, Track] = {}
        self._memories: dict[BundleKey, Remembered] = {}
        self._agenda = Agenda()
        self._dues = Dues(self._life_of)
        self._pods = Pods(needed=policies.need_labels)
        self._living: set[BundleKey] = set()
        self._open: set[BundleKey] = set()
        self._newest = float("-inf")  # when the youngest was first seen

    # ------------------------------------------------------------------ all of them

    def __iter__(self) -> Iterator[Track]:
        return iter(self._tracks.values())

    def get(self, key: BundleKey) -> Track | None:
        """Find a track."""
        return self._tracks.get(key)

    @property
    def living(self) -> int:
        """How many bundles have something alive."""
        return len(self._living)

    @property
    def next_appointment(self) -> float | None:
        """When the next bundle wants to be thought about."""
        return self._agenda.next

    def configure(self, policies: Policies, now: float) -> None:
        """Think about everything again, under other policies: nothing is due by the old ones.

        What hands are on is judged by them when these are about to begin (:meth:`objection`).
        """
        if policies.annotation_keys - self._policies.annotation_keys:
            for track in self._tracks.values():
                track.ask_for_more()
        self._policies = policies
        self._dues = Dues(self._life_of)
        self._pods = Pods(needed=policies.need_labels)
        for track in self._tracks.values():
            track.policy = track.counted_as = track.due_under = None
            self.reconsider(track, now)

    def keep_appointments(self, now: float) -> None:
        """Think about every bundle whose time has come."""
        for key in list(self._agenda.due(now)):
            track = self._tracks.get(key)
            if track is not None:
                self._keep_appointment(track, now)

    def touched_by(self, change: NodeChange, now: float) -> list[Track]:
        """List the bundles to judge again after a new word of the witnesses, in order of name."""
        if not change.is_news and self._newest <= change.since:
            return []
        helped = {key for key in change.keys if key in self._tracks}
        tracks = (self._tracks[key] for key in self._open | helped)
        at = self._agenda.at
        touched = [track for track in tracks if is_touched(track, change, at(track.key), now)]
        return sorted(touched, key=lambda track: track.key)

    # ------------------------------------------------------------------ coming and going

    def meet(self, key: BundleKey, identity: Identity, now: float) -> Track:
        """Find or begin the track of this object; another object of the name is forgotten."""
        track = self._tracks.get(key)
        if track is not None and (track.identity == identity or self._cleanups.is_under_way(key)):
            return track
        if track is not None:
            self.forget(key)
        track = self._tracks[key] = Track(key, identity, first_seen=now)
        self._newest = max(self._newest, now)
        memory = self._memories.pop(key, None)
        if memory is not None and memory.identity == identity:
            track.last_alive = track.life = memory.last_alive
            track.resumed = memory.leftover_since
        return track

    def remember(self, memory: Remembered) -> None:
        """Keep what an earlier run knew until the object is met."""
        self._memories[memory.key] = memory

    def absorb(self, track: Track, look: Look, stamp: Stamp) -> None:
        """Take in a fresh look and judge again."""
        before = track.labels
        track.absorb(look, stamp, volatile=self._policies.volatile)
        self.reconsider(track, stamp.mono)
        if track.labels is not before and track.labels != before:
            for member in self._pods.members(track.key):
                other = self._tracks[member]
                other.policy = None
                self.reconsider(other, stamp.mono)

    def forget(self, key: BundleKey, *, cleaned: bool = False) -> None:
        """Drop what is no longer there; not while hands are on it."""
        if self._cleanups.is_under_way(key):
            return
        track = self._tracks.pop(key, None)
        if track is None:
            return
        if track.deaths and (cleaned or track.deaths.orphaned):
            self._count_death(track)
        if not cleaned:
            self._cleanups.mass.revived(key)
        self._cleanups.withdraw(key)
        self._agenda.set(key, None)
        self._pods.leave(key)
        self._living.discard(key)
        self._open.discard(key)
        self._hearsay.forget(key)
        self._dues.leave(track)
        self._out.append(Vanished(key, track.verdict, cleaned=cleaned))

    def set_back(self, track: Track, now: float, cause: str) -> None:
        """Note a failed attempt: tried again after a growing pause."""
        track.attempts += 1
        track.retry_at = now + self._policies.backoff.after(track.attempts)
        track.phase, track.cause = Phase.BLOCKED, cause
        self._agenda.set(track.key, track.retry_at)
        self._out.append(self._judged(track, track.verdict))

    def objection(self, key: BundleKey, now: float, *, kill: bool) -> str:
        """Say why hands that were asked for must not begin any more; empty if they may."""
        track = self._tracks.get(key)
        if track is None or track.look is None:
            return ""
        policy = self._choose_policy(track)
        is_due = now >= self._dues.due_at(track, policy)
        return policy.objection(kill=kill) or ("" if is_due else "it is not due any more")

    def begin(self, track: Track) -> None:
        """Note that hands are on it now."""
        if track.deaths and track.deaths.since is not None:
            self._count_death(track)
        track.phase, track.cause, track.is_stale = Phase.CLEANING, "", True
        self._agenda.set(track.key, None)
        self._out.append(self._judged(track, track.verdict))

    # ------------------------------------------------------------------ one bundle, judged

    def reconsider(self, track: Track, now: float) -> None:
        """Judge, place and appoint one bundle; tell if verdict, phase or cause changed."""
        if track.look is None or self._cleanups.is_under_way(track.key):
            return
        previous, phase, cause = track.verdict, track.phase, track.cause
        before, facts = track.facts, self._hearsay.weigh(track, track.look)
        judgement = track.judgement = judge(facts, young=track.age(now) < self._policies.settle)
        verdict = judgement.verdict
        policy = self._choose_policy(track)
        if verdict in LIVING:
            track.last_alive = now
        if track.is_news or facts is not before or verdict is not previous:
            self._note_life(track, facts, previous, now)
        due_at = self._place(track, policy, verdict, now)
        if verdict is not previous:
            track.judged_since = now
        if verdict is not previous or track.phase is not phase or track.cause != cause:
            self._out.append(self._judged(track, previous))
        times = self._reasons_to_return(track, facts, due_at, now)
        self._agenda.set(track.key, min(times, default=None))
        if track.look.shim.state is not ShimState.ALIVE:
            # By its socket, that is: an older sweep may still show a shim that has just died.
            self._asking.want("death", track.looked_at, awaited=track.is_news)

    def _choose_policy(self, track: Track) -> Policy:
        policy = track.policy
        if policy is None:
            known = self._pods.known(track, self._tracks.get)
            policy = track.policy = self._policies.applied(track.key, known)
        return policy

    def _note_life(self, track: Track, facts: Facts, previous: Verdict | None, now: float) -> None:
        verdict = track.verdict
        if verdict in LIVING:
            track.deaths = track.deaths or Deaths()
            self._living.add(track.key)
            self._cleanups.mass.revived(track.key)
        else:
            self._living.discard(track.key)
        # 1. Served by word of a sweep alone, it is judged again when a sweep says otherwise.
        # 2. Judged before the witnesses spoke of it, it is judged again when they do: a helper
        #    that they knew before the bundle was seen is no news to anybody else.
        answers = track.look is not None and track.look.shim.state is ShimState.ALIVE
        is_closed = verdict in SERVED and answers and self._hearsay.covers(track.first_seen)
        (self._open.discard if is_closed else self._open.add)(track.key)
        if track.deaths is not None:
            track.deaths.update(facts, now, answers=answers)
        if previous in LIVING and verdict != previous:
            track.life = now
        fell = verdict is Verdict.LEFTOVER and previous is not verdict
        if fell and track.last_alive is not None:
            self._cleanups.mass.died(track.key, now)

    def _count_death(self, track: Track) -> None:
        if track.deaths is None or track.facts is None:
            return
        cause = track.deaths.confirm(track.facts)
        if cause is not None:
            self._out.append(Died(track.key, cause))

    # ------------------------------------------------------------------ one bundle, placed

    def _life_of(self, key: BundleKey) -> float:
        return self._tracks[key].life or 0.0

    def _policy(self, track: Track) -> Policy:
        return track.policy or self._policies.default

    def _place(self, track: Track, policy: Policy, verdict: Verdict, now: float) -> float | None:
        """Give the track its phase; say when it is due if it waits for that."""
        is_leftover = verdict is Verdict.LEFTOVER
        if not is_leftover:
            self._dues.leave(track)
            self._report_budgets(track, policy, verdict, now)
            if verdict is not Verdict.ORPHANED or policy.objection(kill=True):
                self._leave_leftover(track, verdict)
                return None
        if track.waiting_as is not verdict:
            track.begin_waiting(verdict, None)
        if track.leftover_since is None:
            track.leftover_since = now if track.resumed is None else min(now, track.resumed)
            track.resumed = None
        if is_leftover:
            for key in self._dues.enter(track, policy, self._policies.node_max_size):
                # To be thought about at once, but from the top: it may be another bundle.
                self._agenda.set(key, now)
        if policy.protect:
            track.phase, track.cause = Phase.PROTECTED, policy.name
            self._cleanups.withdraw(track.key)
            return None
        due_at = self._dues.due_at(track, policy)
        if now < due_at:
            track.phase, track.cause = Phase.WAITING, ""
            self._cleanups.withdraw(track.key)
            return due_at
        if track.attempts and now < track.retry_at:
            track.phase = Phase.BLOCKED
        else:
            track.phase, track.cause = Phase.DUE, ""
            self._queue(track, policy)
        return None

    def _queue(self, track: Track, policy: Policy) -> None:
        if policy.enforce:
            track.become_due(policy)
            self._cleanups.queue(track.key, track.life or 0.0)
        else:
            self._cleanups.withdraw(track.key)

    def _leave_leftover(self, track: Track, verdict: Verdict) -> None:
        track.phase, track.cause = Phase.NONE, ""
        track.begin_waiting(None, None)
        track.attempts, track.retry_at = 0, 0.0
        if verdict is not Verdict.UNKNOWN:
            track.resumed = None
        self._cleanups.withdraw(track.key)

    def _report_budgets(self, track: Track, policy: Policy, verdict: Verdict, now: float) -> None:
        """Say once that a running task is over a budget; it is never touched."""
        if verdict is not Verdict.RUNNING:
            track.reported = frozenset()
            return
        kinds = exceeded(track, policy, now)
        if kinds != track.reported:
            for kind in sorted(kinds - track.reported, key=lambda kind: kind.value):
                self._out.append(OverBudget(track.key, kind))
            track.reported = kinds

    # ------------------------------------------------------------------ appointments

    def _reasons_to_return(
        self, track: Track, facts: Facts, due_at: float | None, now: float
    ) -> list[float]:
        policy, verdict, life = self._policy(track), track.verdict, track.life or 0.0
        times: list[float] = []
        if verdict in _UNSURE:
            if facts.runtime is not RuntimeState.ALIEN:
                times.append(now + track.recheck_after(now, at_most=self._policies.recheck))
            if verdict is Verdict.STARTING and life + self._policies.settle > now:
                times.append(life + self._policies.settle)
        elif verdict is Verdict.RUNNING and policy.max_age and life + policy.max_age > now:
            times.append(life + policy.max_age)
        if due_at is not None:
            times.append(due_at)
        elif track.phase is Phase.BLOCKED:
            times.append(track.retry_at)
        if track.deaths and track.deaths.since is not None:
            times.append(track.deaths.since + self._policies.confirm_death)
        return times

    def _keep_appointment(self, track: Track, now: float) -> None:
        since = track.deaths.since if track.deaths else None
        if since is not None and now >= since + self._policies.confirm_death:
            self._count_death(track)
        if track.verdict in _UNSURE:
            self._asking.want(RECHECK, now)
            if track.may_look_otherwise:
                self._out.append(LookAt(track.key, HintKind.CHANGED))
        self.reconsider(track, now)

    # ------------------------------------------------------------------ for people

    def views(self, now: float) -> Iterator[BundleView]:
        """Show every bundle, in order of name."""
        for key in sorted(self._tracks):
            view = self.view(key, now)
            if view is not None:
                yield view

    def view(self, key: BundleKey, now: float) -> BundleView | None:
        """Show one bundle; None if it is not known or not looked at yet."""
        track = self._tracks.get(key)
        if track is None or track.look is None or track.facts is None:
            return None
        # A living bundle is not judged anew at every word of containerd's; show the latest.
        node = self._hearsay.about(key, track.first_seen)
        facts = weigh(key, track.facts.identifier, track.look, node)
        policy = self._policy(track)
        due_at = self._dues.due_at(track, policy)
        hold = self._cleanups.hold
        wedged = is_wedged(track, node.containerd)
        return view_of(track, facts, policy, hold=hold, due_at=due_at, now=now, wedged=wedged)

    def is_settled(self, track: Track, now: float) -> bool:
        """Tell whether waiting out the grace would change nothing for this bundle."""
        if track.look is None:
            return False
        if track.phase is not Phase.WAITING or track.attempts:
            return True
        policy = self._policy(track)
        grace_ends = (track.leftover_since or 0.0) + policy.grace
        return self._dues.due_at(track, policy) > max(now, grace_ends)

    def _judged(self, track: Track, previous: Verdict | None) -> Judged:
        judgement = track.judgement or Judgement(Verdict.UNKNOWN, 6, "not looked at yet")
        waits = track.phase is Phase.WAITING
        due_at = self._dues.due_at(track, self._policy(track)) if waits else None
        return Judged(track.key, judgement, track.phase, previous, track.cause, due_at, track.facts)
