"""Reach: opens the directories at which looks begin, and only where opening cannot hang.

A bundle's files may name any directory of the machine, and an operator's own may lie on a
filesystem whose server is dead: to open either could stop whoever does it for good. The mount
table tells, without touching anything, on which mount a path lies. The parent's own looks go only
where it is the state tree's mount, a filesystem in memory or the one we run from, or a local disk
on the way to a directory of the operator's; anything else is out of reach, and a worker's to see.
"""

import os
import stat
from collections.abc import Collection, Iterator
from errno import EACCES, ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final, Protocol

from typing_extensions import override

from reconciler import kernel
from reconciler.kernel.mounts import Mounted, stat_mount
from reconciler.model.ids import escape
from reconciler.probe.mounts import mount_numbered

_POINT: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS: Final = kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_UNIQUE_FLAGS: Final = kernel.AT_PASSIVE | kernel.AT_EMPTY_PATH
_UNIQUE_MASK: Final = kernel.STATX_BASIC_STATS | 0x4000  # STATX_MNT_ID_UNIQUE, Linux 6.8
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LINKS: Final = 8
_REFUSED: Final = frozenset({ENOENT, ENOTDIR, EACCES})  # answers about a directory, not waits
_MEMORY: Final = frozenset({b"tmpfs", b"ramfs"})
_DISKS: Final = frozenset(
    {b"bcachefs", b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"xfs", b"zfs"}
)
"""Filesystems that only ask a device of this machine. Not overlay: it may lie on a FUSE."""

_OPERATORS: Final = _DISKS | {b"overlay"}
"""Where a directory of the operator's own may be."""


class OutOfReachError(OSError):
    """A directory may not be opened here; no answer, and never the same as "not there".

    Attributes:
        place: The mount point at which reach ends: what lies there may hang together.
    """

    def __init__(self, path: bytes, place: bytes, fstype: bytes = b"") -> None:
        kind = f" ({escape(fstype)})" if fstype else ""
        super().__init__(f"{escape(path)} is on {escape(place)}{kind}, which may never answer")
        self.place = place


class Reach:
    """Opens directories that lie within reach, as of the mount table last given.

    ``own`` are the operator's directories.
    """

    def __init__(self, own: Collection[bytes]) -> None:
        self._own = frozenset(own)
        self._ways = frozenset(way for path in own for way in _ways_to(path))
        self._mounts: _Points | None = None
        self._tree: int | None = None

    def refresh(self, mounts: "_Points | None", tree: int | None) -> None:
        """Take in the mounts as they are now, and the number of the state tree's; None: unread."""
        self._mounts, self._tree = mounts, tree

    def open(self, path: bytes) -> int:
        """Open a directory without reading it; symlinks are followed as far as reach goes.

        Raises:
            OutOfReachError: It may not be opened here.
            OSError: It cannot be opened.
        """
        real = path
        for _ in range(_MOST_LINKS):
            found = self._try(path, real)
            if isinstance(found, int):
                return found
            real = found
        raise OSError(ELOOP, os.strerror(ELOOP), path)

    def _try(self, path: bytes, real: bytes) -> int | bytes:
        """Open a path, or follow the first symlink on it and give where it leads."""
        home = self._home(path, real)
        point = b"/" if home is None else home.point
        handle = os.open(point, _HANDLE | os.O_NOFOLLOW)
        try:
            if home is not None and kernel.statx_handle(handle).mount_id != home.mount_id:
                raise OutOfReachError(path, point)  # something was mounted there since
            below = real[len(point) :].strip(b"/")
            if not below:
                return os.dup(handle)
            try:
                return kernel.openat2(handle, below, _HANDLE, kernel.RESOLVE_STRICT)
            except OSError as error:
                if error.errno != ELOOP:
                    raise
            return _follow(handle, point, below)
        except OSError as error:
            if error.errno == EXDEV:
                raise OutOfReachError(path, real) from None  # something was mounted on the way
            raise
        finally:
            os.close(handle)

    def _home(self, path: bytes, real: bytes) -> Mounted | None:
        """Find the mount a path lies on; None if that is the one we run from."""
        if self._mounts is None:
            raise OutOfReachError(path, real)
        home = None
        for way in _ways_to(real):
            mount = self._mounts.at(way)
            if mount is None:
                continue
            if not self._is_near(mount, path):
                raise OutOfReachError(path, way, mount.fstype)
            home = mount
        return home

    def _is_near(self, mount: Mounted, path: bytes) -> bool:
        if mount.mount_id == self._tree or mount.fstype in _MEMORY:
            return True
        if path in self._own:
            return mount.fstype in _OPERATORS
        return mount.fstype in _DISKS and mount.point in self._ways


def trouble(path: bytes) -> str:
    """Say why a path that the operator named may not be touched here; empty if it may.

    Costs some system calls for each directory on the way, and needs no mount table.
    """
    directory = path.rpartition(b"/")[0] or b"/"
    reach = Reach((directory,))
    reach.refresh(_OneByOne(), None)
    try:
        os.close(reach.open(directory))
    except OutOfReachError as error:
        return str(error)
    except OSError as error:
        if error.errno not in _REFUSED:
            return f"{escape(directory)}: {error.strerror}"
    return ""  # if it was refused, whoever touches it will be told the same


class _Points(Protocol):
    """Tells what is mounted at a point, the root excepted. Asked from the root on."""

    def at(self, point: bytes) -> Mounted | None:
        """Give what was mounted there last, if anything was."""
        ...


class _OneByOne(_Points):
    """Asks the kernel for one mount point at a time, without entering it."""

    @override
    def at(self, point: bytes) -> Mounted | None:
        """Look; a point behind a symlink is none, since real paths have no symlinks.

        Raises:
            OSError: It cannot be known.
        """
        try:
            handle = kernel.openat2(kernel.AT_FDCWD, point, _POINT, _NO_LINKS)
        except OSError as error:
            if error.errno not in _REFUSED | {ELOOP}:
                raise
            return None
        try:
            seen = kernel.statx_handle(handle)
            return _mount_of(handle, seen.mount_id, point) if seen.is_mount_root else None
        finally:
            os.close(handle)


def _mount_of(handle: int, mount_id: int, point: bytes) -> Mounted:
    """Find the type of the mount of a handle: by its unique number, else in the table as text.

    One that cannot be found is of no known type, and therefore out of reach.
    """
    try:
        unique = kernel.statx(handle, b"", _UNIQUE_FLAGS, _UNIQUE_MASK).mount_id
        return Mounted(mount_id, point, stat_mount(unique).fstype)
    except OSError:
        pass  # an older kernel, or something filters system calls
    try:
        entry = mount_numbered(mount_id)
    except OSError:
        entry = None
    return Mounted(mount_id, point, entry.mount.fstype if entry else b"?")


def _ways_to(path: bytes) -> Iterator[bytes]:
    """Give every directory on the way to a path, the root excepted, and the path itself."""
    at = 0
    while (at := path.find(b"/", at + 1)) > 0:
        yield path[:at]
    if path != b"/":
        yield path


def _follow(handle: int, point: bytes, below: bytes) -> bytes:
    """Find the first symlink on a way that has one, and give the whole path it stands for.

    Raises:
        OSError: EXDEV if that cannot be known here; or the way is gone.
    """
    done = [part for part in point.split(b"/") if part]
    parts = below.split(b"/")
    here = os.dup(handle)
    try:
        for number, part in enumerate(parts):
            there = kernel.open_beneath(here, part, directory=False)
            os.close(here)
            here = there
            if stat.S_ISLNK(os.fstat(here).st_mode):
                return _joined(done, os.readlink(b"", dir_fd=here), parts[number + 1 :])
            done.append(part)
    finally:
        os.close(here)
    return b"/" + b"/".join(done)  # it is none any more


def _joined(done: list[bytes], target: bytes, rest: list[bytes]) -> bytes:
    """Join a real directory, the target of a symlink in it, and what follows that."""
    whole = [] if target.startswith(b"/") else list(done)
    real = len(whole)  # so many of them are known to be no symlinks, and can be climbed
    for part in (*target.split(b"/"), *rest):
        if part == b"..":
            if len(whole) > real:
                raise OSError(EXDEV, "a symlink climbs out of what it leads into", target)
            whole = whole[:-1]
            real = len(whole)
        elif part not in {b"", b"."}:
            whole.append(part)
    return b"/" + b"/".join(whole)
