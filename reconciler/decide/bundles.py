"""Bundles: every track, judged, with a due time and a timer for its re-evaluation. Pure.

The lower half of the engine: :mod:`reconciler.decide.engine` says what was learnt, this module
says what it means for one bundle. It owns the indexes that keep the cost per change.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from reconciler.decide.asking import RECHECK, Asking
from reconciler.decide.claims import Claims
from reconciler.decide.cleanups import Cleanups
from reconciler.decide.deaths import Deaths
from reconciler.decide.due import DueTimes, newly_exceeded
from reconciler.decide.foreign_mounts import needless
from reconciler.decide.lifecycle import Event
from reconciler.decide.nodestate import NodeChange, NodeState, is_touched
from reconciler.decide.pod_labels import Pods
from reconciler.decide.pod_members import Members
from reconciler.decide.queue import PriorityQueue
from reconciler.decide.track import ENDED, LIVING, UNCONCERNED, UNSURE, Track
from reconciler.decide.verdicts import judge
from reconciler.decide.views import BundleView, Summary, announced, shown, summarize, view_of
from reconciler.model.decisions import (
    Clean,
    Decision,
    Died,
    Judged,
    LookAt,
    Phase,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import Look, ShimState
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import HintKind, Remembered, Stamp
from reconciler.model.policy import Policies, Policy

# Constants, because on Python 3.11 to name a member of an enumeration takes ten times as long.
_LEFTOVER, _ABANDONED = Verdict.LEFTOVER, Verdict.ABANDONED
_DUE, _CLEANING, _ALIVE = Phase.DUE, Phase.CLEANING, ShimState.ALIVE
_FALLEN: Final = frozenset({Verdict.LEFTOVER, Verdict.ABANDONED})


class Bundles:
    """What is believed about every bundle.

    Args:
        policies: What the operator allows.
        nodestate: What the node's witnesses said last.
        asking: Where fresh answers of theirs are requested.
        cleanups: Where due leftovers queue.
        out: Takes decisions, in order.
    """

    def __init__(
        self,
        policies: Policies,
        nodestate: NodeState,
        asking: Asking,
        cleanups: Cleanups,
        out: list[Decision],
    ) -> None:
        self._policies = policies
        self._node_state = nodestate
        self._asking = asking
        self._cleanups = cleanups
        self._out = out
        self._tracks: dict[BundleKey, Track] = {}
        self.get = self._tracks.get  # finds a track by its key
        self._memories: dict[BundleKey, Remembered] = {}
        self.claims = Claims(asking, self._tracks)
        self._timers = PriorityQueue()
        self._dues = DueTimes(self._tracks)
        self._pods = Pods(needed=policies.need_labels)
        self.members = Members(self._tracks, self._timers)
        self._living: set[BundleKey] = set()
        self._open: dict[BundleKey, Track] = {}  # all that are not plainly alive
        self._newest = float("-inf")  # when the youngest was first seen

    # ------------------------------------------------------------------ all of them

    def __iter__(self) -> Iterator[Track]:
        return iter(self._tracks.values())

    @property
    def living(self) -> int:
        """How many bundles have something alive."""
        return len(self._living)

    @property
    def next_timer(self) -> float | None:
        """When the next bundle wants to be thought about."""
        return self._timers.next

    def configure(self, policies: Policies, now: float) -> None:
        """Think about everything again: nothing is due by old policies, or by requests under them.

        What a cleanup is under way on is judged by them when that is about to begin
        (:meth:`objection`).
        """
        if policies.annotation_keys - self._policies.annotation_keys:
            for track in self._tracks.values():
                track.ask_for_more()
        self._policies = policies
        self._dues = DueTimes(self._tracks)
        self._pods = Pods(needed=policies.need_labels)
        for track in self._tracks.values():
            track.policy = track.counted_as = track.due_under = None
            track.is_requested = False
            self.reconsider(track, now)

    def judge_all_anew(self, now: float) -> None:
        """Weigh and judge every bundle again: the guards changed what evidence counts."""
        for _, track in sorted(self._tracks.items()):
            track.weighed_with = None
            self.reconsider(track, now)

    def fire_timers(self, now: float) -> None:
        """Re-evaluate the bundles whose timers have fired."""
        for key in list(self._timers.pop_until(now)):
            if (track := self._tracks.get(key)) is not None:
                self._fire_timer(track, now)

    def touched_by(self, change: NodeChange, now: float) -> list[Track]:
        """List the bundles to judge again after a new answer of the witnesses, in order of name."""
        if not change.is_news and self._newest <= change.since:
            return []
        tracks, unsure, at = self._tracks, self._open, self._timers.at.get
        touched = [one for key, one in unsure.items() if is_touched(one, change, at(key), now)]
        touched += [tracks[key] for key in change.keys if key in tracks and key not in unsure]
        return sorted(touched, key=attrgetter("key")) if len(touched) > 1 else touched

    # ------------------------------------------------------------------ coming and going

    def meet(self, key: BundleKey, identity: Identity, now: float) -> Track:
        """Find or begin the track of this object; another object of the name is forgotten."""
        track = self._tracks.get(key)
        if track is not None:
            if track.identity == identity or track.phase is _CLEANING:
                return track
            self.forget(key, now)
        track = self._tracks[key] = Track(key, identity, first_seen=now)
        self._newest = max(self._newest, now)
        self.members.note(track, now)
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
        self.members.note(track, stamp.mono)
        self.reconsider(track, stamp.mono)
        if track.labels is not before and track.labels != before:
            for member in self._pods.members(track.key):
                other = self._tracks[member]
                other.policy = None
                self.reconsider(other, stamp.mono)

    def forget(self, key: BundleKey, now: float) -> None:
        """Drop what is no longer there, removed by us or not; not while it is being cleaned."""
        track = self._tracks.get(key)
        if track is None:
            return
        track.move(Event.VANISHED)
        if track.phase is _CLEANING:
            return
        cleaned, key = track.phase is Phase.CLEANED, track.key  # the kept one is found at once
        del self._tracks[key]
        if track.deaths and (cleaned or track.deaths.orphaned):
            self._count_death(track)
        if not cleaned:
            self._cleanups.mass.revived(key)
        self._cleanups.withdraw(key)
        self._timers.set(key, None)
        self._pods.leave(key)
        self._living.discard(key)
        self._open.pop(key, None)
        self.claims.forget(key)
        self._node_state.forget(key, track.look, now - track.looked_at)
        self._dues.leave(track)
        self.members.forget(key, now)
        self._out.append(Vanished(key, track.verdict, cleaned=cleaned))

    def back_off(self, track: Track, now: float, cause: str) -> None:
        """Note a failed attempt: tried again after a growing pause."""
        track.attempts += 1
        track.retry_at = now + self._policies.backoff.after(track.attempts)
        policy = self._policy(track)
        self._move(track, policy, Event.FAILED, cause)
        self._timers.set(track.key, track.retry_at)
        self._report(track, policy)

    def request(self, key: BundleKey, now: float) -> None:
        """Let a leftover wait no longer than two looks take, if it may be removed at all."""
        track = self._tracks.get(key)
        if track is not None and not self.refusal(key):
            track.is_requested, track.retry_at = True, now
            self.reconsider(track, now)

    def refusal(self, key: BundleKey) -> str:
        """Say why a request for a cleanup would have no effect; empty if it would have one."""
        track = self._tracks.get(key)
        if track is None or track.judgement is None:
            return "there is no such bundle" if track is None else "it was not looked at yet"
        return needless(track.judgement) or self._choose_policy(track).objection()

    def objection(self, key: BundleKey, now: float, wanted: Verdict) -> str:
        """Say why a cleanup that was asked for must not begin any more; empty if it may."""
        track = self._tracks.get(key)
        if track is None or track.look is None:
            return ""
        is_due = now >= self._dues.due_at(track, self._choose_policy(track))
        refused = self.claims.objection(track, wanted, self._policies, self._pods)
        return refused or ("" if is_due else "it is not due any more")

    def begin(self, key: BundleKey) -> None:
        """Ask for a cleanup: of what is due, and taken from the queue of cleanups."""
        track = self._tracks[key]
        if track.deaths and track.deaths.since is not None:
            self._count_death(track)
        policy = self._policy(track)
        self._move(track, policy, Event.BEGUN)
        track.is_stale = True
        self._timers.set(key, None)
        self._report(track, policy)
        claimed = track.judgement is not None and track.judgement.claimed
        kill, shim = track.verdict is Verdict.ORPHANED, track.verdict is Verdict.ABANDONED
        self._out.append(Clean(track.key, track.identity, claimed, track.attempts + 1, kill, shim))

    # ------------------------------------------------------------------ one bundle, judged

    def reconsider(self, track: Track, now: float) -> None:
        """Judge one bundle, set its timer, and report a changed verdict, phase or cause."""
        look, policies = track.look, self._policies
        if look is None or track.phase is _CLEANING:
            return
        previous, before = track.verdict, track.facts
        facts = self._node_state.weigh(track, look, self.members)
        young = track.age(now) < policies.settle
        track.judgement = judge(facts, young)
        verdict = track.verdict = track.judgement.verdict
        self.claims.note(track, facts, now, young=young)
        policy = track.policy or self._choose_policy(track)
        if verdict in LIVING:
            track.last_alive = now
        if track.is_news or facts is not before or verdict is not previous:
            self._note_life(track, look, previous, now)
        due_at = None  # What waited for nothing waits for nothing still, by the same verdict.
        if verdict is previous and verdict in UNCONCERNED and track.waits_for_nothing():
            self._out += newly_exceeded(track, policy, now)
        else:
            due_at = self._place(track, policy, verdict, now)
            if verdict is not previous:
                track.judged_since = now
            self._report(track, policy, due_at)
        self._timers.set(track.key, track.next_turn(policy, policies, due_at, now))
        if look.shim.state is not _ALIVE:
            # By its socket, that is: an older sweep may still show a shim that has just died.
            self._asking.want("death", track.looked_at, awaited=track.is_news)

    def _choose_policy(self, track: Track) -> Policy:
        policy = track.policy
        if policy is None:
            known = self._pods.known(track, self.get)
            policy = track.policy = self._policies.applied(track.key, known)
        return policy

    def _note_life(self, track: Track, look: Look, previous: Verdict | None, now: float) -> None:
        verdict, key, answers = track.verdict, track.key, look.shim.state is _ALIVE
        if verdict in LIVING:
            track.deaths = track.deaths or Deaths()
            self._living.add(key)
            self._cleanups.mass.revived(key)
        else:
            self._living.discard(key)
        if track.is_served_for_sure(answers=answers) and self._node_state.covers(track.first_seen):
            self._open.pop(key, None)
        else:
            self._open[key] = track
        if track.deaths is not None and track.facts is not None:
            track.deaths.update(track.facts, now, answers=answers)
        if previous in LIVING and verdict not in (previous, _ABANDONED):
            track.life = now
        # The end of a shim that served nobody is no workload's.
        fell = verdict is _LEFTOVER and previous not in _FALLEN
        if fell and track.last_alive is not None:
            self._cleanups.mass.died(key, now)

    def _count_death(self, track: Track) -> None:
        cause = track.deaths.confirm(track.facts) if track.deaths and track.facts else None
        if cause is not None:
            self._out.append(Died(track.key, cause))

    # ------------------------------------------------------------------ one bundle, placed

    def _policy(self, track: Track) -> Policy:
        return track.policy or self._policies.default

    def _place(self, track: Track, policy: Policy, verdict: Verdict, now: float) -> float | None:
        """Move a bundle to where it stands now; say when it is due if it waits for that.

        1. It is no leftover, and neither an orphan nor an abandoned shim that may be ended.
        2. It is one, and a rule protects it.
        3. Its time has not come yet: neither grace nor budget have made it due.
        4. Its time has come, and the pause after a failed attempt is not over.
        5. Its time has come.
        """
        is_leftover = verdict is _LEFTOVER
        if not is_leftover:
            self._dues.leave(track)
            self._out += newly_exceeded(track, policy, now)
            claims, pods = self.claims, self._pods
            if verdict not in ENDED or claims.objection(track, verdict, self._policies, pods):
                track.stop_waiting(verdict)
                self._move(track, policy, Event.NOT_CONCERNED)
                return None
        track.go_on_waiting(verdict, now)
        if is_leftover:
            for key in self._dues.enter(track, policy, self._policies.node_max_size):
                # To be thought about at once, but from the top: it may be another bundle.
                self._timers.set(key, now)
        due_at = self._dues.due_at(track, policy)
        if policy.protect:
            self._move(track, policy, Event.PROTECTED, policy.name)
        elif now < due_at:
            self._move(track, policy, Event.EARLY)
            return due_at
        elif track.attempts and now < track.retry_at:
            self._move(track, policy, Event.PAUSED, track.cause)
        else:
            self._move(track, policy, Event.DUE)
        return None

    def _move(self, track: Track, policy: Policy, event: Event, cause: str = "") -> None:
        """Move a bundle; in the queue of cleanups is what is due and may be removed, no other."""
        before = track.phase
        track.move(event, cause)
        if track.phase is _DUE and policy.enforce:
            track.become_due(policy)
            self._cleanups.queue(track.key, track.life or 0.0)
        elif before is _DUE:
            self._cleanups.withdraw(track.key)

    def _fire_timer(self, track: Track, now: float) -> None:
        since = track.deaths.since if track.deaths else None
        if since is not None and now >= since + self._policies.confirm_death:
            self._count_death(track)
        if track.verdict in UNSURE:
            self._asking.want(RECHECK, now)
            if track.may_look_otherwise:
                self._out.append(LookAt(track.key, HintKind.CHANGED))
        self.reconsider(track, now)

    # ------------------------------------------------------------------ for people

    def view(self, key: BundleKey, now: float) -> BundleView | None:
        """Show one bundle; None if it is not known or not looked at yet."""
        track = self._tracks.get(key)
        if track is None:
            return None
        policy = self._policy(track)
        node, hold = self._node_state, self._cleanups.hold
        due_at = self._dues.due_at(track, policy)
        return view_of(track, node, policy, hold=hold, due_at=due_at, now=now)

    def summary(self, now: float) -> Summary:
        """Count all bundles; one pass over them."""
        hold, about = self._cleanups.hold, self._node_state.about
        return summarize(self, lambda track: shown(track, self._policy(track), hold), about, now)

    def is_settled(self, track: Track, now: float) -> bool:
        """Return whether waiting out the grace would change nothing for this bundle."""
        if track.look is None or track.phase is not Phase.WAITING or track.attempts:
            return track.look is not None
        policy = self._policy(track)
        grace_ends = (track.leftover_since or 0.0) + policy.grace
        return self._dues.due_at(track, policy) > max(now, grace_ends)

    def _report(self, track: Track, policy: Policy, due_at: float | None = None) -> None:
        """Report what is believed of a bundle, and when it is due, if that is news to listeners."""
        judgement = track.judgement
        if judgement is None:
            return  # nothing was reported of it yet, and nothing can be
        previous, verdict = track.told_verdict, judgement.verdict
        phase, cause = announced(track, policy, self._cleanups.hold)
        if previous is verdict and track.told_phase is phase and track.told_cause == cause:
            return
        track.told_verdict, track.told_phase, track.told_cause = verdict, phase, cause
        self._out.append(Judged(track.key, judgement, phase, previous, cause, due_at, track.facts))
