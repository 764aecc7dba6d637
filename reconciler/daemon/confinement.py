"""Confinement: the daemon's parent gives up what only its workers need, before it listens.

It parses configuration, answers HTTP and talks to containerd for months, so it is the part that may
be taken over one day. From then on it can neither unmount nor remove anything, nor write anywhere
but in a directory of our own; its workers can, who judge again what they are told to do and are
bound to one tree (`reconciler.worker.messages`). Where the kernel has no Landlock, capabilities
(`reconciler.probe.privileges`) are dropped all the same, and status and log say so: then
CAP_DAC_OVERRIDE still lets it remove files.

The foreground commands (`run`, `scan`, `clean`, `record`) are not confined: they end after seconds
or while somebody watches, receive nothing from the network, and belong to a root shell that could
do all of it anyway; `run` and `record` write where they are told to. Their workers are bound, too.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from reconciler.daemon import checkpoint
from reconciler.daemon.endpoints import Check
from reconciler.errors import ConfigError
from reconciler.kernel import confine as giving_up
from reconciler.kernel import private
from reconciler.model.layout import Layout
from reconciler.probe.privileges import PARENT, numbers
from reconciler.probe.reach import trouble
from reconciler.worker.lock import directory as lock_directory
from reconciler.worker.pool import WorkerPool

_HANDLE: Final = os.O_PATH | os.O_CLOEXEC


class Confinement(msgspec.Struct, frozen=True):
    """What holds from now on.

    Attributes:
        places: Where this process may still change something.
        trouble: Why it may do so everywhere; empty if it may not.
    """

    places: tuple[str, ...]
    trouble: str = ""

    def check(self) -> Check:
        """Tell it as a condition of readiness, one that is always met."""
        how = f"by capabilities alone ({self.trouble})" if self.trouble else "by Landlock"
        return Check(f"confined {how}", ok=True)

    def narrow(self) -> None:
        """Leave the journal to its writer, which has begun by now and keeps what it has."""
        _forbid(self.places)


def confine(
    pool: WorkerPool, layout: Layout, journal: str, environ: Mapping[str, str]
) -> Confinement:
    """Give up, for good, what only workers need.

    Call it when the fork server was started, and before there is a second thread: it would keep
    all. The journal's writer is to be started afterwards, and :meth:`Confinement.narrow` called
    then. The pool's fork server keeps what is given up here; it makes no other.

    Raises:
        ConfigError: A directory of ours holds containerd's, or the other way round.
    """
    places = tuple(_own_directories(layout, environ))
    pool.keep_fork_server()
    giving_up.no_new_privileges()
    folder = (str(Path(journal).absolute().parent),) if journal else ()
    forbidden = _forbid((*places, *folder))
    giving_up.drop_capabilities(numbers(PARENT))
    return Confinement(places, forbidden)


def _own_directories(layout: Layout, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the directories of checkpoint and lock; made if missing, left out if that cannot be."""
    names = {
        os.path.dirname(checkpoint.place(environ, layout)),
        os.fsdecode(lock_directory(environ)),
    }
    if layout.boots:
        names.add(os.path.dirname(os.fsdecode(layout.boots)))
    for name in sorted(names):
        with suppress(OSError):  # whoever wants to write there will say so
            os.close(private.open_directory(name))
        for theirs in (layout.state, layout.root, layout.runtime_dir):
            if _overlap(os.fsencode(name), theirs):
                raise ConfigError(
                    f"{name} is to be the daemon's own directory, and overlaps "
                    f"containerd's {os.fsdecode(theirs)}",
                    "set RUNTIME_DIRECTORY and RECONCILER_LOCK_DIR elsewhere, or leave them out",
                )
        if os.path.isdir(name):
            yield name


def _overlap(one: bytes, other: bytes) -> bool:
    # What may hang is compared by its name alone: a start that never ends would protect nothing.
    paths = [path if trouble(path + b"/.") else os.path.realpath(path) for path in (one, other)]
    return os.path.commonpath(paths) in paths


def _forbid(places: Iterable[str]) -> str:
    """Forbid changes everywhere else but in /dev/null; say why that is not possible, if so."""
    if giving_up.threads() != 1:
        raise RuntimeError("a second thread would keep what this one gives up")
    with ExitStack() as handles:
        opened: list[int] = []
        for place in (*places, os.devnull):
            opened.append(os.open(place, _HANDLE))
            handles.callback(os.close, opened[-1])
        try:
            giving_up.forbid_changes(opened)
        except OSError as error:
            return f"no Landlock: {error.strerror}"
    return ""
