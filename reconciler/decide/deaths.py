"""Deaths: abnormal terminations, each counted once. Pure."""

from typing import Final

import msgspec

from reconciler.decide.verdicts import INIT_GONE
from reconciler.model.decisions import DeathCause
from reconciler.model.evidence import Facts, InitState, ShimState

# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_SHIM_ALIVE, _SHIM_DEAD, _INIT_ALIVE = ShimState.ALIVE, ShimState.DEAD, InitState.ALIVE
_CAUSES: Final = {
    (False, False): None,
    (True, False): DeathCause.SHIM,
    (False, True): DeathCause.INIT,
    (True, True): DeathCause.BOTH,
}
"""The cause by whether the shim is dead and whether its init is."""


class Deaths(msgspec.Struct, gc=False):
    """Counts each death of an init or a shim once, and only those nobody ordered.

    An init that exits under a living shim ended in order. A shim that exits and takes its bundle
    along ended in order too, so a death must last, or have left a living init behind, to count.

    Attributes:
        shim, init: Whether it has lived, and its end was neither counted nor in order.
        since: Since when one is dead that has lived.
        orphaned: Whether a shim has left a living init behind.
    """

    shim: bool = False
    init: bool = False
    since: float | None = None
    orphaned: bool = False

    def update(self, facts: Facts, now: float, *, answers: bool) -> None:
        """Take in new facts about init and shim.

        ``answers``: the shim's own socket does. One that only an older pass over /proc still
        shows may have died together with its init.
        """
        if facts.shim is _SHIM_ALIVE:
            self.shim = True
            if facts.init in INIT_GONE and answers:
                self.init = False
        if facts.init is _INIT_ALIVE:
            self.init = True
        if self._dead(facts) is None:
            self.since, self.orphaned = None, False
        else:
            self.since = now if self.since is None else self.since
            self.orphaned = self.orphaned or facts.init is _INIT_ALIVE

    def confirm(self, facts: Facts) -> DeathCause | None:
        """Count what is dead now, if anything is."""
        dead = self._dead(facts)
        if dead is not None:
            self.shim, self.init = False, self.init and facts.init not in INIT_GONE
        self.since, self.orphaned = None, False
        return dead

    def _dead(self, facts: Facts) -> DeathCause | None:
        if facts.shim is not _SHIM_DEAD:
            return None
        is_init_dead = self.init and facts.init in INIT_GONE
        return _CAUSES[self.shim, is_init_dead]
