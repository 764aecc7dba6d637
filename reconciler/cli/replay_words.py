"""What `replay` prints: a comparison, a table of fates, or the promised JSON object.

Memory does not grow with the journal: the long lists go to temporary files until they are printed.
"""

import shutil
import tempfile
from collections.abc import Iterable
from typing import IO

import msgspec

from reconciler.cli.table import Cell, Column, Table
from reconciler.journal.compare import Differing, Fate
from reconciler.journal.told import Told, span


class Lists:
    """The three long lists of the JSON answer, kept on disk until they are printed."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._files = {name: self._begin() for name in ("recorded", "replayed", "differences")}
        self._empty = dict.fromkeys(self._files, True)

    def _begin(self) -> IO[bytes]:
        return tempfile.TemporaryFile()

    def add(self, name: str, one: Told | Differing) -> None:
        """Append to a list."""
        self._files[name].write(b"" if self._empty[name] else b",")
        self._empty[name] = False
        self._files[name].write(self._json.encode(one))

    def write(self, observations: int, target: IO[bytes]) -> None:
        """Print the whole object."""
        target.write(b'{"observations":%d' % observations)
        for name, file in self._files.items():
            target.write(b',"%s":[' % name.encode())
            file.seek(0)
            shutil.copyfileobj(file, target)
            target.write(b"]")
        target.write(b"}\n")
        target.flush()

    def close(self) -> None:
        """Forget it."""
        for file in self._files.values():
            file.close()


def fates_table(fates: Iterable[Fate]) -> Table:
    """Tell what was cleaned when, then and now."""
    columns = (
        Column("BUNDLE", gives_way=True),
        Column("RECORDED", right=True),
        Column("NOW", right=True),
        Column("CHANGE"),
    )
    table = Table(columns)
    for fate in fates:
        cells = (str(fate.key), _at(fate.recorded), _at(fate.replayed), _change(fate))
        table.rows.append([Cell(text) for text in cells])
    return table


def _at(seconds: float | None) -> str:
    return "-" if seconds is None else span(seconds)


def _change(fate: Fate) -> str:
    if fate.recorded is None or fate.replayed is None or fate.change == "same":
        return fate.change
    return f"{span(abs(fate.recorded - fate.replayed))} {fate.change}"


def changed(fate: Fate) -> Differing:
    """Put a fate into the shape of a difference."""
    namespace, name = fate.key.namespace, fate.key.id

    def told(at: float | None) -> Told | None:
        return None if at is None else Told(round(at, 6), namespace, name, "clean", _change(fate))

    times = [at for at in (fate.recorded, fate.replayed) if at is not None]
    return Differing(min(times), namespace, name, told(fate.recorded), told(fate.replayed))


def difference_text(told: Differing) -> str:
    """Tell a difference with both sides and the evidence, over several lines."""
    who = f"{told.namespace}/{told.id}" if told.id else "the node"
    lines = [f"at {span(told.at_seconds)}: {who}"]
    for side, one in (("recorded", told.recorded), ("replayed", told.replayed)):
        lines.append(f"  {side:<12} " + ("-" if one is None else f"{one.action}: {one.reason}"))
    lines += [f"  {witness:<12} {says}" for witness, says in told.evidence.items()]
    return "\n".join(lines) + "\n"
