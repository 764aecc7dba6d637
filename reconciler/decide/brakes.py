"""Brakes: rules that may only take actions away (design section 4). Pure."""

from collections import OrderedDict, deque
from typing import Final

from reconciler.model.evidence import ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import STEPS, BlockReason, Outcome
from reconciler.model.policy import Brakes

PATIENCE: Final = 300.0
"""Seconds; an attempt and six more, at the usual pauses."""

RENEWED: Final = 3600.0
"""Seconds from the beginning of one such time to the next."""

_FIRST_STEP: Final = STEPS[0]
_WINDOW: Final = 60.0


class RateBrake:
    """At most ``max_per_minute`` cleanups begin in any 60 seconds."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque()
        self._count = 0

    def free_at(self, now: float, limit: int | None) -> float | None:
        """When the next cleanup may begin: None for now, else a time after ``now``."""
        while self._begun and self._begun[0] <= now - _WINDOW:
            self._begun.popleft()
        if limit is None or len(self._begun) < limit:
            return None
        return self._begun[len(self._begun) - limit] + _WINDOW

    def room(self, now: float, limit: int | None) -> int | None:
        """How many may begin now; None for no limit."""
        return 0 if self.free_at(now, limit) else limit and limit - len(self._begun)

    def release(self) -> None:
        """Count anew: what began before holds nothing back any more."""
        self._begun.clear()

    def begin(self, now: float) -> int:
        """Count one cleanup; gives its number."""
        self._begun.append(now)
        self._count += 1
        return self._count

    def allows(self, number: int, limit: int | None) -> bool:
        """Return whether one that was counted may go under this limit, lower perhaps by now."""
        earlier = self._count - len(self._begun)
        return limit is None or number - earlier <= limit


class Patience:
    """For how long cleanups wait where nobody can say who else has a bundle's names.

    As a rule that passes: a shim is about to begin or to end. Who waits is tried again after the
    usual pauses. A shim that is stuck for good must not keep a node from being cleaned, so from the
    first that waits on there are :data:`PATIENCE` seconds for all together, and the next only once
    all who waited were answered in time, or after :data:`RENEWED` seconds.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._waiting = set[BundleKey]()

    def lasts(self, now: float) -> bool:
        """Return whether a cleanup that is begun now may wait for an answer."""
        since = self._since
        return since is None or not since + PATIENCE <= now < since + RENEWED

    def ended(self, outcome: Outcome, now: float) -> None:
        """Take in what came of an attempt."""
        if outcome.reason is BlockReason.OWNER:
            if self._since is None or now >= self._since + RENEWED:
                self._since = now
                self._waiting.clear()
            self._waiting.add(outcome.key)
        elif any(step.step != _FIRST_STEP for step in outcome.steps):  # it got past the question
            self._waiting.discard(outcome.key)
            if not self._waiting and self.lasts(now):
                self._since = None


class MassDeathBrake:
    """Holds everything when most of what lived is suddenly dead: more likely we are blind.

    A death counts while the bundle stays leftover. The brake is pulled when at least
    ``mass_deaths`` bundles died within ``hold`` seconds and they outnumber the survivors. It is
    released when ``hold`` has passed since, or somebody says so, and containerd answers or is
    proven down.
    """

    def __init__(self) -> None:
        self._died = OrderedDict[BundleKey, float]()  # by time
        self._pulled_at: float | None = None
        self._need_not_wait = False

    @property
    def pulled(self) -> bool:
        """Whether it holds now."""
        return self._pulled_at is not None

    def died(self, key: BundleKey, now: float) -> None:
        """Take note that a bundle that was alive is a leftover now.

        Whoever has released the brake knew of the deaths until then, and not of this one.
        """
        self._need_not_wait = False
        self._died[key] = now
        self._died.move_to_end(key)

    def revived(self, key: BundleKey) -> None:
        """Take note that a bundle is alive after all, or that containerd took it away in order."""
        self._died.pop(key, None)

    def is_idle(self, limits: Brakes) -> bool:
        """Return whether :meth:`update` would change nothing, whatever is alive and answers."""
        return self._pulled_at is None and len(self._died) < limits.mass_deaths

    def update(self, now: float, alive: int, containerd: ContainerdState, limits: Brakes) -> bool:
        """Pull or release; True if that changed anything.

        Args:
            now: Monotonic seconds.
            alive: Bundles alive at the last look.
            containerd: Whether containerd can be asked.
            limits: The configured brakes.
        """
        if self._pulled_at is not None:
            silent = containerd is ContainerdState.NONE
            waits = now < self._pulled_at + limits.hold and not self._need_not_wait
            if self._died and (silent or waits):
                return False
            self._pulled_at = None
            self._died.clear()
            return True
        if self.is_idle(limits):
            return False  # also with those that are too long ago
        self._forget_until(now - limits.hold)
        if len(self._died) >= limits.mass_deaths and len(self._died) > alive:
            self._pulled_at, self._need_not_wait = now, False
            return True
        return False

    def release(self) -> None:
        """Do not wait any longer: somebody knows why they died."""
        self._need_not_wait = True

    def _forget_until(self, then: float) -> None:
        while self._died and next(iter(self._died.values())) <= then:
            self._died.popitem(last=False)

    @property
    def deaths(self) -> int:
        """How many recent deaths it knows of."""
        return len(self._died)

    def release_at(self, limits: Brakes) -> float | None:
        """When it may be released at the earliest; None if it is not pulled."""
        return None if self._pulled_at is None else self._pulled_at + limits.hold
