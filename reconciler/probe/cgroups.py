"""Control groups: which directories are a container's, and whether anything lives in them.

Resolves what runc's state and config.json name to directories inside cgroup mounts, for version 1
(one hierarchy per controller), version 2, and both at once. Reads only; which directories exist
and which are populated flows up as evidence, the list of them flows on to the hands. Sources:
runc `libcontainer/specconv`, `cgroups/fs`, `cgroups/systemd`; cgroups(7).
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO, ENODEV
from typing import Final, NamedTuple

from reconciler.model.evidence import CgroupState
from reconciler.model.ids import BundleKey
from reconciler.probe import documents
from reconciler.probe.mounts import MountEntry

_ENOUGH: Final = 512
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY: Final = _READ | os.O_DIRECTORY
_MOST_DIRS: Final = 10_000  # below one container; more is somebody's experiment
_SYSTEMD_PARTS: Final = 3  # slice:prefix:name
_LEAF_LINKS: Final = 2  # links of a cgroup directory without children


class Hierarchy(NamedTuple):
    """A mounted cgroup hierarchy.

    Attributes:
        point: Where it is mounted.
        unified: Version 2.
        root: Which of its directories is mounted there (not ``/`` inside containers).
    """

    point: bytes
    unified: bool
    root: bytes = b"/"


class CgroupDir(NamedTuple):
    """A directory inside a cgroup mount. The hands open ``mount`` and go beneath it."""

    mount: bytes
    relative: bytes

    @property
    def path(self) -> bytes:
        """The whole path."""
        return self.mount + b"/" + self.relative


@dataclass(frozen=True, slots=True)
class Cgroups:
    """A container's control groups.

    Attributes:
        state: All hierarchies together.
        dirs: Those of its directories that exist.
        names: What the files call it: paths as /proc/PID/cgroup shows them.
    """

    state: CgroupState
    dirs: tuple[CgroupDir, ...] = ()
    names: frozenset[bytes] = frozenset()


def hierarchies(table: Iterable[MountEntry]) -> tuple[Hierarchy, ...]:
    """Pick the cgroup mounts out of the mount table, each hierarchy once."""
    found: dict[tuple[bytes, bytes], Hierarchy] = {}
    for entry in table:
        if entry.fstype in {b"cgroup", b"cgroup2"}:
            hierarchy = Hierarchy(entry.point, entry.fstype == b"cgroup2", entry.root)
            found.setdefault((entry.device, entry.root), hierarchy)
    return tuple(found.values())


def look(
    mounted: tuple[Hierarchy, ...],
    key: BundleKey,
    named: Collection[str],
    inner: Collection[bytes],
) -> Cgroups:
    """Find a container's cgroups and what is in them.

    Args:
        mounted: The hierarchies, by :func:`hierarchies`.
        key: The bundle; where no file names a cgroup, ``/<namespace>/<id>`` is looked for too.
        named: Directories as runc's state has them.
        inner: Paths within every hierarchy, by :func:`resolve`.
    """
    names = frozenset(inner)
    dirs = _candidates(mounted, named, names)
    if dirs:
        existing, state = _ask(dirs)
        return Cgroups(state, existing, names | {b"/" + one.relative for one in dirs})
    if named or names:
        return Cgroups(CgroupState.NONE)  # named, but in no cgroup mount that we can see
    guess = b"/".join(key)
    existing, state = _ask({CgroupDir(one.point, guess): one.unified for one in mounted})
    return Cgroups(CgroupState.UNNAMED if state is CgroupState.GONE else state, existing)


def resolve(spec_path: str) -> tuple[bytes, ...]:
    """Turn ``linux.cgroupsPath`` into paths within a hierarchy; nothing if that cannot be told.

    A relative path is taken from the cgroup runc was in when it ran, which nobody knows later.
    """
    parts = spec_path.split(":")
    if len(parts) == _SYSTEMD_PARTS and not spec_path.startswith("/"):
        return _resolve_systemd(*parts)
    path = documents.to_path(spec_path)
    return () if path is None or path == b"/" else (path,)


def _resolve_systemd(parent: str, prefix: str, name: str) -> tuple[bytes, ...]:
    path = expand_slice(parent or "system.slice")
    if path is None or not name:
        return ()
    units = [f"{prefix}-{name}.scope"]
    if name.endswith(".slice"):
        units = [name]
    elif not prefix:
        units.append(f"{name}.scope")  # the runtimes differ
    found = (documents.to_path(f"{path}/{unit}") for unit in units)
    return tuple(one for one in found if one is not None)


def expand_slice(name: str) -> str | None:
    """Give the directory of a systemd slice: ``a-b.slice`` is ``/a.slice/a-b.slice``.

    The root slice is the empty string; None if systemd knows no such name (systemd.slice(5)).
    """
    stem, dot, rest = name.rpartition(".")
    if dot + rest != ".slice" or not stem or "/" in name:
        return None
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        return None
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def _candidates(
    mounted: tuple[Hierarchy, ...], named: Iterable[str], names: frozenset[bytes]
) -> dict[CgroupDir, bool]:
    """Give the directories to ask, each with whether it is of version 2."""
    dirs = {CgroupDir(one.point, name[1:]): one.unified for one in mounted for name in names}
    for text in named:
        path = documents.to_path(text)
        inside = _inside(mounted, path) if path else None
        if inside is not None:
            dirs[inside[0]] = inside[1]
    return dirs


def _inside(mounted: tuple[Hierarchy, ...], path: bytes) -> tuple[CgroupDir, bool] | None:
    """Place a path within the innermost cgroup mount that holds it."""
    best: Hierarchy | None = None
    for one in mounted:
        if path.startswith(one.point + b"/") and (best is None or len(one.point) > len(best.point)):
            best = one
    if best is None:
        return None
    return CgroupDir(best.point, path[len(best.point) + 1 :]), best.unified


def _ask(dirs: dict[CgroupDir, bool]) -> tuple[tuple[CgroupDir, ...], CgroupState]:
    existing = []
    answers = set()
    for one, unified in dirs.items():
        state = _state_of(one.path, unified=unified)
        answers.add(state)
        if state is not CgroupState.GONE:
            existing.append(one)
    for state in (CgroupState.POPULATED, CgroupState.NONE, CgroupState.EMPTY):
        if state in answers:
            return tuple(existing), state
    return (), CgroupState.GONE


def _state_of(path: bytes, *, unified: bool) -> CgroupState:
    try:
        alive = _is_populated(path) if unified else _holds_tasks(path)
    except FileNotFoundError:
        return CgroupState.GONE
    except OSError as error:
        return CgroupState.GONE if error.errno == ENODEV else CgroupState.NONE
    return CgroupState.POPULATED if alive else CgroupState.EMPTY


def _is_populated(path: bytes) -> bool:
    """Read version 2's own word, which speaks for everything below, too."""
    for line in _read_some(path + b"/cgroup.events").splitlines():
        name, _, value = line.partition(b" ")
        if name == b"populated":
            return value != b"0"
    raise OSError(EIO, "cgroup.events does not say whether it is populated", path)


def _holds_tasks(path: bytes) -> bool:
    """Tell whether a version 1 cgroup or one below it holds a thread.

    ``tasks`` and not ``cgroup.procs``: a first thread that is gone may leave others behind.
    """
    if _read_some(path + b"/tasks"):
        return True
    if os.stat(path, follow_symlinks=False).st_nlink <= _LEAF_LINKS:
        return False
    for child in _descendants(path):
        with suppress(FileNotFoundError):
            if _read_some(child + b"/tasks"):
                return True
    return False


def leaf_first(directory: CgroupDir) -> tuple[CgroupDir, ...]:
    """List a cgroup and all below it in the order in which rmdir must take them.

    Raises:
        OSError: It cannot be read. What goes away meanwhile is passed over.
    """
    below = sorted(_descendants(directory.path), key=lambda path: path.count(b"/"), reverse=True)
    cut = len(directory.mount) + 1
    return (*(CgroupDir(directory.mount, path[cut:]) for path in below), directory)


def _descendants(path: bytes) -> Iterator[bytes]:
    waiting = [path]
    count = 0
    while waiting:
        here = waiting.pop()
        with suppress(FileNotFoundError), os.scandir(here) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    count += 1
                    if count > _MOST_DIRS:
                        raise OSError(EIO, f"more than {_MOST_DIRS} cgroups below", path)
                    waiting.append(entry.path)
                    yield entry.path


def _read_some(path: bytes) -> bytes:
    fd = os.open(path, _READ)
    try:
        return os.read(fd, _ENOUGH)
    finally:
        os.close(fd)
