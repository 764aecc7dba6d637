"""Listeners: everybody who receives what goes through the loop, whatever becomes of one of them."""

from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Stages


def name_of(part: object) -> str:
    """Name a part after its module, as the log and the metric show it: ``logs``, ``metrics``."""
    return type(part).__module__.rpartition(".")[2]


class Listeners:
    """Sends everybody what goes through the loop, whatever becomes of one of them.

    A recorder that failed has a hole in its journal from then on, and learns of it.
    """

    def __init__(self, stages: Stages) -> None:
        receivers = (*stages.listeners, *stages.recorders)
        named = [(f"listener {name_of(one)}", one) for one in receivers]
        self._watch = watch = stages.supervisor
        self._essential = stages.essential
        self._recorders = [(f"listener {name_of(one)}", one) for one in stages.recorders]
        self._missed = {where: one.missed for where, one in self._recorders}
        self._observed = [(where, one.observed) for where, one in named]
        self._decided = [(where, one.decided) for where, one in named]
        watch.know(*(where for where, _ in named))

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Report an observation, before the engine receives it."""
        for listener in self._essential:
            listener.observed(stamp, observation)
        for where, receive in self._observed:
            if not self._watch.call(where, receive, stamp, observation):
                self._has_missed(where)

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Report what the engine concluded or asked for."""
        for listener in self._essential:
            listener.decided(stamp, decision)
        for where, receive in self._decided:
            if not self._watch.call(where, receive, stamp, decision):
                self._has_missed(where)

    def advanced(self, stamp: Stamp) -> None:
        """Inform recorders that the engine is about to be given nothing but the time."""
        for where, recorder in self._recorders:
            if not self._watch.call(where, recorder.advanced, stamp):
                self._has_missed(where)

    def configured(self, stamp: Stamp, policies: Policies) -> None:
        """Inform recorders that other policies are about to be put into force."""
        for where, recorder in self._recorders:
            if not self._watch.call(where, recorder.configured, stamp, policies):
                self._has_missed(where)

    def _has_missed(self, where: str) -> None:
        if where in self._missed:
            self._watch.call(where, self._missed[where])
