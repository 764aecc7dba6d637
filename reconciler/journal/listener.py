"""The journal listener: a listener that turns a run into lines and hands them to a sink, in order.

One line holds what the engine was given and what it decided then, so a line is complete when the
next one begins, or at :meth:`JournalListener.flush`. The sink must not block and must not fail;
what becomes of the lines is the recorder's business (:mod:`reconciler.journal.recorder`), or that
of a plain stream (:class:`Snapshot`).
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import msgspec
from typing_extensions import override

from reconciler import __version__
from reconciler.journal.lines import MAGIC, SCHEMA, Encoder, Given, Header, Lost
from reconciler.journal.redact import Redactor
from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Recorder
from reconciler.settings.environment import node_name

_UNWRITABLE: Final = "a value could not be written"
_MISSED: Final = "the recorder failed"


class Origin(msgspec.Struct, frozen=True):
    """Where and when a journal is begun: node name, boot id, clocks, policies in force.

    Attributes:
        run: Identifies the run; random.
    """

    host: str
    boot: str
    run: str
    stamp: Stamp
    policies: Policies


def origin_here(stamp: Stamp, policies: Policies) -> Origin:
    """Give the origin of a run that begins now on this machine."""
    return Origin(node_name(os.environ), _boot_id(), secrets.token_hex(8), stamp, policies)


def digest(policies: Policies) -> str:
    """Give a short name for policies: equal ones have equal names."""
    return hashlib.sha256(msgspec.json.encode(policies)).hexdigest()[:16]


class JournalListener(Recorder):
    """Writes everything that goes through the loop.

    ``sink`` takes each line as it is complete, and must neither block nor raise.

    Attributes:
        lost: How many records were not written.
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
        self._given: Given | None = None
        self._decided: list[Decision] = []
        self._missed = 0
        self.lost = 0
        sink(self.header(origin.stamp))

    def header(self, stamp: Stamp) -> bytes:
        """Begin a file, with the policies in force."""
        header = Header(
            journal=MAGIC,
            schema=SCHEMA,
            program=__version__,
            host=self._origin.host if self._redactor is None else "redacted",
            boot=self._origin.boot,
            mono=stamp.mono,
            wall=stamp.wall,
            run=self._origin.run,
            part=self._part,
            config=digest(self._policies),
            policies=self._in_force(),
            redacted=self._redactor is not None,
        )
        self._part += 1
        return self._encoder.header(header)

    def missing(self, lost: int, reason: str) -> bytes:
        """Write that records were lost, with the policies in force."""
        return self._encoder.lost(Lost(lost, reason, self._in_force()))

    def begin_anew(self) -> None:
        """Write nothing more that leans on what was written: it may be lost."""
        self._encoder.begin_anew()

    def _in_force(self) -> Policies:
        redactor, policies = self._redactor, self._policies
        return policies if redactor is None else redactor.policies(policies)

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        self.flush()
        self._given = Given(stamp.mono, stamp.wall, observation)

    @override
    def advanced(self, stamp: Stamp) -> None:
        self.flush()
        self._given = Given(stamp.mono, stamp.wall)

    @override
    def configured(self, stamp: Stamp, policies: Policies) -> None:
        try:
            self.flush()
        finally:
            self._policies = policies  # a loss must tell these, whatever became of the rest
        self._given = Given(stamp.mono, stamp.wall, None, policies)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        if self._given is not None:  # else what led to it was missed
            self._decided.append(decision)

    @override
    def missed(self) -> None:
        """Forget the record at hand: it may be half of one. What comes next begins with a loss."""
        self._given, self._decided = None, []
        self._missed += 1
        self.lost += 1

    def flush(self) -> None:
        """Write the record at hand; call it where the engine is not at work."""
        if self._missed:
            line = self.missing(self._missed, _MISSED)
            self._missed = 0
            self._sink(line)
        if self._given is None:
            return
        given = msgspec.structs.replace(self._given, decisions=tuple(self._decided))
        self._given, self._decided = None, []
        if self._redactor is not None:
            given = _redacted(given, self._redactor)
        try:
            line = self._encoder.record(given)
        except (ValueError, OverflowError):
            # Text that is no Unicode, a number of more than 64 bits: not worth the run.
            self.lost += 1
            line = self.missing(1, _UNWRITABLE)
        self._sink(line)


def _redacted(given: Given, redactor: Redactor) -> Given:
    observation, policies = given.observation, given.policies
    return msgspec.structs.replace(
        given,
        observation=None if observation is None else redactor.observation(observation),
        policies=None if policies is None else redactor.policies(policies),
        decisions=tuple(map(redactor.decision, given.decisions)),
    )


class Snapshot(JournalListener, AbstractContextManager["Snapshot"]):
    """A recorder that writes to a stream; complete when the context closes.

    For one-shot commands only: nothing here is bounded or waits in a process of its own. What the
    stream refuses (its reader went away, the disk is full) is raised once, when the context closes.
    """

    def __init__(
        self, stream: IO[bytes], stamp: Stamp, policies: Policies, *, redact: bool = False
    ) -> None:
        self._stream = stream
        self._trouble: OSError | None = None
        redactor = Redactor() if redact else None
        super().__init__(origin_here(stamp, policies), self._write, redactor)

    def _write(self, line: bytes) -> None:
        if self._trouble is None:
            try:
                self._stream.write(line)
            except OSError as error:
                self._trouble = error

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last record.

        Raises:
            OSError: The stream did not take all.
        """
        self.flush()
        if self._trouble is not None and error is None:
            raise self._trouble
        self._stream.flush()


def _boot_id() -> str:
    """The kernel's boot id, empty if it cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
