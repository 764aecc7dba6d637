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
from collections.abc import Callable
from contextlib import ExitStack, suppress
from errno import ENOTEMPTY
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import escape
from reconciler.probe.beneath import beneath, names, opened
from reconciler.probe.ttl_cache import TTLCache
from reconciler.worker.objects import HIDDEN, Aside, ObjectId, check_object, object_of
from reconciler.worker.step_log import Kept, Tally

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
PATIENCE: Final = 600.0
"""Seconds after which no client waits any more for the task it made FIFOs for."""

_ENDS: Final = (b"stdin", b"stdout", b"stderr")
_FIRST_FILES: Final = (b"config.json", b"work", b"log", b"options.json", b"runtime")
"""What is written at a bundle's creation and not again; which are there differs."""


class FifoDirs:
    """Remembers which numbered directories hold FIFOs of which id.

    Each is read once; the list of them is a moment old at most. A client makes them before the
    bundle, so none comes for a bundle that is dead.
    """

    def __init__(self, clock: "Clock") -> None:
        self._ids: dict[tuple[bytes, bytes], frozenset[str]] = {}
        self._numbers = TTLCache(clock, self._list, FRESH_SECONDS)

    def of(self, fifos: bytes, id_: str) -> list[bytes]:
        """Give the directories that hold, or held a moment ago, FIFOs of an id.

        Raises:
            OSError: ``fifos`` cannot be read.
        """
        return self._numbers.get(fifos).get(id_, [])

    def _list(self, fifos: bytes) -> dict[str, list[bytes]]:
        """Give the directories by id, in order."""
        with ExitStack() as handles:
            try:
                top = handles.enter_context(opened(fifos, os.O_RDONLY))
            except FileNotFoundError:
                return {}
            listed = sorted((fifos, name) for name in names(top) if name.isdigit())
            known, self._ids = self._ids, {}
            for one in listed:
                ids = known.get(one) or _ids_in(top, one[1])
                if ids:  # an empty one may still be about to be filled
                    self._ids[one] = ids
        found: dict[str, list[bytes]] = {}
        for (_, number), ids in self._ids.items():
            for id_ in ids:
                found.setdefault(id_, []).append(number)
        return found


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
            raise Kept("cannot determine when the bundle was made")
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


class FifoDir(NamedTuple):
    """A directory of FIFOs.

    Attributes:
        top: The directory that holds it.
        number: Its name.
        judged: Which object was judged, if one was; that one goes also if it is empty.
    """

    top: bytes
    number: bytes
    judged: ObjectId | None = None


def remove_fifo_dir(
    where: FifoDir, id_: str, refuse: Callable[[float], None], tally: Tally
) -> None:
    """Remove the FIFOs of an id in one directory, and the directory, which must be empty then.

    Args:
        where: The directory.
        id_: Whose FIFOs.
        refuse: Raises Kept for a time of birth after which a client may still wait.
        tally: Counts what is removed.

    Raises:
        Kept: A client may still wait at one of them, or it is another directory.
        OSError: The kernel refused; ENOTEMPTY if something else is in there.
    """
    # The caller is told of its absence; what is in it may go at any time.
    number, judged = where.number, where.judged
    with opened(where.top, os.O_RDONLY) as top, ExitStack() as stack, suppress(FileNotFoundError):
        directory = stack.enter_context(beneath(top, number))
        seen = kernel.statx_handle(directory)
        if judged is not None:
            check_object(seen, judged, escape(number))
        found = {name: _fifo_of(directory, name, id_) for name in names(directory)}
        born = {name: when for name, when in found.items() if when is not None}
        if not born and judged is None:
            return  # by now it is another's, who may be about to fill it
        if born:
            refuse(max(born.values()))
        for name in born:
            _unlink(directory, name, tally)
        if any(names(directory)):
            raise OSError(ENOTEMPTY, os.strerror(ENOTEMPTY), number)
        _rmdir(top, number, object_of(seen), tally)


def _rmdir(top: int, number: bytes, this: ObjectId, tally: Tally) -> None:
    """Remove the empty directory of a number, and no other that has the number meanwhile."""

    def refuse(name: bytes) -> None:
        check_object(kernel.statx(top, name), this, escape(number))

    bare = number.removeprefix(HIDDEN)
    aside = Aside(top, bare, HIDDEN + bare, refuse, tally)
    if bare == number:
        aside.put()
    else:
        aside.check()
    try:
        os.rmdir(aside.hidden, dir_fd=top)
    except FileNotFoundError:
        return
    except OSError:
        aside.put_back()  # it has been filled
        raise
    tally.add()


def _unlink(directory: int, name: bytes, tally: Tally) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return  # its client ended, or another bundle of this id goes, too
    tally.add()


def _ids_in(top: int, number: bytes) -> frozenset[str]:
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(beneath(top, number))
        except OSError:
            return frozenset()  # gone, or not a directory
        ends = (name.rpartition(b"-") for name in names(directory))
        return frozenset(escape(id_) for id_, _, end in ends if id_ and end in _ENDS)


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
