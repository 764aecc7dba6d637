"""FIFOs: remove the directories of a dead container's standard streams that nobody has open.

A client (``ctr``, nerdctl) makes ``<fifos>/<number>/<id>-stdin|stdout|stderr`` and removes them
when it ends in order. They carry the id but no namespace, so they stay while another namespace has
a bundle of that id. Opening a FIFO to ask for its reader would wake one that waits, so /proc is
asked who has it open; no answer there means somebody has (design section 3, step 5; I25).
"""

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from reconciler import kernel
from reconciler.act.record import Kept, Tally
from reconciler.model.ids import BundleKey, show

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENDS: Final = (b"stdin", b"stdout", b"stderr")
_PROC: Final = b"/proc"


class FifoDirs:
    """Remembers which numbered directories hold FIFOs of which id.

    Each is read once; the list of them is a moment old at most. A client makes them before the
    bundle, so none comes for a bundle that is dead.

    Args:
        clock: Says how old the list is.
    """

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._until = 0.0
        self._fifos = b""
        self._ids: dict[bytes, frozenset[bytes]] = {}
        self._numbers: dict[bytes, list[bytes]] = {}

    def of(self, fifos: bytes, id_: bytes) -> list[bytes]:
        """Give the directories below ``fifos`` that hold, or held a moment ago, FIFOs of an id.

        Raises:
            OSError: ``fifos`` cannot be read.
        """
        now = self._clock.monotonic()
        if fifos != self._fifos or now >= self._until:
            self._list(fifos)
            self._until = now + FRESH_SECONDS
        return self._numbers.get(id_, [])

    def _list(self, fifos: bytes) -> None:
        if fifos != self._fifos:
            self._fifos, self._ids = fifos, {}
        self._numbers = {}
        try:
            top = os.open(fifos, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            numbers = {name for name in _names(top) if name.isdigit()}
            for gone in self._ids.keys() - numbers:
                del self._ids[gone]
            for number in numbers - self._ids.keys():
                ids = _ids_in(top, number)
                if ids:  # an empty one may still be about to be filled
                    self._ids[number] = ids
        finally:
            os.close(top)
        for number in sorted(self._ids):
            for id_ in self._ids[number]:
                self._numbers.setdefault(id_, []).append(number)


def shares_id(tree: bytes, key: BundleKey) -> bool:
    """Tell whether another namespace of the state tree has a bundle of the same id.

    Raises:
        OSError: The tree cannot be read.
    """
    top = os.open(tree, _DIRECTORY)
    try:
        others = [name for name in _names(top) if name != key.namespace]
        return any(_is_there(top, name + b"/" + key.id) for name in others)
    finally:
        os.close(top)


def _is_there(top: int, path: bytes) -> bool:
    try:
        kernel.statx(top, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def open_fifos() -> frozenset[bytes]:
    """Give the names of the stream FIFOs that any process has open, O_PATH handles included.

    By the text of the links in /proc alone: following one could hang on a dead filesystem.

    Raises:
        Kept: /proc does not show us everything, so nothing is proven.
    """
    pids = [name for name in os.listdir(_PROC) if name.isdigit()]
    try:
        return frozenset(name for pid in pids for name in _links(os.fsencode(pid)))
    except PermissionError as error:
        raise Kept(f"cannot tell who has the FIFOs open: {error.strerror}") from None


def remove_fifo_dir(
    fifos: bytes, number: bytes, id_: bytes, is_open: frozenset[bytes], tally: Tally
) -> None:
    """Remove the FIFOs of an id in one directory, and the directory, which must be empty then.

    Raises:
        Kept: Somebody has one of them open.
        OSError: The kernel refused; ENOTEMPTY if something else is in there.
    """
    top = os.open(fifos, _DIRECTORY)
    try:
        directory = kernel.open_beneath(top, number)
        try:
            names = [name for name in _names(directory) if _is_fifo_of(directory, name, id_)]
            if not names:
                return  # by now it is another's, who may be about to fill it
            if not is_open.isdisjoint(names):
                raise Kept(f"somebody has a FIFO in {show(number)} open")
            for name in names:
                os.unlink(name, dir_fd=directory)
                tally.add()
        finally:
            os.close(directory)
        os.rmdir(number, dir_fd=top)
        tally.add()
    except FileNotFoundError:
        return  # gone since it was listed
    finally:
        os.close(top)


def _ids_in(top: int, number: bytes) -> frozenset[bytes]:
    try:
        directory = kernel.open_beneath(top, number)
    except OSError:
        return frozenset()  # gone, or not a directory
    try:
        ends = (name.rpartition(b"-") for name in _names(directory))
        return frozenset(id_ for id_, _, end in ends if id_ and end in _ENDS)
    finally:
        os.close(directory)


def _names(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def _is_fifo_of(directory: int, name: bytes, id_: bytes) -> bool:
    owner, _, end = name.rpartition(b"-")
    if owner != id_ or end not in _ENDS:
        return False
    return stat.S_ISFIFO(kernel.statx(directory, name).mode)


def _links(pid: bytes) -> Iterator[bytes]:
    directory = b"%s/%s/fd" % (_PROC, pid)
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    for name in names:
        try:
            target = os.readlink(directory + b"/" + os.fsencode(name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        base = target.rpartition(b"/")[2].removesuffix(b" (deleted)")
        if base.rpartition(b"-")[2] in _ENDS:
            yield base
