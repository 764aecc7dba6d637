"""A track: everything the engine remembers about one bundle."""

from dataclasses import dataclass, field
from typing import Final

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
    RuntimeState,
    ShimState,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.labels import doubted, joined
from reconciler.model.observations import Stamp
from reconciler.model.policy import Policy

SERVED: Final = frozenset({Verdict.RUNNING, Verdict.STOPPED})
"""Verdicts under which a living shim serves the bundle."""

LIVING: Final = SERVED | {Verdict.ORPHANED}
"""Verdicts under which something of the bundle lives."""

GONE: Final = frozenset({InitState.DEAD, InitState.ABSENT})

_SOON: Final = 0.25
_LEAVING: Final = 0.02


@dataclass(slots=True)
class Deaths:
    """Counts each death of an init or a shim once, and only those nobody ordered.

    An init that exits under a living shim ended in order. A shim that exits and takes its bundle
    along ended in order too, so a death must last, or have left a living init behind, to count.
    """

    alive: set[str] = field(default_factory=set)
    since: float | None = None
    orphaned: bool = False

    def update(self, facts: Facts, now: float, *, answers: bool) -> None:
        """Take in new facts about init and shim.

        ``answers``: the shim's own socket does. One that only an older pass over /proc still
        shows may have died together with its init.
        """
        if facts.shim is ShimState.ALIVE:
            self.alive.add("shim")
            if facts.init in GONE and answers:
                self.alive.discard("init")
        if facts.init is InitState.ALIVE:
            self.alive.add("init")
        dead = self._dead(facts)
        if not dead:
            self.since, self.orphaned = None, False
        elif self.since is None:
            self.since = now
        self.orphaned = self.orphaned or (bool(dead) and facts.init is InitState.ALIVE)

    def confirm(self, facts: Facts) -> str | None:
        """Count what is dead now: ``init``, ``shim``, ``both`` or None."""
        dead = self._dead(facts)
        self.alive -= dead
        self.since, self.orphaned = None, False
        return None if not dead else "both" if len(dead) > 1 else next(iter(dead))

    def _dead(self, facts: Facts) -> set[str]:
        if facts.shim is not ShimState.DEAD:
            return set()
        gone = {"shim", "init"} if facts.init in GONE else {"shim"}
        return gone & self.alive


@dataclass(slots=True)
class Track:
    """One bundle over time. Monotonic seconds throughout.

    Attributes:
        key, identity: The name and the object it means.
        first_seen: When this object was first heard of.
        look, looked_at, facts, judgement: The latest; None before the first look.
        is_news: Whether the latest look told anything else than the one before.
        weighed_with: The number of the witnesses' word that ``look`` and ``facts`` agree with; None
            if they were not weighed together yet.
        judged_since: Since when it has this verdict.
        policy: The one that applies; None until it has been (or must be) looked up.
        is_stale: Whether hands were on it since the latest look; others are not heard meanwhile.
        labels: All that was readable of this object's labels: config.json may vanish later.
        pod: Its pod's sandbox's labels, as far as they were asked for: that may vanish earlier.
        phase, cause: Where a leftover stands, and why.
        life: Last sign of life; negative for times before the boot.
        last_alive: When it was last judged alive under our eyes.
        leftover_since: Since when it has been leftover without a break.
        waiting_as: The verdict under which it waits: a leftover, or an orphan that is to be ended.
        resumed: ``leftover_since`` as an earlier run wrote it down, until the first verdict.
        attempts: Failed attempts on this leftover.
        retry_at: Not before, after a failed attempt.
        due_under: The policy under which it became due; None if it has not, or if others were put
            into force since. A size budget may have made it due that is not exceeded any more.
        due_life: Its last sign of life at that time; our own half-done work must not make it look
            young.
        deaths: Deaths not counted yet.
        counted_as: The policy under whose name its size is counted while it is a leftover.
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
    judged_since: float = 0.0
    policy: Policy | None = None
    is_stale: bool = False
    labels: Labels = NO_LABELS
    pod: Labels = NO_LABELS
    phase: Phase = Phase.NONE
    cause: str = ""
    life: float | None = None
    last_alive: float | None = None
    leftover_since: float | None = None
    waiting_as: Verdict | None = None
    resumed: float | None = None
    attempts: int = 0
    retry_at: float = 0.0
    due_under: Policy | None = None
    due_life: float | None = None
    deaths: Deaths | None = None
    counted_as: str | None = None
    reported: frozenset[BudgetKind] = frozenset()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, None before the first judgement."""
        return None if self.judgement is None else self.judgement.verdict

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
        self.look = look
        self.looked_at = stamp.mono
        self.is_stale = False
        if look.identity == self.identity:
            self.identity = look.identity  # equal, and one object is enough for each bundle
        labels = joined(look.labels, self.labels)
        if labels != self.labels:
            self.policy = None
        self.labels = labels

    def ask_for_more(self) -> None:
        """Note that rules match on annotations now that earlier looks were not asked for.

        A reload waits for looks that were. Not heard are those at a bundle that hands are on, and
        config.json may have gone since it was read, as may the whole sandbox: then it is not known
        whether there is such an annotation.
        """
        if self.is_stale or self.look is None or not self.look.labels.known:
            self.labels = doubted(self.labels)
        self.pod = doubted(self.pod)  # what is still there tells it anew

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

    def become_due(self, policy: Policy) -> None:
        """Note under which policy it became due."""
        if self.due_under is not policy:
            self.due_under = policy
            if self.due_life is None:
                self.due_life = self.life

    def begin_waiting(self, verdict: Verdict | None, since: float | None) -> None:
        """Wait anew, as a leftover or an orphan to be ended; None: it is neither."""
        self.waiting_as, self.leftover_since = verdict, since
        self.due_under = self.due_life = None

    def age(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return 0.0 if self.life is None else max(0.0, now - self.life)

    def recheck_after(self, now: float, *, at_most: float) -> float:
        """Seconds until an unsure verdict is looked into again: soon at first, then more rarely.

        What dies takes a moment to leave its cgroup, and nothing tells us when it has: until then
        it looks like a workload that lost its shim and its init. Creation tells by events.
        """
        if self.verdict is Verdict.STARTING:
            return at_most
        leaves = self.verdict is Verdict.ORPHANED and self.facts and self.facts.init in GONE
        return min(at_most, max(_LEAVING if leaves else _SOON, now - self.judged_since))


def is_wedged(track: Track, said: Containerd) -> bool:
    """Tell whether its shim gives containerd no answer; one that still creates it cannot yet."""
    return track.verdict in SERVED and track.key in said.wedged
