"""The engine: observations and the time in, decisions and the next deadline out. Sans-IO.

One object for the daemon, `scan`, `explain`, replay and the property tests. It never looks, never
waits and never acts; it asks for looks, listings and cleanups and receives what came of them. The
same observations at the same times give the same decisions.

Cost is per change: a bundle is thought about when something about it was observed or when its
timer has fired. A full pass happens only where a whole listing was observed or a witness
changed its mind about everybody.
"""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from msgspec.structs import replace

from reconciler.decide.asking import RECHECK, Asking, FirstLooks
from reconciler.decide.bundles import Bundles
from reconciler.decide.cleanups import Cleanups, Hold, Unfinished
from reconciler.decide.debris_cycle import Debris
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.lifecycle import Event
from reconciler.decide.nodestate import NodeState
from reconciler.decide.outcomes import take_outcome
from reconciler.decide.track import Track
from reconciler.decide.views import BundleView, Summary
from reconciler.model.containerd import ShimGroup
from reconciler.model.debris import WHOLE_BATCH, DebrisCleaned, Inventory
from reconciler.model.decisions import (
    Clean,
    CleanDebris,
    Decision,
    FinishRemoval,
    LookAt,
    Phase,
    Relist,
    TakeInventory,
)
from reconciler.model.evidence import NO_LABELS, Labels, Node
from reconciler.model.ids import NOWHERE, BundleKey
from reconciler.model.observations import (
    CleanRequested,
    GuardsChecked,
    Hidden,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Refusal,
    ReleaseRequested,
    Remembered,
    Resync,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies

_CLEANING: Final = Phase.CLEANING
_BLOCKER_GONE: Final = frozenset({HintKind.HOLDER_EXIT, HintKind.MOUNT})


class Engine:
    """What we believe about every bundle, and what should happen next.

    Args:
        policies: What the operator allows; replaced by :meth:`configure`.
        is_one_pass: Whether it ends when nothing more is to be waited for.
    """

    def __init__(self, policies: Policies, *, is_one_pass: bool = False) -> None:
        self._policies = policies
        self._out: list[Decision] = []
        self._node_state = NodeState()
        self._first_looks = FirstLooks()
        self._asking = Asking(self._first_looks)
        self._cleanups = Cleanups()
        self._bundles = Bundles(policies, self._node_state, self._asking, self._cleanups, self._out)
        self._unfinished = Unfinished()
        self._debris = Debris(policies, self._node_state, is_one_pass=is_one_pass)
        self._again_at: float | None = None

    # ------------------------------------------------------------------ in and out

    def observe(  # noqa: C901, PLR0912 - one case each
        self, stamp: Stamp, observation: Observation
    ) -> list[Decision]:
        """Take in one observation; return what follows from it."""
        now, self._node_state.wall = stamp.mono, stamp.wall
        match observation:  # the frequent ones first
            case Looked():
                self._take_look(observation, stamp)
            case Hint():
                self._take_hint(observation, now)
            case NodeLooked():
                self._take_node(observation, stamp)
            case Resync():
                self._out.append(Relist(observation.kind, observation.namespace))
            case Listed():
                self._take_listing(observation, now)
            case Inventory():
                self._debris.receive(observation)
                self._debris.judge(stamp)
                # What containerd says of the places counts only if it is asked after they were.
                if observation.places or self._debris.is_tracking:
                    self._asking.want("inventory", now)
            case DebrisCleaned():
                self._debris.ended(observation.results, stamp)
            case GuardsChecked():
                self._take_guards(observation, stamp)
            case Remembered():
                if observation.cgroup_until is not None:
                    self._node_state.remember_cgroup(observation.key, observation.cgroup_until)
                if observation.identity != NOWHERE:
                    self._bundles.remember(observation)
            case CleanRequested() | ReleaseRequested():
                self._take_request(observation, now)
            case Outcome():
                self._take_outcome(observation, stamp)
            case _:
                assert_never(observation)
        return self._conclude(now)

    def advance(self, stamp: Stamp) -> list[Decision]:
        """Fire every timer that is due; call it when :attr:`deadline` has passed."""
        self._bundles.fire_timers(stamp.mono)
        self._debris.advance(stamp.mono)
        if self._again_at is not None and self._again_at <= stamp.mono:
            self._again_at = None
            self._asking.want(RECHECK, stamp.mono)
        return self._conclude(stamp.mono)

    def configure(self, stamp: Stamp, policies: Policies) -> list[Decision]:
        """Put other policies into force and think about everything again."""
        self._policies = policies
        self._bundles.configure(policies, stamp.mono)
        self._debris.configure(policies, stamp.mono)
        return self._conclude(stamp.mono)

    def refusal(
        self,
        request: Clean | FinishRemoval | CleanDebris,
        now: float,
        guards: tuple[Refusal, ...],
    ) -> Outcome | None:
        """Give the outcome of what was asked for and must not begin any more; None if it may.

        That of a batch of debris speaks of the whole batch.

        To be asked at the very moment a cleanup is sent: guards (``guards``: those that refuse
        now), brakes and policies may be others than when it was asked for. Changes nothing that is
        decided, so a replay need not know of it.
        """
        why, reason = "; ".join(guard.reason for guard in guards), BlockReason.GUARD
        if not guards:
            why, reason = self._objection(request, now), BlockReason.POLICY
        if not why:
            return None
        if isinstance(request, CleanDebris):
            return replace(WHOLE_BATCH, result=Result.HELD, reason=reason, detail=why)
        return Outcome(request.key, request.identity, Result.HELD, reason, why)

    def _objection(self, request: Clean | FinishRemoval | CleanDebris, now: float) -> str:
        if isinstance(request, CleanDebris):
            return self._cleanups.stopped() or self._debris.objection(request.places, now)
        if isinstance(request, FinishRemoval):
            return self._policies.applied_to_hidden(request.key.namespace).objection()
        held = self._cleanups.objection(request.key, self._policies)
        return held or self._bundles.objection(request.key, now, request.wanted)

    def request_refusal(self, key: BundleKey) -> str:
        """Say why a request to clean a bundle now would have no effect; empty if it would."""
        return self._bundles.refusal(key)

    @property
    def deadline(self) -> float | None:
        """Monotonic time at which :meth:`advance` wants to be called; None for never."""
        hold = self._cleanups.hold
        until = hold.until if hold else None
        next_timer, wake = self._bundles.next_timer, self._asking.wake
        times = (next_timer, wake, until, self._again_at, self._debris.wake)
        return min((at for at in times if at is not None), default=None)

    # ------------------------------------------------------------------ for people

    @property
    def is_answered(self) -> bool:
        """Whether the witnesses have answered every question that something waits for."""
        return not self._asking.pending and not self._debris.pace.pending

    def is_settled(self, now: float) -> bool:
        """Return whether waiting out the grace periods would change nothing any more.

        For one-shot commands: false while something is cleaned, asked, not yet looked at, or
        kept back by its grace alone. Looks at every bundle.
        """
        if self._cleanups.busy or self._unfinished.busy or not self.is_answered:
            return False
        if not self._debris.is_settled(now, self._cleanups.stop(now, self._policies)):
            return False
        return all(self._bundles.is_settled(track, now) for track in self._bundles)

    def views(self, now: float) -> Iterator[BundleView]:
        """Show what is believed about every bundle, in order of name."""
        for key in sorted(track.key for track in self._bundles):
            view = self._bundles.view(key, now)
            if view is not None:
                yield view

    def view(self, key: BundleKey, now: float) -> BundleView | None:
        """Show what is believed about one bundle; None if it is not known."""
        return self._bundles.view(key, now)

    def labels(self, key: BundleKey) -> Labels:
        """Tell what is known of a bundle's labels, also of one that has lost its config.json."""
        track = self._bundles.get(key)
        return NO_LABELS if track is None else track.labels

    def kept(self, key: BundleKey) -> BundleKey:
        """Give the equal key that is kept here; who keeps keys as well keeps the same object."""
        track = self._bundles.get(key)
        return key if track is None else track.key

    def to_ask(self, namespace: str) -> list[BundleKey]:
        """List whom containerd is to be asked for one by one where its list does not come.

        Those first that may be dead; not those of which that is known already.
        """
        return self._node_state.to_ask(namespace, self._bundles)

    def shims_to_ask(self) -> list[ShimGroup]:
        """List the shims of which containerd is asked whether it knows them at all."""
        return self._bundles.claims.groups()

    def shim_of(self, key: BundleKey) -> ShimGroup:
        """Give the names a bundle's shim may serve; empty if it may serve anybody."""
        return self._bundles.claims.group_of(key)

    def summary(self, now: float) -> Summary:
        """Count all bundles; one pass over them."""
        return self._bundles.summary(now)

    def track(self, key: BundleKey) -> Track | None:
        """Find what is remembered about one bundle; to be read only."""
        return self._bundles.get(key)

    @property
    def tracks(self) -> Iterator[Track]:
        """Everything that is remembered, for the checkpoint."""
        return iter(self._bundles)

    @property
    def had_cgroups(self) -> Mapping[BundleKey, float]:
        """Which bundles that are gone had the usual cgroup, and when it was last seen."""
        return self._node_state.had_cgroups

    @property
    def policies(self) -> Policies:
        """What the operator allows now."""
        return self._policies

    @property
    def hold(self) -> Hold | None:
        """The brake that holds everything now, None if the way is free."""
        return self._cleanups.hold

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        """Hidden directories found by the last listing."""
        return self._unfinished.hidden

    @property
    def debris(self) -> Debris:
        """What the last inventory found outside of bundles."""
        return self._debris

    def debris_views(self, stamp: Stamp) -> Iterator[DebrisView]:
        """Show what the last inventory found outside of bundles."""
        return self._debris.views(stamp, self._cleanups.stop(stamp.mono, self._policies))

    @property
    def node(self) -> Node:
        """What the node's witnesses said last."""
        return self._node_state.node

    # ------------------------------------------------------------------ observations

    def _take_hint(self, hint: Hint, now: float) -> None:
        track = self._bundles.get(hint.key)
        if track and track.phase is _CLEANING:
            return  # our own worker is moving things; the outcome will show
        if hint.kind in _BLOCKER_GONE and track and track.phase is Phase.BLOCKED:
            track.retry_at = now
        self._out.append(LookAt(hint.key, hint.kind))

    def _take_listing(self, listed: Listed, now: float) -> None:
        self._bundles.members.listed(listed, now)
        if not listed.answered:
            return
        found = {seen.key: seen.identity for seen in listed.bundles}
        gone = [t.key for t in self._bundles if t.key not in found and listed.covers(t.key)]
        for key in gone:
            self._first_looks.done(key, now)
            self._bundles.forget(key, now)
        self._first_looks.listed([key for key in found if self._bundles.get(key) is None], now)
        for key, identity in found.items():
            track = self._bundles.meet(key, identity, now)
            # By the key that is kept: what a look finds may refer to it for long.
            self._out.append(LookAt(track.key, HintKind.CHANGED))
        at_work = frozenset(t.identity for t in self._bundles if t.phase is _CLEANING)
        self._unfinished.listed(listed, at_work)
        self._asking.want("listing", now)
        if listed.namespace is None:
            self._debris.pace.listed(now)

    def _take_look(self, looked: Looked, stamp: Stamp) -> None:
        key, look = looked.key, looked.look
        track = self._bundles.get(key)
        self._first_looks.done(key, stamp.mono)
        if track and track.phase is _CLEANING:
            return
        if look is None:
            self._bundles.forget(key, stamp.mono)
            return
        # A failed look answers nothing, also not whether it is another object.
        if track is None or look.identity not in (track.identity, NOWHERE):
            track = self._bundles.meet(key, look.identity, stamp.mono)
        self._bundles.absorb(track, look, stamp)

    def _take_guards(self, checked: GuardsChecked, stamp: Stamp) -> None:
        self._cleanups.guard(checked.refused)
        if self._node_state.stand(checked.refused):
            self._bundles.judge_all_anew(stamp.mono)
            self._debris.judge(stamp, anew=True)

    def _take_request(self, request: CleanRequested | ReleaseRequested, now: float) -> None:
        if isinstance(request, ReleaseRequested):
            self._cleanups.release(f"uid {request.uid}, pid {request.pid}")
            self._debris.release()
            return
        for key in request.keys:
            self._bundles.request(key, now)
        if request.places:
            self._debris.request(request.places, now)

    def _take_node(self, received: NodeLooked, stamp: Stamp) -> None:
        now = stamp.mono
        change = self._node_state.receive(received)
        self._asking.answered(received.since, now)
        said = self._node_state.node.containerd
        # Nothing announces that a shim answers again.
        self._again_at = now + self._policies.recheck if said.wedged or said.unlisted else None
        for track in self._bundles.touched_by(change, now):
            self._bundles.reconsider(track, now)
        self._debris.judge(stamp)

    def _take_outcome(self, outcome: Outcome, stamp: Stamp) -> None:
        self._cleanups.ended(outcome.key)
        self._unfinished.ended(outcome)
        # Looks were ignored while a cleanup was under way on it: whatever happened, look again.
        self._out.append(LookAt(outcome.key, HintKind.CHANGED))
        track = self._bundles.get(outcome.key)
        if track is None:
            return
        if track.identity != outcome.identity:
            track.move(Event.RETURNED)
            return
        take_outcome(self._bundles, track, outcome, stamp)

    # ------------------------------------------------------------------ conclusions

    def _conclude(self, now: float) -> list[Decision]:
        out, unfinished, debris, asking = self._out, self._unfinished, self._debris, self._asking
        if unfinished.wanted and not self._cleanups.refused:
            out.extend(unfinished.begin(self._policies.applied_to_hidden))
        if not self._cleanups.is_idle(self._policies):
            alive, containerd = self._bundles.living, self._node_state.node.containerd
            begun, braked = self._cleanups.begin(now, self._policies, alive, containerd.state)
            out.extend(braked)
            for key in begun:
                self._bundles.begin(key)
        if debris.may_begin:
            batch = debris.begin(now, self._cleanups.stop(now, self._policies))
            if batch is not None:
                out.append(batch)
        # After the node was asked, so that one worker does both: handles may be few.
        if debris.pace.wanted and not asking.pending and debris.ask(now):
            out.append(TakeInventory())
        if (ask := asking.ask(now)) is not None:
            out.append(ask)
        concluded = out.copy()
        out.clear()
        return concluded
