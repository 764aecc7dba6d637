"""Deaths: abnormal terminations, each counted once. Pure."""

import msgspec

from reconciler.decide.verdicts import INIT_GONE
from reconciler.model.evidence import Facts, InitState, ShimState


class Deaths(msgspec.Struct):
    """Counts each death of an init or a shim once, and only those nobody ordered.

    An init that exits under a living shim ended in order. A shim that exits and takes its bundle
    along ended in order too, so a death must last, or have left a living init behind, to count.
    """

    alive: set[str] = msgspec.field(default_factory=set)
    since: float | None = None
    orphaned: bool = False

    def update(self, facts: Facts, now: float, *, answers: bool) -> None:
        """Take in new facts about init and shim.

        ``answers``: the shim's own socket does. One that only an older pass over /proc still
        shows may have died together with its init.
        """
        if facts.shim is ShimState.ALIVE:
            self.alive.add("shim")
            if facts.init in INIT_GONE and answers:
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
        gone = {"shim", "init"} if facts.init in INIT_GONE else {"shim"}
        return gone & self.alive
