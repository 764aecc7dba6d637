"""Comparisons: what a replay is asked, kept small enough for journals of any size.

:class:`Likeness` finds where a repeated run concludes otherwise; :class:`Fates` remembers what was
cleaned when, in the recording and now, for `replay --config`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from reconciler.decide.decisions import Clean, Decision
from reconciler.journal.replay import Difference, Turn, difference
from reconciler.journal.told import Told, key_of, span, tell
from reconciler.model.evidence import Facts
from reconciler.model.ids import BundleKey, Identity


class Differing(msgspec.Struct, frozen=True):
    """One turn in which the two sides differ (an element of ``differences``).

    Attributes:
        at_seconds: Seconds since the journal began.
        namespace, id: The bundle; empty where it concerns the node.
        recorded, replayed: The first decisions that are not alike, null where there is none.
        evidence: What is believed about the bundle now, by witness.
    """

    at_seconds: float
    namespace: str
    id: str
    recorded: Told | None
    replayed: Told | None
    evidence: dict[str, str] = {}


def concerns(decision: Decision, only: BundleKey | None) -> bool:
    """Tell whether a decision is about the one bundle that is asked for, if one is."""
    return only is None or key_of(decision) == only


class Likeness:
    """Compares turn by turn.

    Attributes:
        first: The first difference.
        count: How many turns differ.
        compared: How many could be compared.
    """

    def __init__(self, only: BundleKey | None, *, in_order: bool) -> None:
        self._only = only
        self._in_order = in_order
        self.first: Difference | None = None
        self.count = 0
        self.compared = 0

    def take(self, turn: Turn) -> Difference | None:
        """Take in a turn; return its difference, if there is one."""
        if self._only is not None:
            turn = _narrowed(turn, self._only)
        self.compared += turn.comparable
        found = difference(turn, in_order=self._in_order)
        if found is not None:
            self.count += 1
            self.first = self.first or found
        return found


def _narrowed(turn: Turn, only: BundleKey) -> Turn:
    return Turn(
        turn.stamp,
        turn.observation,
        tuple(decision for decision in turn.recorded if key_of(decision) == only),
        tuple(decision for decision in turn.replayed if key_of(decision) == only),
        turn.comparable,
    )


def describe(found: Difference, at: float, facts: Facts | None) -> Differing:
    """Put a difference into words, with the evidence."""
    one = found.recorded or found.replayed
    key = None if one is None else key_of(one)
    was, now = (None if d is None else tell(at, d) for d in (found.recorded, found.replayed))
    if was is not None and was == now:
        begin = found.turn.stamp.mono - at
        was, now = (
            msgspec.structs.replace(told, reason=f"{told.reason}; {_apart(one, other, begin)}")
            for told, one, other in (
                (was, found.recorded, found.replayed),
                (was, found.replayed, found.recorded),
            )
        )
    return Differing(
        at_seconds=round(at, 6),
        namespace="" if key is None else key.namespace,
        id="" if key is None else key.id,
        recorded=was,
        replayed=now,
        evidence={} if facts is None else evidence(facts),
    )


def _apart(one: Decision | None, other: Decision | None, begin: float) -> str:
    """Name what sets a decision apart from another that the same words tell."""
    words = []
    for name in ("due_at", "previous", "facts", "identity", "last", "cleaned", "why", "namespace"):
        said = getattr(one, name, None)
        if said != getattr(other, name, None):
            if name == "due_at":
                said = "never" if said is None else span(said - begin)
            words.append(f"{name.replace('_', ' ')} {said}")
    return ", ".join(words)


def evidence(facts: Facts) -> dict[str, str]:
    """Put facts into words, by witness."""
    return {
        "kind": facts.kind.value,
        "name": "valid" if facts.identifier else "invalid",
        "shim helper": facts.helper.value,
        "shim": facts.shim.value,
        "init": facts.init.value,
        "cgroup": facts.cgroup.value,
        "runtime": facts.runtime.value,
        "created": facts.created.value,
        "containerd": facts.task.value,
    }


@dataclass(slots=True)
class Fate:
    """When one bundle was given to the hands, in seconds since the begin; None for never."""

    key: BundleKey
    recorded: float | None = None
    replayed: float | None = None

    @property
    def change(self) -> str:
        """What is different now: ``same``, ``only now``, ``not now``, ``earlier``, ``later``."""
        if self.recorded is None:
            return "only now"
        if self.replayed is None:
            return "not now"
        if self.recorded == self.replayed:
            return "same"
        return "earlier" if self.replayed < self.recorded else "later"


@dataclass(slots=True)
class Fates:
    """What was cleaned in the recording and what is now. Grows with what is cleaned only."""

    only: BundleKey | None = None
    _fates: dict[tuple[BundleKey, Identity], Fate] = field(default_factory=dict)

    def take(self, at: float, turn: Turn) -> None:
        """Take in a turn."""
        for clean in self._cleanups(turn.recorded):
            fate = self._fate(clean)
            fate.recorded = at if fate.recorded is None else fate.recorded
        for clean in self._cleanups(turn.replayed):
            fate = self._fate(clean)
            fate.replayed = at if fate.replayed is None else fate.replayed

    def _cleanups(self, decisions: tuple[Decision, ...]) -> Iterator[Clean]:
        for decision in decisions:
            if isinstance(decision, Clean) and not decision.kill and concerns(decision, self.only):
                yield decision

    def _fate(self, clean: Clean) -> Fate:
        return self._fates.setdefault((clean.key, clean.identity), Fate(clean.key))

    def __iter__(self) -> Iterator[Fate]:
        """Give all, in order of time."""
        return iter(sorted(self._fates.values(), key=_when))


def _when(fate: Fate) -> tuple[float, BundleKey]:
    times = [at for at in (fate.replayed, fate.recorded) if at is not None]
    return (times[0], fate.key)
