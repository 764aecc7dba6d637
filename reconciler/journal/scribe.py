"""The scribe: a listener that turns a run into lines and hands them to a sink, in order.

One record holds what the engine was given and what it concluded from it, so a record is complete
when the next one begins, or at :meth:`Scribe.flush`. The sink must not block and must not fail;
what becomes of the lines is the recorder's business (:mod:`reconciler.journal.recorder`), or that
of a plain file (:func:`reconciler.journal.snapshot.snapshot`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from typing_extensions import override

from reconciler import __version__
from reconciler.journal import wire
from reconciler.journal.encode import Encoder
from reconciler.journal.redact import Redactor
from reconciler.journal.values import policies_out
from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Recorder

_UNWRITABLE: Final = "a value could not be written"
_MISSED: Final = "the recorder failed"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and when a journal is begun.

    Attributes:
        host, boot: Host name and boot id.
        run: Identifies the run; random.
        stamp: The clocks.
        policies: In force.
    """

    host: str
    boot: str
    run: str
    stamp: Stamp
    policies: Policies


def digest(policies: Policies) -> str:
    """Give a short name for policies: equal ones have equal names."""
    written = msgspec.json.encode(policies_out(policies))
    return hashlib.sha256(written).hexdigest()[:16]


class Scribe(Recorder):
    """Writes everything that goes through the loop.

    Args:
        origin: Goes into the header.
        sink: Takes each line as it is complete. Must neither block nor raise.
        redactor: Replaces names before anything is written, if there is one.
    """

    def __init__(
        self, origin: Origin, sink: Callable[[bytes], object], redactor: Redactor | None = None
    ) -> None:
        self._origin = origin
        self._sink = sink
        self._redactor = redactor
        self._encoder = Encoder()
        self._policies = origin.policies
        self._part = 0
        self._given: tuple[Stamp, Observation | None, Policies | None] | None = None
        self._decided: list[Decision] = []
        self._missed = 0
        self.lost = 0
        sink(self.header(origin.stamp))

    def header(self, stamp: Stamp) -> bytes:
        """Begin a file: numbering begins anew, and the policies in force are told."""
        header = wire.Header(
            journal=wire.MAGIC,
            schema=wire.SCHEMA,
            program=__version__,
            host=self._origin.host if self._redactor is None else "redacted",
            boot=self._origin.boot,
            mono=stamp.mono,
            wall=stamp.wall,
            run=self._origin.run,
            part=self._part,
            config=digest(self._policies),
            policies=policies_out(self._in_force()),
            redacted=self._redactor is not None,
        )
        self._part += 1
        return self._encoder.header(header)

    def gap(self, lost: int, why: str) -> bytes:
        """Write that records were lost, and begin all numbering anew."""
        self.lost += lost
        return self._encoder.gap(lost, why, self._in_force())

    def _in_force(self) -> Policies:
        redactor, policies = self._redactor, self._policies
        return policies if redactor is None else redactor.policies(policies)

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        self.flush()
        self._given = (stamp, observation, None)

    @override
    def advanced(self, stamp: Stamp) -> None:
        self.flush()
        self._given = (stamp, None, None)

    @override
    def configured(self, stamp: Stamp, policies: Policies) -> None:
        try:
            self.flush()
        finally:
            self._policies = policies  # a gap must tell these, whatever became of the rest
        self._given = (stamp, None, policies)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        if self._given is not None:  # else what led to it was missed
            self._decided.append(decision)

    @override
    def missed(self) -> None:
        """Forget the record at hand: it may be half of one. What comes next begins with a gap."""
        self._given, self._decided = None, []
        self._missed += 1

    def flush(self) -> None:
        """Write the record at hand; call it where the engine is not at work."""
        if self._missed:
            line = self.gap(self._missed, _MISSED)
            self._missed = 0
            self._sink(line)
        if self._given is None:
            return
        stamp, observation, policies = self._given
        decisions = self._decided
        self._given, self._decided = None, []
        if self._redactor is not None:
            redactor = self._redactor
            observation = None if observation is None else redactor.observation(observation)
            policies = None if policies is None else redactor.policies(policies)
            decisions = [redactor.decision(decision) for decision in decisions]
        try:
            line = self._encoder.step(stamp, observation, policies, decisions)
        except (ValueError, OverflowError):
            # Text that is no Unicode, a number of more than 64 bits: not worth the run.
            line = self.gap(1, _UNWRITABLE)
        if self._encoder.is_full:
            line += self.gap(0, "numbering begins anew")
        self._sink(line)
