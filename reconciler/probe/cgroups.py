"""Control groups: which directories are a container's, and whether anything lives in them.

Resolves what runc's state and config.json name to directories inside cgroup mounts, for version 1
(one hierarchy per controller), version 2, and both at once. Reads only. Which directories exist and
whether they are populated flows up as evidence, the list of them on to the cleaner. Sources: runc
`libcontainer/specconv`, its `cgroups/fs` and `cgroups/systemd`; cgroups(7).
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from errno import EIO, ENODEV, ENOENT
from typing import Final, NamedTuple

import msgspec

from reconciler import kernel
from reconciler.kernel.mounts import Mounted
from reconciler.model.cgroups import CgroupSource
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe import documents
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.listings import Listings

_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MOUNT: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_MAGIC: Final = frozenset({kernel.CGROUP_MAGIC, kernel.CGROUP2_MAGIC})
_ENOUGH: Final = 512  # bytes of a file that tell whether it is empty, or hold what is looked for
_MOST_DIRS: Final = 10_000  # below one container; more is somebody's experiment
_MOST_NAMES: Final = 32  # of one container; the runtimes give it one or two
_SYSTEMD_PARTS: Final = 3  # slice:prefix:name
# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_CONFIG, _GONE = CgroupSource.CONFIG, CgroupState.GONE
_ORDER: Final = (CgroupState.POPULATED, CgroupState.NONE, CgroupState.EMPTY)
_LEAF_LINKS: Final = 2  # links of a cgroup directory without children


class Hierarchy(NamedTuple):
    """A mounted cgroup hierarchy: where, and whether it is version 2."""

    point: bytes
    unified: bool


class CgroupDir(NamedTuple):
    """A directory inside a cgroup mount. The cleaner open ``mount`` and go beneath it."""

    mount: bytes
    relative: bytes

    @property
    def path(self) -> bytes:
        """The whole path."""
        return self.mount + b"/" + self.relative


class Cgroups(msgspec.Struct, frozen=True, gc=False):
    """A container's control groups.

    Attributes:
        state: All hierarchies together.
        dirs: Those of its directories that exist.
        names: What the files call it, as paths within a hierarchy.
        source: Which of them does.
    """

    state: CgroupState
    dirs: tuple[CgroupDir, ...] = ()
    names: frozenset[str] = frozenset()
    source: CgroupSource = CgroupSource.NONE


def hierarchies(mounts: Iterable[Mounted]) -> tuple[Hierarchy, ...]:
    """Pick out the cgroup mounts, each hierarchy once, and none that no path leads to."""
    found: dict[tuple[int, bytes], Hierarchy] = {}
    for one in mounts:
        if one.fstype in {b"cgroup", b"cgroup2"} and one.point:
            hierarchy = Hierarchy(one.point, one.fstype == b"cgroup2")
            found.setdefault((one.device, one.root), hierarchy)
    return tuple(found.values())


def resolve(spec_path: str) -> tuple[str, ...]:
    """Turn ``linux.cgroupsPath`` into paths within a hierarchy; nothing if that cannot be known.

    A relative path is taken from the cgroup runc was in when it ran, which nobody knows later. No
    cgroup is made under a name or a path that the kernel does not take.
    """
    if len(spec_path) >= documents.PATH_MAX:
        return ()
    if not spec_path.startswith("/"):
        parts = spec_path.split(":")
        return _resolve_systemd(*parts) if len(parts) == _SYSTEMD_PARTS else ()
    path = documents.to_path(spec_path)
    return () if path is None or path == b"/" else (escape(path),)


def _resolve_systemd(parent: str, prefix: str, name: str) -> tuple[str, ...]:
    path = expand_slice(parent or "system.slice")
    if path is None or not name:
        return ()
    units = [f"{prefix}-{name}.scope"]
    if name.endswith(".slice"):
        units = [name]
    elif not prefix:
        units.append(f"{name}.scope")  # the runtimes differ
    found = (documents.to_path(f"{path}/{unit}") for unit in units)
    return tuple(escape(one) for one in found if one is not None)


def expand_slice(name: str) -> str | None:
    """Give the directory of a systemd slice: ``a-b.slice`` is ``/a.slice/a-b.slice``.

    The root slice is the empty string; None if systemd knows no such name (systemd.slice(5)).
    """
    if len(name) > documents.NAME_MAX:
        return None  # to expand it would take the square of that
    stem, dot, rest = name.rpartition(".")
    if dot + rest != ".slice" or not stem or "/" in name:
        return None
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        return None
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


class _Opened(NamedTuple):
    """A hierarchy with a handle on its mount; -1 if it could not be opened."""

    hierarchy: Hierarchy
    fd: int


class CgroupMounts:
    """The mounted hierarchies, each with a handle, which makes every question a third cheaper."""

    def __init__(self, mounted: Iterable[Hierarchy]) -> None:
        self._mounted = tuple(_Opened(one, _open_mount(one.point)) for one in mounted)
        self._handles = self._if_whole()
        self._points = {os.fsdecode(one.hierarchy.point) for one in self._mounted}
        self._is_root = os.getuid() == os.geteuid() == 0

    def __del__(self) -> None:
        """Give the handles back, should nobody have."""
        self.close()

    def close(self) -> None:
        """Give the handles back."""
        mounted, self._mounted, self._handles = self._mounted, (), ()
        for _, fd in mounted:
            if fd >= 0:
                os.close(fd)

    @property
    def is_whole(self) -> bool:
        """Whether every hierarchy could be opened."""
        return all(one.fd >= 0 for one in self._mounted)

    def open_missing(self) -> None:
        """Open again what could not be opened: handles may have been short for a moment."""
        if not self.is_whole:
            self._mounted = tuple(
                one if one.fd >= 0 else _Opened(one.hierarchy, _open_mount(one.hierarchy.point))
                for one in self._mounted
            )
            self._handles = self._if_whole()

    def _if_whole(self) -> tuple[int, ...]:
        """Give all handles; none unless every hierarchy could be opened."""
        return tuple(one.fd for one in self._mounted) if self.is_whole else ()

    def handle_on(self, point: bytes) -> int | None:
        """Give our handle on a mounted hierarchy; None if there is none, or it cannot be opened."""
        found = (fd for hierarchy, fd in self._mounted if hierarchy.point == point and fd >= 0)
        return next(found, None)

    def look(
        self,
        key: BundleKey,
        named: Collection[str],
        inner: Collection[str],
        listings: Listings | None = None,
    ) -> Cgroups:
        """Find a container's cgroups and what is in them.

        Args:
            key: The bundle; if no file names a cgroup, ``/<namespace>/<id>`` is looked for. That
                somebody is in there may speak for life; that nobody is says nothing, since it may
                be another's: the bundle's own may have any name.
            named: Directories as runc's state has them.
            inner: Paths within every hierarchy, by :func:`resolve`.
            listings: Those of the moment, where one look of many is made.
        """
        names = set(inner)
        source = _CONFIG
        paths = [unescape(name)[1:] for name in names]
        extra: list[tuple[_Opened, bytes]] = []
        if named:
            # Nearly always runc's state and config.json agree, and that is cheap to find out.
            spelt = ["/" + os.fsdecode(path) for path in paths]
            agreed = {point + name for name in spelt for point in self._points}
            further = [text for text in named if text not in agreed]
            for text in further:
                extra += self._inside(documents.to_path(text) or b"/")
            names.update("/" + escape(relative) for _, relative in extra)
            if extra or len(further) < len(named):
                source = CgroupSource.RUNTIME
        if len(names) > _MOST_NAMES:
            return Cgroups(CgroupState.NONE)
        if extra or (paths and self._mounted):
            state, dirs = self._ask_all(paths, extra, listings)
            return Cgroups(state, dirs, frozenset(names), source)
        if named or inner:
            return Cgroups(CgroupState.NONE)  # named, but in no cgroup mount that we can see
        state, dirs = self._ask_all((key.path,), (), listings)
        nobody = state in {CgroupState.GONE, CgroupState.EMPTY}
        return Cgroups(CgroupState.UNNAMED if nobody else state, dirs)

    def below_named(self, name: bytes) -> Iterator[bytes]:
        """Give the paths of the groups directly below one at the top, in all hierarchies.

        Raises:
            OSError: A hierarchy cannot be read.
        """
        for hierarchy, fd in self._mounted:
            if fd < 0:
                raise OSError(EIO, "a cgroup hierarchy cannot be opened", hierarchy.point)
            with suppress(FileNotFoundError, NotADirectoryError):
                for path in children(fd, name):
                    yield hierarchy.point + b"/" + path

    def dir_at(self, path: bytes) -> CgroupDir | None:
        """Place a group by its whole path; None if that is in no hierarchy that we can see."""
        inside = self._inside(path)
        return CgroupDir(inside[0][0].hierarchy.point, inside[0][1]) if inside else None

    def state_at(self, path: bytes) -> tuple[CgroupState, kernel.Stat]:
        """Look what is in one group, by its whole path, and which object it is.

        Raises:
            OSError: It is gone, or in no hierarchy that we can see.
        """
        for (hierarchy, _), relative in self._inside(path):
            with opened(hierarchy.point, os.O_PATH | os.O_NOFOLLOW) as fd:
                found = kernel.statx(fd, relative)
                return _state_of(fd, relative, unified=hierarchy.unified), found
        raise FileNotFoundError(ENOENT, "in no cgroup hierarchy", path)

    def _inside(self, path: bytes) -> list[tuple[_Opened, bytes]]:
        """Place a path within the innermost cgroup mount that holds it, if any does."""
        holding = [one for one in self._mounted if path.startswith(one.hierarchy.point + b"/")]
        if not holding:
            return []
        best = max(holding, key=lambda one: len(one.hierarchy.point))
        return [(best, path[len(best.hierarchy.point) + 1 :])]

    def _ask_all(
        self,
        paths: Collection[bytes],
        extra: Collection[tuple[_Opened, bytes]],
        listings: Listings | None,
    ) -> tuple[CgroupState, tuple[CgroupDir, ...]]:
        """Ask for these paths in every hierarchy, where no listing answers, and for ``extra``."""
        if listings is not None and self._handles:
            paths = [path for path in paths if not listings.lack(self._handles, path)]
        places = [(one, path) for path in paths for one in self._mounted]
        return self._ask((*places, *extra)) if places or extra else (_GONE, ())

    def _ask(
        self, places: Iterable[tuple[_Opened, bytes]]
    ) -> tuple[CgroupState, tuple[CgroupDir, ...]]:
        states = []  # not a set: to hash a member of an enumeration costs more than to compare it
        dirs = []
        searchable = False
        for (hierarchy, fd), path in places:
            # Once one hierarchy has said ENOENT, root may take a mere "not accessible" of another
            # for the same; it costs half as much.
            if searchable and fd >= 0 and not os.access(path, os.F_OK, dir_fd=fd):
                continue
            state = _state_of(fd, path, unified=hierarchy.unified)
            if state is _GONE:
                searchable = self._is_root
                continue
            states.append(state)
            dirs.append(CgroupDir(hierarchy.point, path))
        if not states:
            return _GONE, ()
        return next(state for state in _ORDER if state in states), tuple(dirs)


def _open_mount(point: bytes) -> int:
    """Open a cgroup mount; -1 if something else is there now, or it may not be opened."""
    try:
        fd = os.open(point, _MOUNT)
    except OSError:
        return -1
    try:
        if kernel.fs_type(fd) in _MAGIC:
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1


def _state_of(fd: int, path: bytes, *, unified: bool) -> CgroupState:
    if fd < 0:
        return CgroupState.NONE
    try:
        alive = _is_populated(fd, path) if unified else _holds_tasks(fd, path)
    except FileNotFoundError:
        return CgroupState.GONE
    except OSError as error:
        return CgroupState.GONE if error.errno == ENODEV else CgroupState.NONE
    return CgroupState.POPULATED if alive else CgroupState.EMPTY


def _is_populated(fd: int, path: bytes) -> bool:
    """Read version 2's own word, which speaks for everything below, too."""
    for line in _read(fd, path + b"/cgroup.events").splitlines():
        name, _, value = line.partition(b" ")
        if name == b"populated":
            return value != b"0"
    raise OSError(EIO, "cgroup.events does not say whether it is populated", path)


def _holds_tasks(fd: int, path: bytes) -> bool:
    """Return whether a version 1 cgroup or one below it holds a thread.

    ``tasks`` and not ``cgroup.procs``: a first thread that is gone may leave others behind.
    """
    if _read(fd, path + b"/tasks"):
        return True
    if os.stat(path, dir_fd=fd, follow_symlinks=False).st_nlink <= _LEAF_LINKS:
        return False
    for child in _below(fd, path):
        with suppress(FileNotFoundError):
            if _read(fd, child + b"/tasks"):
                return True
    return False


def _below(fd: int, path: bytes) -> Iterator[bytes]:
    waiting = [path]
    left = _MOST_DIRS
    while waiting:
        parent = waiting.pop()
        with suppress(FileNotFoundError):
            for child in children(fd, parent):
                left -= 1
                if left < 0:
                    raise OSError(EIO, f"more than {_MOST_DIRS} cgroups below", path)
                waiting.append(child)
                yield child


def children(parent: int, path: bytes = b"") -> list[bytes]:
    """Give the cgroups directly below one (``path`` from a handle; empty for that one itself).

    Raises:
        OSError: They cannot be listed.
    """
    prefix = path + b"/" if path else b""
    with beneath(parent, path or b".") as here, os.scandir(here) as listing:
        below = [one.name for one in listing if one.is_dir(follow_symlinks=False)]
    return [prefix + os.fsencode(name) for name in below]


def _read(dir_fd: int, path: bytes) -> bytes:
    fd = os.open(path, _FILE, dir_fd=dir_fd)
    try:
        return os.read(fd, _ENOUGH)
    finally:
        os.close(fd)
