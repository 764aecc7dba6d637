"""The journal's format, schema 2: one JSON object a line, each of them complete in itself.

The first line of a file is a :class:`Header`, every other a :class:`Given` or, where records are
missing, :class:`Lost`. What the engine was given and what it decided are the model's own values
(:mod:`reconciler.model.values`), so ``jq`` reads them by the names that they have there. Names and
paths are text (:mod:`reconciler.model.ids`), identities ``[dev, inode, mount id]``, bundles
``[namespace, id]``. A reader ignores fields that it does not know; a change that an older reader
would misunderstand raises :data:`SCHEMA`, and other schemas are refused.

Two values are not always written whole: what the whole node says, and what lies outside of bundles
(:mod:`reconciler.journal.differences`). Nothing here does I/O.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from reconciler.journal.differences import (
    Difference,
    Differences,
    Inventories,
    NoFullError,
    Restored,
    SameInventory,
)
from reconciler.journal.writer import LOST
from reconciler.model.debris import Inventory
from reconciler.model.decisions import Decision
from reconciler.model.observations import NodeLooked, Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.model.values import Value

MAGIC: Final = "containerd-reconciler"
SCHEMA: Final = 2


class BadLineError(Exception):
    """A line that is no line of a journal; says why."""


class OtherSchemaError(BadLineError):
    """A journal of a later or an earlier version of the program."""


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of every file.

    Attributes:
        journal: :data:`MAGIC`.
        schema: :data:`SCHEMA`.
        program: Version that wrote it.
        host, boot: Host name and boot id.
        mono, wall: The clocks when the file was begun.
        run: Identifies the run: all files of one rotation carry the same.
        part: Number of the file within the run, from 0.
        config: Digest of the policies.
        policies: In force when the file was begun.
        redacted: Names were replaced.
    """

    journal: str
    schema: int
    program: str
    host: str
    boot: str
    mono: float
    wall: float
    run: str
    part: int
    config: str
    policies: Policies
    redacted: bool = False


class Given(Value, frozen=True):
    """One thing the engine was given, and what it decided then.

    Attributes:
        mono, wall: When: seconds since the boot, and since the epoch.
        observation: What was observed; None if it was given the time alone, or policies.
        policies: What was put into force, if that is what happened.
        decisions: What was decided, in order.
        full: Number of the observation, where later ones may be written as a difference to it.
        difference, same: Stand for the observation; never in what a :class:`Decoder` gives.
    """

    mono: float
    wall: float
    observation: Observation | None = msgspec.field(default=None, name="seen")
    policies: Policies | None = None
    decisions: tuple[Decision, ...] = msgspec.field(default=(), name="decided")
    full: int = 0
    difference: Difference | None = None
    same: SameInventory | None = None

    @property
    def stamp(self) -> Stamp:
        """When."""
        return Stamp(self.mono, self.wall)


class Lost(msgspec.Struct, frozen=True, gc=False):
    """So many records are missing here, and why; ``policies`` are in force then, if known."""

    count: int = msgspec.field(name="lost")
    reason: str
    policies: Policies | None = None


class Encoder:
    """Writes lines. A file's :meth:`header` first, and again for every further file."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder(order="deterministic")
        self._differences = Differences()
        self._inventories = Inventories()

    def header(self, header: Header) -> bytes:
        """Begin a file."""
        self.begin_anew()
        return self._json.encode(header) + b"\n"

    def lost(self, lost: Lost) -> bytes:
        """Say that records are missing."""
        self.begin_anew()
        return self._json.encode(lost) + b"\n"

    def begin_anew(self) -> None:
        """Write the next word of the whole node in full: the last one may not be in the file."""
        self._differences.forget()
        self._inventories.forget()

    def record(self, given: Given) -> bytes:
        """Write one thing given to the engine and what it decided.

        Raises:
            ValueError: A text cannot be written (a lone surrogate).
            OverflowError: A number is beyond 64 bits.
        """
        if isinstance(given.observation, NodeLooked):
            said = self._differences.take(given.observation)
            if said is None:
                given = replace(given, full=self._differences.number)
            else:
                given = replace(given, observation=None, difference=said)
        elif isinstance(given.observation, Inventory):
            same = self._inventories.take(given.observation)
            if same is None:
                given = replace(given, full=self._inventories.number)
            else:
                given = replace(given, observation=None, same=same)
        return self._json.encode(given) + b"\n"


class _First(msgspec.Struct):
    journal: str
    schema: int


def read_header(line: bytes) -> Header:
    """Read a first line.

    Raises:
        OtherSchemaError: It is a header, but not of this schema.
        BadLineError: It is no header.
    """
    try:
        first = msgspec.json.decode(line, type=_First)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadLineError(f"no header: {error}") from error
    if first.journal != MAGIC:
        raise BadLineError(f"a journal of {first.journal[:40]!r}")
    if first.schema != SCHEMA:
        newer = f"is newer than {SCHEMA}, the newest known here"
        older = f"is older than {SCHEMA}, the only one read here"
        which = newer if first.schema > SCHEMA else older
        raise OtherSchemaError(f"schema {first.schema} {which}")
    try:
        return msgspec.json.decode(line, type=Header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadLineError(f"damaged header: {error}") from error


class Decoder:
    """Reads the lines of one file after its header."""

    def __init__(self) -> None:
        self._given = msgspec.json.Decoder(Given)
        self._lost = msgspec.json.Decoder(Lost)
        self._restored = Restored()

    def record(self, line: bytes) -> Given | Lost:
        """Read one line; BadLineError if it is damaged, or differs from a line that was lost."""
        try:
            if line.startswith(LOST):
                return self._lost.decode(line)
            given = self._given.decode(line)
            if given.difference is not None:
                observation = self._restored.apply(given.difference)
                given = replace(given, observation=observation, difference=None)
            elif given.same is not None:
                given = replace(given, observation=self._restored.repeat(given.same), same=None)
            elif given.full and isinstance(given.observation, NodeLooked):
                self._restored.keep(given.full, given.observation)
            elif given.full and isinstance(given.observation, Inventory):
                self._restored.keep_inventory(given.full, given.observation)
        except NoFullError as error:
            raise BadLineError(str(error)) from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadLineError(str(error) or type(error).__name__) from error
        return given
