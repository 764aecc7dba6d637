"""The reader: files in, what the engine was given out, one after the other, in constant memory.

A journal is a file and, where it was rotated, its predecessors of the same run (``FILE.2.gz``,
``FILE.1``, ``FILE``), oldest first. A damaged line costs that line: it is warned of and counted as
lost. A torn last line is what a crash leaves and only a warning. Without a header nothing is read.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from reconciler.errors import ExitCode, ReconcilerError
from reconciler.journal.lines import (
    BadLineError,
    Decoder,
    Given,
    Header,
    Lost,
    OtherSchemaError,
    read_header,
)

MAX_LINE: Final = 1 << 28
"""Longer lines are damage: it is a listing of a million bundles."""

_BUFFER: Final = 1 << 16
"""Bytes that are read at once: a line may be as long as that of a whole node."""

_GZIP: Final = b"\x1f\x8b"


class BadJournalError(ReconcilerError):
    """A file that is no journal, is damaged, or comes from a later version."""

    code: ClassVar[ExitCode] = ExitCode.BAD_JOURNAL


class NoFileError(ReconcilerError):
    """A journal that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A file begins; the first of a journal, or the next part of the same run."""

    header: Header


Item = Begun | Given | Lost
"""What a journal is made of."""


class Journal:
    """One recorded run: a file, or the newest of several.

    Attributes:
        header: That of the oldest part.
        parts: The files, oldest first.

    Raises:
        BadJournalError: There is no usable header.
        NoFileError: A file cannot be read.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.parts = [path]
        newest = self.header = _header(path)
        for part in range(newest.part - 1, -1, -1):
            before = _predecessor(path, len(self.parts))
            if before is None:
                break
            header = _header(before)
            if (header.run, header.part) != (newest.run, part):
                break
            self.parts.insert(0, before)
            self.header = header

    @property
    def is_whole(self) -> bool:
        """Whether it begins where the run began: only then can every decision be compared."""
        return self.header.part == 0

    def items(self) -> Iterator[Item]:
        """Read everything, in order; raises as the class does, also for what cannot be unpacked."""
        for place, path in enumerate(self.parts):
            yield from self._items_of(path, is_last=place == len(self.parts) - 1)

    def _items_of(self, path: Path, *, is_last: bool) -> Iterator[Item]:
        lines = _lines(path)
        header = _checked(path, next(lines, b""))
        if header.run != self.header.run or header.boot != self.header.boot:
            raise BadJournalError(f"{path}, line 1: a part of another run")
        yield Begun(header)
        decoder = Decoder()
        for number, line in enumerate(lines, 2):
            try:
                item = decoder.record(line)
            except BadLineError as error:
                if is_last and not line.endswith(b"\n"):
                    self._warn(f"{path}, line {number}: the last line is torn and left out")
                    return
                self._warn(f"{path}, line {number}: damaged and left out: {error}")
                yield Lost(1, "a damaged line")
            else:
                yield item


def _header(path: Path) -> Header:
    return _checked(path, next(_lines(path), b""))


def _checked(path: Path, line: bytes) -> Header:
    try:
        return read_header(line)
    except OtherSchemaError as error:
        raise BadJournalError(
            f"{path}, line 1: {error}", "read it with the version that wrote it"
        ) from error
    except BadLineError as error:
        raise BadJournalError(f"{path}, line 1: damaged: {error}") from error


def _predecessor(path: Path, number: int) -> Path | None:
    for ending in ("", ".gz"):
        before = path.with_name(f"{path.name}.{number}{ending}")
        if before.exists():
            return before
    return None


def _lines(path: Path) -> Iterator[bytes]:
    """Read lines of bounded length, unpacking what is packed.

    Packed data that ends too early ends like a torn line; packed data that is damaged is damage.
    """
    number = 0
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb", buffering=0))
            plain = stack.enter_context(BufferedReader(raw, _BUFFER))
            file: BinaryIO | gzip.GzipFile = plain
            if plain.peek(2)[:2] == _GZIP:
                file = stack.enter_context(gzip.open(plain, "rb"))
            while line := file.readline(MAX_LINE):
                number += 1
                while len(line) == MAX_LINE and not line.endswith(b"\n"):
                    line = b"?" + file.readline(MAX_LINE - 1)  # the rest of what is no line
                yield line
        except EOFError:
            yield b"?"
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadJournalError(f"{path}, line {number + 1}: damaged: {error}") from error
        except OSError as error:
            raise NoFileError(f"{path} cannot be read: {error.strerror or error}") from error
