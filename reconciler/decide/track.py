"""A track: everything the engine remembers about one bundle."""

from functools import lru_cache
from math import inf
from typing import Final, TypeVar

import msgspec
from msgspec.structs import force_setattr

from reconciler.decide.deaths import Deaths
from reconciler.decide.lifecycle import TABLE, Event
from reconciler.decide.verdicts import DENIED, INIT_GONE
from reconciler.model.decisions import BudgetKind, Judgement, Phase, Verdict
from reconciler.model.evidence import (
    NO_LABELS,
    Answer,
    CgroupState,
    Containerd,
    Facts,
    InitState,
    Labels,
    Look,
    Runtime,
    RuntimeState,
    ShimState,
    TaskState,
)
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.labels import doubted, joined
from reconciler.model.observations import Stamp
from reconciler.model.policy import Policies, Policy

SERVED: Final = frozenset({Verdict.RUNNING, Verdict.STOPPED})
"""Verdicts under which a living shim serves the bundle."""

ENDED: Final = frozenset({Verdict.ORPHANED, Verdict.ABANDONED})
"""Verdicts under which processes are ended, where a policy says so, and nothing is removed."""

LIVING: Final = SERVED | {Verdict.ORPHANED}
"""Verdicts under which something of the bundle lives."""

UNCONCERNED: Final = frozenset(Verdict) - ENDED - {Verdict.LEFTOVER}
"""Verdicts under which nothing may be ended or removed, so that nothing is waited for."""

UNSURE: Final = frozenset(
    {Verdict.IN_TRANSITION, Verdict.UNKNOWN, Verdict.ORPHANED, Verdict.STARTING}
)
"""Verdicts that are looked into again and again."""

LISTED_AFTER: Final = 60.0
"""Seconds since its last sign of life after which a running task must be known to containerd."""

NOT_REPORTED: Final = frozenset[BudgetKind]()
"""One for all: each empty set that is made takes 216 bytes."""

# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_RUNNING, _STOPPED, _STARTING = Verdict.RUNNING, Verdict.STOPPED, Verdict.STARTING
_ORPHANED, _UNKNOWN = Verdict.ORPHANED, Verdict.UNKNOWN
_NO_PHASE, _BLOCKED = Phase.NONE, Phase.BLOCKED
_LISTED: Final = TaskState.LISTED
_ALIEN: Final = RuntimeState.ALIEN

_Shared = TypeVar("_Shared", Runtime, str, int)

_SOON: Final = 0.25
_LEAVING: Final = 0.02


class Track(msgspec.Struct, gc=False):
    """One bundle over time. Monotonic seconds throughout.

    Not looked through by the garbage collector: it holds values, none of which leads back to it.

    Attributes:
        key, identity: The name and the object it means.
        first_seen: When this object was first seen.
        look, looked_at, facts, judgement, verdict: The latest; None before the first look.
        is_news: Whether the latest look found anything else than the one before.
        weighed_with: The number of the witnesses' word that ``look`` and ``facts`` agree with; None
            if they were not weighed together yet.
        judged_since: Since when it has this verdict.
        policy: The one that applies; None until it has been (or must be) looked up.
        is_stale: Whether a cleanup was under way since the latest look; others do not count then.
        labels: All that was readable of this object's labels: config.json may vanish later.
        pod: Its pod's sandbox's labels, as far as they were asked for: that may vanish earlier.
        phase, cause: How far it is on its way to removal, and why; see :meth:`move`.
        told_verdict, told_phase, told_cause: What listeners know.
        life: Last sign of life; negative for times before the boot.
        last_alive: When this process last judged it alive.
        leftover_since: Since when it has been leftover without a break.
        waiting_as: The verdict under which it waits: a leftover, or an orphan or an abandoned shim
            that is to be ended.
        resumed: ``leftover_since`` as an earlier run wrote it down, until the first verdict.
        is_requested: Whether somebody asked for it to be cleaned now, and it stayed a leftover.
        attempts: Failed attempts on this leftover.
        retry_at: Not before, after a failed attempt.
        due_under: The policy under which it became due; None if it has not, or if others were put
            into force since. A size budget may have made it due that is not exceeded any more.
        due_life: Its last sign of life at that time; our own half-done work must not make it look
            young.
        deaths: Deaths not counted yet.
        counted_as, counted_size: The policy under whose name it is counted while it is a leftover,
            and with how many bytes.
        reported: Budgets already reported as exceeded by this running task.
    """

    key: BundleKey
    identity: Identity
    first_seen: float
    look: Look | None = None
    looked_at: float = 0.0
    is_news: bool = True
    weighed_with: int | None = None
    facts: Facts | None = None
    judgement: Judgement | None = None
    verdict: Verdict | None = None
    judged_since: float = 0.0
    policy: Policy | None = None
    is_stale: bool = False
    labels: Labels = NO_LABELS
    pod: Labels = NO_LABELS
    phase: Phase = Phase.NONE
    cause: str = ""
    told_verdict: Verdict | None = None
    told_phase: Phase = Phase.NONE
    told_cause: str = ""
    life: float | None = None
    last_alive: float | None = None
    leftover_since: float | None = None
    waiting_as: Verdict | None = None
    resumed: float | None = None
    is_requested: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    due_under: Policy | None = None
    due_life: float | None = None
    deaths: Deaths | None = None
    counted_as: Policy | None = None
    counted_size: int = 0
    reported: frozenset[BudgetKind] = NOT_REPORTED

    def move(self, event: Event, cause: str = "") -> None:
        """Go where an event leads; ``cause`` is a block reason or the name of a rule."""
        self.phase, self.cause = TABLE[event][self.phase], cause

    def absorb(self, look: Look, stamp: Stamp, *, volatile: bool) -> None:
        """Take in a fresh look at the same object.

        File times are wall-clock times. They are placed on the monotonic clock, never later than
        now (a future mtime is no promise), never before the boot on a volatile tree (a wall clock
        that was wrong at boot), and never earlier than a sign of life already known (a wall clock
        that jumped). A time that stands in the future is a sign of life once, when it is first
        seen, and not with every look until the wall clock has caught up.
        """
        if self.look is None or self.life is None or look.newest_mtime != self.look.newest_mtime:
            life = stamp.mono - max(0.0, stamp.wall - look.newest_mtime)
            if volatile:
                life = max(life, 0.0)
            self.life = life if self.life is None else max(self.life, life)
        self.is_news = look is not self.look and look != self.look
        if self.is_news:
            self.weighed_with = None
            _share(look, self.key)
        self.look = look
        self.looked_at = stamp.mono
        self.is_stale = False
        if look.identity == self.identity:
            self.identity = look.identity  # equal, and one object is enough for each bundle
        labels = look.labels
        if labels != self.labels:
            labels = joined(labels, self.labels)
            if labels != self.labels:
                self.policy = None
        self.labels = labels

    def ask_for_more(self) -> None:
        """Note that rules match on annotations now that earlier looks were not asked for.

        A reload waits for looks that were. Those do not count at a bundle that a cleanup is under
        way on, and config.json may have gone since it was read, as may the whole sandbox: then it
        is not known whether there is such an annotation.
        """
        if self.is_stale or self.look is None or not self.look.labels.known:
            self.labels = doubted(self.labels)
        self.pod = doubted(self.pod)  # what is still there shows it anew

    @property
    def may_look_otherwise(self) -> bool:
        """Whether another look could help: not if only the node's witnesses are silent."""
        look = self.look
        return look is not None and (
            self.verdict is not Verdict.UNKNOWN
            or look.init.state is InitState.NONE
            or look.shim.state is ShimState.NONE
            or look.cgroup is CgroupState.NONE
            or look.runtime.state is RuntimeState.NONE
            or look.created is Answer.NONE
        )

    def is_served_for_sure(self, *, answers: bool) -> bool:
        """Return whether the node's witnesses cannot say otherwise any more, once they spoke of it.

        ``answers``: its shim does by its own socket, and not only by a pass over /proc.

        1. Served according to a process scan alone, it is judged again when one differs.
        2. Judged before the witnesses spoke of it, it is judged again when they do: a helper
           that they knew before the bundle was seen is no news to anybody else.
        3. Stopped, and not known to be containerd's: what containerd says decides.
        """
        if self.verdict is _STOPPED:
            return answers and self.facts is not None and self.facts.task is _LISTED
        return answers and self.verdict is _RUNNING

    def become_due(self, policy: Policy) -> None:
        """Note under which policy it became due."""
        if self.due_under is not policy:
            self.due_under = policy
            if self.due_life is None:
                self.due_life = self.life

    def wait_again(self, since: float | None = None) -> None:
        """Begin the grace anew: at once, or None for when it is judged next."""
        self.leftover_since = since
        self.due_under = self.due_life = None
        self.is_requested = False

    def go_on_waiting(self, verdict: Verdict, now: float) -> None:
        """Wait as a leftover, or as what is to be ended; each has a grace of its own."""
        if self.waiting_as is not verdict:
            self.waiting_as = verdict
            self.wait_again()
        if self.leftover_since is None:
            self.leftover_since = now if self.resumed is None else min(now, self.resumed)
            self.resumed = None

    def waits_for_nothing(self) -> bool:
        """Return whether it is as :meth:`stop_waiting` leaves it, and listeners know that."""
        return self.phase is _NO_PHASE is self.told_phase and self.waiting_as is None

    def stop_waiting(self, verdict: Verdict) -> None:
        """Forget all that was waited for: it is something else now."""
        self.waiting_as = None
        self.wait_again()
        self.attempts, self.retry_at = 0, 0.0
        if verdict is not _UNKNOWN:
            self.resumed = None

    def age(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self.life if self.life is not None and self.life < now else 0.0

    def next_turn(
        self, policy: Policy, policies: Policies, due_at: float | None, now: float
    ) -> float | None:
        """When to think about it again, although nothing happens; None for never.

        1. Unsure: soon at first, then more rarely. Never if its runtime is not one we know.
        2. Starting, or stopped without a task of containerd's: when it is not young any more.
        3. Running: when it exceeds the age budget.
        4. Waiting until it is due (``due_at``), or blocked until the next attempt.
        5. Dead since a moment: when that has lasted long enough to count.
        """
        verdict, facts, life, deaths = self.verdict, self.facts, self.life or 0.0, self.deaths
        at = inf if due_at is None else due_at
        if verdict in UNSURE:
            if facts is None or facts.runtime is not _ALIEN:
                at = min(at, now + self._recheck_after(now, at_most=policies.recheck))
        elif verdict is _RUNNING and policy.max_age and life + policy.max_age > now:
            at = min(at, life + policy.max_age)
        is_denied = verdict is _STOPPED and facts is not None and facts.task in DENIED
        if (verdict is _STARTING or is_denied) and life + policies.settle > now:
            at = min(at, life + policies.settle)
        if due_at is None and self.phase is _BLOCKED:
            at = min(at, self.retry_at)
        if deaths is not None and deaths.since is not None:
            at = min(at, deaths.since + policies.confirm_death)
        return None if at == inf else at

    def _recheck_after(self, now: float, *, at_most: float) -> float:
        """Seconds until an unsure verdict is looked into again.

        What dies takes a moment to leave its cgroup, and nothing announces when it has: until then
        it looks like a workload that lost its shim and its init. Creation is announced by events.
        """
        if self.verdict is _STARTING:
            return at_most
        leaves = self.verdict is _ORPHANED and self.facts and self.facts.init in INIT_GONE
        return min(at_most, max(_LEAVING if leaves else _SOON, now - self.judged_since))


def _share(look: Look, key: BundleKey) -> None:
    """Keep one object of what thousands of looks have alike, and none of what the key has.

    Each that came from a worker or a journal has its own. One is put in place of another only
    where they are equal, so that a look says what it said, to everybody who has it.
    """
    identity, init, shim = look.identity, look.init, look.shim
    force_setattr(look, "runtime", _one(look.runtime))
    force_setattr(look, "size_bytes", _one(look.size_bytes))
    force_setattr(identity, "dev", _one(identity.dev))
    force_setattr(identity, "mount_id", _one(identity.mount_id))
    if shim.group == key.id:
        force_setattr(shim, "group", key.id)
    for part in (init, shim):
        if part.detail:
            force_setattr(part, "detail", _one(part.detail))
    for mount in look.mounts:
        force_setattr(mount, "path", _one(mount.path))
        force_setattr(mount, "fstype", _one(mount.fstype))


@lru_cache(maxsize=256)
def _one(value: _Shared) -> _Shared:
    """Give the first of equal values, the last few hundred of them."""
    return value


def is_unlisted(track: Track, said: Containerd, now: float) -> bool:
    """Return whether it runs and a containerd that answers does not know it: a split brain.

    A task that was made a moment ago is listed a moment later.
    """
    if track.verdict is not Verdict.RUNNING or track.age(now) < LISTED_AFTER:
        return False
    return task_of(track.key, said) in DENIED


def is_wedged(track: Track, said: Containerd) -> bool:
    """Return whether its shim gives containerd no answer; one that still creates it cannot yet."""
    return track.verdict in SERVED and track.key in said.wedged
