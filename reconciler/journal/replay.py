"""Replay: the same engine, no cleaner, virtual time.

:class:`Repeater` gives the engine exactly what it was given, and :func:`difference` compares what
it concludes with what it concluded then. `reconciler.journal.what_if` gives another engine the same
world and lets it decide by other policies. Memory does not grow with the journal.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import msgspec

from reconciler.decide.engine import Engine
from reconciler.journal.lines import Given, Lost
from reconciler.journal.reader import Begun, Item
from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp

if TYPE_CHECKING:
    from reconciler.model.policy import Policies


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One thing the engine was given, what it concluded when recorded, and what it does now.

    Attributes:
        observation: None if it was given the time alone, or policies.
        recorded, replayed: The conclusions then and now, in order.
        comparable: Whether they must be alike: false after records were lost, and by another
            policy.
    """

    stamp: Stamp
    observation: Observation | None
    recorded: tuple[Decision, ...]
    replayed: tuple[Decision, ...]
    comparable: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """The first conclusions of a turn that are not alike; None where one side has none."""

    turn: Turn
    recorded: Decision | None
    replayed: Decision | None


class Repeater:
    """Plays a journal to an engine, turn by turn.

    Attributes:
        engine: What it is played to; exists once the first header was read.
        lost: How many records are known to be missing.
    """

    engine: Engine

    def __init__(self) -> None:
        self._policies: Policies | None = None
        self._put_right: Policies | None = None
        self._comparable = True
        self.lost = 0

    def play(self, items: Iterable[Item]) -> Iterator[Turn]:
        """Play everything, in order."""
        for item in items:
            match item:  # the frequent one first
                case Given():
                    yield self._give(item)
                case Begun():
                    self._begin(item)
                case Lost():
                    self._skip(item)
                case _:
                    assert_never(item)

    def _begin(self, begun: Begun) -> None:
        if self._policies is not None:
            return  # the next part of the same run: nothing new for the engine
        self._policies = begun.header.policies
        self._comparable = begun.header.part == 0
        self.engine = Engine(self._policies)

    def _skip(self, lost: Lost) -> None:
        # What was lost may have been anything, so nothing after it is sure to be alike.
        self.lost += lost.count
        self._comparable = self._comparable and lost.count == 0
        if lost.policies is not None and lost.policies != self._policies:
            self._put_right = lost.policies

    def _give(self, given: Given) -> Turn:
        if self._put_right is not None:
            self._policies, self._put_right = self._put_right, None
            self.engine.configure(given.stamp, self._policies)
        stamp, observation = Stamp(given.mono, given.wall), given.observation
        if observation is not None:
            replayed = self.engine.observe(stamp, observation)
        elif given.policies is not None:
            self._policies = given.policies
            replayed = self.engine.configure(stamp, given.policies)
        else:
            replayed = self.engine.advance(stamp)
        return Turn(stamp, observation, given.decisions, tuple(replayed), self._comparable)


def difference(turn: Turn, *, in_order: bool = True) -> Difference | None:
    """Compare the two sides of a turn.

    Not in order for a redacted journal: names sort otherwise there, and what is concluded about
    several bundles at the same instant is told in the order of their names.
    """
    if turn.recorded == turn.replayed or not turn.comparable:
        return None
    if in_order:
        sides = list(zip(turn.recorded, turn.replayed, strict=False))
        place = next((n for n, (was, now) in enumerate(sides) if was != now), len(sides))
        return Difference(turn, _at(turn.recorded, place), _at(turn.replayed, place))
    was, now = Counter(turn.recorded), Counter(turn.replayed)
    if was == now:
        return None
    return Difference(turn, next(iter(was - now), None), next(iter(now - was), None))


def _at(decisions: tuple[Decision, ...], place: int) -> Decision | None:
    return decisions[place] if place < len(decisions) else None
