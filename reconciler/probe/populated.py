"""Which cgroups hold processes, as far as that may matter to a bundle.

Who has been given a cgroup of his own makes as many below it as he likes, under names as long as
the kernel takes. What is told of all that is bounded, and what is left out is never a "no":

1. All paths are told while they are few.
2. Of more, those in which a part may stand for the id of a bundle in the state tree. By no other
   does a path matter to one (`reconciler.model.cgroups`), and bundles made later are not judged by
   this pass.
3. Of more of these, the ids alone: whoever bears one may live there. It costs these bundles only.

A path longer than the kernel tells (the end of it, or all, by the version: `proc_cgroup_show`) may
be below any cgroup that is not known by its own files; a process in such a one is named.

Reads the names in the state tree, and that only if there are too many paths. It is entered beneath
itself, never through a symlink or a mount: that could hang.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from reconciler.model.cgroups import COLON, SCOPE
from reconciler.model.ids import escape
from reconciler.model.processes import ProcessScan
from reconciler.probe.beneath import enter, names, opened
from reconciler.probe.process import parse_cgroups

_MOST_PATHS: Final = 1 << 19
"""Bytes of paths to tell: of 1,800 containers as systemd names their cgroups. The loop has to take
them in, whatever they are made of."""
_NAME: Final = 16
"""What each of the names that a scope may stand for counts, in bytes of a path."""
_MOST_FILES: Final = 1 << 22  # bytes of what was seen before; the rest is read once more
_LONGEST: Final = 4095  # of what the kernel tells: PATH_MAX with a zero at its end
_ROOT: Final = b"/"  # nobody's own
_SCOPE: Final = SCOPE.encode()
_COLON: Final = COLON.encode()


class TreeError(Exception):
    """What is in the state tree cannot be known. No `OSError`: those end with a process."""


class PopulatedCgroups:
    """What one pass over /proc has found so far, for what is in the state tree, if that is known.

    Attributes:
        paths: The cgroups of the living, but for the root.
        names: Ids that are named by cgroups of which the path is left out.
        unplaced: The pid of a process of which the cgroup cannot be known; 0 if there is none.
    """

    def __init__(self, tree: bytes | None) -> None:
        self.paths: set[bytes] = set()
        self.names: set[bytes] = set()
        self.unplaced = 0
        self._tree = tree
        self._files: set[bytes] = set()
        self._files_left = _MOST_FILES
        self._left = _MOST_PATHS
        self._ids: frozenset[bytes] | None = None
        self._lengths: frozenset[int] = frozenset()

    def added_to(self, scan: ProcessScan) -> ProcessScan:
        """Give what else a pass has found together with this."""
        return replace(
            scan,
            cgroup_names=frozenset(map(escape, self.names)),
            cgroup_paths=frozenset(map(escape, self.paths)),
            unplaced=self.unplaced,
        )

    def knows(self, data: bytes) -> bool:
        """Return whether what /proc/PID/cgroup says adds nothing, whoever says it."""
        if data in self._files:
            return True
        if any(path != _ROOT for path in parse_cgroups(data)):
            return False
        self._remember(data)
        return True

    def add(self, pid: int, data: bytes | None) -> None:
        """Take in what /proc/PID/cgroup says; None where the kernel does not tell it to its end.

        Raises:
            TreeError: There are too many cgroups, and the state tree cannot be read.
        """
        if data is None:
            self._add_unplaced(pid)
        elif data not in self._files:
            self._remember(data)
            self._add_paths(pid, data)

    def _remember(self, data: bytes) -> None:
        self._files_left -= len(data)
        if self._files_left >= 0:
            self._files.add(data)

    def _add_paths(self, pid: int, data: bytes) -> None:
        for path in parse_cgroups(data):
            if len(path) >= _LONGEST:
                self._add_unplaced(pid)
            if path != _ROOT and path not in self.paths:
                self._add_path(path)

    def _add_unplaced(self, pid: int) -> None:
        """Take in a process of which the kernel does not tell the cgroup, or not to its end."""
        self.unplaced = self.unplaced or pid

    def _add_path(self, path: bytes) -> None:
        if self._ids is None:
            if _weight(path) <= self._left:
                self._keep(path)
                return
            self.choose_among(_ids_in(self._tree))
        self._choose(path)

    def choose_among(self, ids: frozenset[bytes]) -> None:
        """From now on tell only paths that may matter to one of these ids, also of those so far."""
        self._ids = ids
        self._lengths = frozenset(map(len, ids))
        paths, self.paths, self._left = self.paths, set(), _MOST_PATHS
        for path in paths:
            self._choose(path)

    def _choose(self, path: bytes) -> None:
        named = self._named(path)
        if named and _weight(path) <= self._left:
            self._keep(path)
        else:
            self.names |= named

    def _keep(self, path: bytes) -> None:
        self.paths.add(path)
        self._left -= _weight(path)

    def _named(self, path: bytes) -> set[bytes]:
        """Tell for which ids a part of a path may stand; as `names_of`.

        A scope may stand for as many names as it has dashes, so only those as long as an id is are
        cut out of it.
        """
        ids = self._ids or frozenset()
        parts = path.split(b"/")
        found = set(ids.intersection(parts))
        if _COLON in path:
            found.update(ids.intersection(part.rpartition(_COLON)[2] for part in parts))
        if _SCOPE in path:
            for part in parts:
                if part.endswith(_SCOPE):
                    found |= self._named_by_scope(part.removesuffix(_SCOPE), ids)
        return found

    def _named_by_scope(self, stem: bytes, ids: frozenset[bytes]) -> set[bytes]:
        found = {stem[-length:] for length in self._lengths if stem[-length - 1 : -length] == b"-"}
        found.add(stem)
        return found & ids


def _weight(path: bytes) -> int:
    """Tell what it costs the loop to take a path in."""
    return len(path) + (_NAME * path.count(b"-") if _SCOPE in path else 0)


def _ids_in(tree: bytes | None) -> frozenset[bytes]:
    """List what is in the state tree, whatever its namespace; TreeError if it cannot be known."""
    if tree is None:
        raise TreeError("which one it is, is not known")
    try:
        return frozenset(_walk(tree))
    except FileNotFoundError:  # nothing else in there says so
        return frozenset()
    except OSError as error:
        raise TreeError(str(error)) from error


def _walk(tree: bytes) -> Iterator[bytes]:
    with opened(tree) as top:
        for namespace in enter(top, names(top)):
            if namespace.fd >= 0:
                yield from names(namespace.fd)
