"""FIFOs: remove the directories of a dead container's standard streams that nobody waits for.

A client (``ctr``, nerdctl) makes ``<fifos>/<number>/<id>-stdin|stdout|stderr``, opens its ends,
and only then has containerd make the task, whose shim opens the others (containerd
`cio/io_unix.go`, ``copyIO`` before ``Tasks.Create``). It removes them when it ends in order. An
open FIFO survives the loss of its name, so unlinking one harms only somebody who will still open it
*by its name*. Who may that be?

1. FIFOs that are not younger than the bundle (the kernel's clock is coarse): they are those of the
   client whose task the bundle was, or of an earlier attempt under the same id. Their shims are
   dead and will open nothing.
2. FIFOs that are younger: a client that came later. Its task cannot be made while the bundle stands
   and the client is refused, but it may be about to ask, or ask again. They are kept until nobody
   waits so long for an answer.
3. FIFOs of an exec carry the exec's id, of which containerd knows nothing until its client asks; if
   that equals the id of a dead container they count as its by the same times.

They carry no namespace, so they stay while another namespace or another containerd has a bundle of
that id: there somebody may attach to them, by name. No FIFO is ever opened, for that would wake
one who waits (design section 3, step 5; I25).
"""

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler import kernel
from reconciler.act.going import is_going
from reconciler.act.record import Kept, Tally
from reconciler.model.ids import BundleKey, escape, unescape

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
PATIENCE: Final = 600.0
"""Seconds after which no client waits any more for the task it made FIFOs for."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENDS: Final = (b"stdin", b"stdout", b"stderr")
_FIRST_FILES: Final = (b"config.json", b"work", b"log", b"options.json", b"runtime")
"""What is written at a bundle's creation and not again; which are there differs."""


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
        self._ids: dict[bytes, frozenset[str]] = {}
        self._numbers: dict[str, list[bytes]] = {}

    def of(self, fifos: bytes, id_: str) -> list[bytes]:
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
    """Tell whether another namespace of the state tree has a bundle of the same id that stays.

    Raises:
        OSError: The tree cannot be read.
    """
    top = os.open(tree, _DIRECTORY)
    try:
        others = [name for name in _names(top) if escape(name) != key.namespace]
        paths = (name + b"/" + unescape(key.id) for name in others)
        return any(_is_there(top, path) and not is_going(top, path) for path in paths)
    finally:
        os.close(top)


def _is_there(top: int, path: bytes) -> bool:
    try:
        kernel.statx(top, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class Times(NamedTuple):
    """What tells the FIFOs of a bundle from those of a later client; seconds since the epoch.

    Attributes:
        bundle: When the bundle was made; None if nothing tells, and then everything stays.
        now: The time.
    """

    bundle: float | None
    now: float

    def refuse(self, born: float) -> None:
        """Raise Kept for a FIFO that a client may still wait at."""
        if self.bundle is None:
            raise Kept("cannot tell when the bundle was made")
        if self.now < self.bundle:
            raise Kept("the clock was set back to before the bundle was made")
        if born > self.bundle and self.now - born < PATIENCE:
            raise Kept("made after the bundle, not long ago: a client may wait for it")


def birth_of(bundle: int) -> float | None:
    """Tell when a bundle was made; None if nothing tells.

    Where the filesystem keeps no time of birth it is the time of the first file that was written
    into it: moments later, and what a client made in these moments was for a task that was refused.
    """
    born = kernel.statx_handle(bundle).btime
    if born:
        return born
    times = []
    for name in _FIRST_FILES:
        try:
            times.append(kernel.statx(bundle, name).mtime)
        except FileNotFoundError:
            continue
    return min(times, default=None)


def remove_fifo_dir(fifos: bytes, number: bytes, id_: str, times: Times, tally: Tally) -> None:
    """Remove the FIFOs of an id in one directory, and the directory, which must be empty then.

    Raises:
        Kept: A client may still wait at one of them.
        OSError: The kernel refused; ENOTEMPTY if something else is in there.
    """
    top = os.open(fifos, _DIRECTORY)
    try:
        directory = kernel.open_beneath(top, number)
        try:
            found = {name: _fifo_of(directory, name, id_) for name in _names(directory)}
            born = {name: when for name, when in found.items() if when is not None}
            if not born:
                return  # by now it is another's, who may be about to fill it
            times.refuse(max(born.values()))
            for name in born:
                _unlink(directory, name, tally)
            this = kernel.statx_handle(directory)
            named = kernel.statx(top, number)
            if (this.dev, this.ino, this.btime_ns) != (named.dev, named.ino, named.btime_ns):
                return
            os.rmdir(number, dir_fd=top)
        finally:
            os.close(directory)
        tally.add()
    except FileNotFoundError:
        return  # gone since it was listed
    finally:
        os.close(top)


def _unlink(directory: int, name: bytes, tally: Tally) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return  # its client ended, or another bundle of this id goes, too
    tally.add()


def _ids_in(top: int, number: bytes) -> frozenset[str]:
    try:
        directory = kernel.open_beneath(top, number)
    except OSError:
        return frozenset()  # gone, or not a directory
    try:
        ends = (name.rpartition(b"-") for name in _names(directory))
        return frozenset(escape(id_) for id_, _, end in ends if id_ and end in _ENDS)
    finally:
        os.close(directory)


def _names(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def _fifo_of(directory: int, name: bytes, id_: str) -> float | None:
    """Tell when a FIFO of the id was made, or later; None if this is none."""
    owner, _, end = name.rpartition(b"-")
    if escape(owner) != id_ or end not in _ENDS:
        return None
    try:
        found = kernel.statx(directory, name)
    except FileNotFoundError:
        return None
    return (found.btime or found.mtime) if stat.S_ISFIFO(found.mode) else None
