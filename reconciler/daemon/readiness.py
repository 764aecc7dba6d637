"""Readiness: whether the first listing is done and the guards let us act. A listener."""

from collections.abc import Callable

from reconciler.daemon.endpoints import Check
from reconciler.decide.cleanups import Hold
from reconciler.model.decisions import Decision
from reconciler.model.observations import (
    GuardsChecked,
    Listed,
    Observation,
    Refusal,
    Stamp,
    is_transient,
)


def held(hold: Hold | None) -> Check:
    """Tell which brake holds every removal now: a reason to wait, and none to be unready."""
    return Check("brake", ok=True, note=f"on: {hold.brake}: {hold.detail}" if hold else "")


class Readiness:
    """Listens to the run and knows when it is ready to be relied on.

    A daemon that is to enforce and that a guard refuses at the start is stopped: a unit that looks
    healthy and removes nothing would be worse. Where only no worker could look it is not: that is
    tried again, and until then it is not ready.

    Attributes:
        enforce: Whether anything is to be removed; a reload may change it.
        stop: Ends the run.
        was_ready: Whether all has been in order once; then ``became_ready`` was called.
        refused_at_start: Why it is not to run at all.
    """

    def __init__(self, *, enforce: bool, became_ready: Callable[[], None]) -> None:
        self.stop: Callable[[], None] = lambda: None
        self.refused_at_start: tuple[Refusal, ...] = ()
        self.enforce = enforce
        self._became_ready = became_ready
        self.was_ready = False
        self._listed = False
        self._answered = False
        self._refused: tuple[Refusal, ...] | None = None
        self._judged = False

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Take in what was learnt."""
        del stamp
        match observation:
            case Listed(namespace=None, answered=answered):
                self._listed = True
                self._answered = answered
            case GuardsChecked(refused=refused):
                if not self._judged and refused and self.enforce and not is_transient(refused):
                    self.refused_at_start = refused
                    self.stop()
                self._judged = self._judged or not is_transient(refused)
                self._refused = refused
            case _:
                return
        if not self.was_ready and not self.refused_at_start and self._is_ready:
            self.was_ready = True
            self._became_ready()

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Nothing to remember."""

    def checks(self) -> tuple[Check, ...]:
        """List the conditions of readiness.

        A silent containerd does not make us unready: everything then waits, as it should.
        """
        return (
            Check("listing", self._listed and self._answered, self._why_not_listed()),
            Check("guards", not self._needs_guards(), self._why_refused()),
        )

    @property
    def _is_ready(self) -> bool:
        return all(check.ok for check in self.checks())

    def _needs_guards(self) -> bool:
        return self.enforce and (self._refused is None or bool(self._refused))

    def _why_not_listed(self) -> str:
        return "the state tree cannot be read" if self._listed else "not listed yet"

    def _why_refused(self) -> str:
        if self._refused is None:
            return "not checked yet"
        return "; ".join(refusal.reason for refusal in self._refused)
