"""One bundle directory, opened once and read once: which files it has, and what the small ones say.

Only regular files of a sane size are opened; a FIFO, socket, device or symlink is seen and left
alone, and what something is mounted over is not looked at. Never raises for what a file is, only
for a directory that cannot be read at all.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from enum import Enum
from errno import EISDIR, ELOOP, ENOENT, ENXIO, EXDEV
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from reconciler import kernel
from reconciler.model.evidence import ENTRY_NAMES, Entries

BLOCK: Final = 512
"""Bytes of a block as ``st_blocks`` counts them."""

KIB: Final = 1 << 10
LIMITS: Final[Mapping[str, int]] = {
    "address": 4 * KIB,
    "bootstrap.json": 64 * KIB,
    "config.json": 4096 * KIB,
    "init.pid": 32,
    "options.json": 64 * KIB,
    "sandbox": KIB,
    "shim-binary-path": 4 * KIB,
}
"""The files that are read, and the size from which on they are none of containerd's making."""

_ALIEN: Final = frozenset({"shim.pid"})  # kata, gVisor
_KNOWN: Final = {
    os.fsdecode(name): (flag.value, LIMITS.get(os.fsdecode(name)))
    for name, flag in ENTRY_NAMES.items()
}
_OTHER: Final = Entries.OTHER.value
_INIT_PID: Final = Entries.INIT_PID.value
_entries: Final = lru_cache(256)(Entries)
_STRANGER: Final = (_OTHER, None)
_EMPTY_TMPFS: Final = 40  # st_size of an empty directory: mm/shmem.c counts 20 for each name
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MOST_NAMES: Final = 1_024  # of the directory itself
_MOST_ENTRIES: Final = 10_000  # of everything below it
_DEEPEST: Final = 40  # directories below each other


class Unread(Enum):
    """Why there is nothing to read in a file."""

    MISSING = "missing"
    UNUSABLE = "not a regular file of sane size"
    BARRED = "could not be read"


_UNUSABLE: Final = Unread.UNUSABLE


class Folder(msgspec.Struct):
    """What one pass over a bundle found.

    Attributes:
        files: Contents of the files of :data:`LIMITS` that are there.
        entries: Known names present.
        alien: There is a file that only shims of other runtimes write.
        newest: Newest modification time, the directory's own included, seconds since the epoch.
        blocks: Blocks allocated, mounts excluded.
        is_cut: Not all blocks could be counted; there are more.
        has_pid: There is an ``init.pid``, whatever it is.
        pid_written: When that was written.
    """

    files: dict[str, bytes | Unread] = msgspec.field(default_factory=dict)
    entries: Entries = Entries(0)
    alien: bool = False
    newest: float = 0.0
    blocks: int = 0
    is_cut: bool = False
    has_pid: bool = False
    pid_written: float | None = None

    def note(self, found: os.stat_result) -> None:
        """Take note of when something in it was modified, and of the blocks that it takes."""
        if (modified := found.st_mtime) > self.newest:
            self.newest = modified
        self.blocks += found.st_blocks

    def text(self, name: str) -> bytes | None:
        """Give the contents of a file that has any."""
        found = self.files.get(name)
        return found if found and isinstance(found, bytes) else None

    def is_barred(self, name: str) -> bool:
        """Return whether a file is there and would not be read: no answer, which is not a no."""
        return self.files.get(name) is Unread.BARRED


def read_folder(fd: int, mounted: frozenset[bytes], *, sizes_show_empty: bool = False) -> Folder:
    """List a directory and read its small files.

    A task that has run many execs has a pid file of each. A listing that grows too long is cut
    off: what is evidence is then asked for by its name, and only the size is not known to the end.

    Args:
        fd: Handle on it.
        mounted: Names directly in it at or below which something is mounted.
        sizes_show_empty: It is on a tmpfs, where the size of a directory shows an empty one.

    Raises:
        OSError: It cannot be listed.
    """
    folder = Folder()
    budget = _Budget(_MOST_ENTRIES)
    found = 0  # as a number: to join flags costs more than to read a file
    smallest = _EMPTY_TMPFS if sizes_show_empty else -1
    with os.scandir(fd) as listing:
        for entry in islice(listing, _MOST_NAMES):
            name = entry.name
            flag, limit = _KNOWN.get(name, _STRANGER)
            found |= flag
            if flag == _OTHER:
                folder.alien |= name in _ALIEN
            if mounted and os.fsencode(name) in mounted:
                if limit is not None:
                    folder.files[name] = Unread.UNUSABLE
            elif limit is not None:
                _take_in_file(folder, fd, entry, limit)
            else:
                size = _take_in(folder, fd, entry)
                if size is not None and size != smallest:
                    folder.blocks += _blocks_below(fd, os.fsencode(name), budget)
        if next(listing, None) is not None:
            budget.is_cut = True
            found |= _ask_by_name(folder, fd, found, mounted)
    folder.is_cut = budget.is_cut
    folder.entries = _entries(found)
    folder.has_pid = bool(found & _INIT_PID)
    return folder


def _ask_by_name(folder: Folder, fd: int, found: int, mounted: frozenset[bytes]) -> int:
    """Take in what a listing has not come to; give the flags of what is there."""
    missing = [name for name, (flag, _) in _KNOWN.items() if not found & flag]
    more = 0
    for name in (*missing, *_ALIEN):
        flag, limit = _KNOWN.get(name, _STRANGER)
        raw = os.fsencode(name)
        try:
            seen = kernel.statx(fd, raw)
        except FileNotFoundError:
            continue
        except OSError:
            seen = None
        more |= flag
        folder.alien |= name in _ALIEN
        if limit is None:
            continue
        try:
            if seen is None:
                folder.files[name] = Unread.BARRED
            elif raw in mounted or seen.is_mount_root or not stat.S_ISREG(seen.mode):
                folder.files[name] = Unread.UNUSABLE
            else:
                _read(folder, fd, name, limit)
        except FileNotFoundError:
            continue
        except OSError:
            folder.files[name] = Unread.BARRED
    return more


def read_files(fd: int, names: Iterable[str]) -> Folder:
    """Read these files of a directory, and nothing else; never raises."""
    folder = Folder()
    for name in names:
        try:
            folder.files[name] = kernel.read_beneath(fd, os.fsencode(name), LIMITS[name])
        except FileNotFoundError:
            continue
        except OSError as error:
            is_odd = error.errno in {ELOOP, EISDIR, ENXIO, EXDEV}
            folder.files[name] = Unread.UNUSABLE if is_odd else Unread.BARRED
    return folder


def _take_in_file(folder: Folder, fd: int, entry: os.DirEntry[str], limit: int) -> None:
    """Take in one of the files that are read."""
    try:
        if entry.is_file(follow_symlinks=False):
            _read(folder, fd, entry.name, limit)
        else:
            folder.files[entry.name] = _UNUSABLE
    except FileNotFoundError:
        return
    except OSError:
        folder.files[entry.name] = Unread.BARRED


def _read(folder: Folder, fd: int, name: str, limit: int) -> None:
    """Read a file that was just listed as a regular one.

    Should it have become a FIFO since, it is opened without waiting and not read.
    """
    handle = os.open(name, _OPEN, dir_fd=fd)
    try:
        found = os.fstat(handle)
        size = found.st_size
        if size > limit or not stat.S_ISREG(found.st_mode):
            folder.files[name] = _UNUSABLE
        else:
            data = os.read(handle, size) if size else b""
            while len(data) < size and (more := os.read(handle, size - len(data))):
                data += more
            folder.files[name] = data
    finally:
        os.close(handle)
    folder.note(found)
    if name == "init.pid":
        folder.pid_written = found.st_mtime


def _take_in(folder: Folder, fd: int, entry: os.DirEntry[str]) -> int | None:
    """Take in anything else; the size of a directory that may hold something, else None."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return _take_in_directory(folder, fd, entry.name)
        folder.note(entry.stat(follow_symlinks=False))
    except OSError:
        pass
    return None


def _take_in_directory(folder: Folder, fd: int, name: str) -> int | None:
    """Look at a directory in the way that returns even if a dead filesystem was mounted on it."""
    found = kernel.statx(fd, os.fsencode(name))
    if found.is_mount_root:
        return None  # newer than the mount table we have
    folder.newest = max(folder.newest, found.mtime)
    folder.blocks += found.blocks
    return found.size


class _Budget:
    """How many more entries are looked at, so that a hostile tree cannot hold us up."""

    def __init__(self, entries: int) -> None:
        self.left = entries
        self.is_cut = False

    def take(self) -> bool:
        self.left -= 1
        self.is_cut |= self.left < 0
        return self.left >= 0


def _blocks_below(parent_fd: int, name: bytes, budget: _Budget, depth: int = 0) -> int:
    """Count the blocks below a directory, without crossing into a mount; what is barred is 0."""
    try:
        fd = kernel.open_beneath(parent_fd, name)
    except OSError as error:
        budget.is_cut |= error.errno not in {ENOENT, EXDEV}
        return 0
    try:
        return _blocks_in(fd, budget, depth)
    finally:
        os.close(fd)


def _blocks_in(fd: int, budget: _Budget, depth: int) -> int:
    blocks = 0
    try:
        with os.scandir(fd) as listing:
            for child in listing:
                if not budget.take():
                    break
                blocks += _blocks_of(fd, os.fsencode(child.name), budget, depth)
    except OSError:
        budget.is_cut = True  # what could be counted counts
    return blocks


def _blocks_of(fd: int, child: bytes, budget: _Budget, depth: int) -> int:
    try:
        found = kernel.statx(fd, child)
    except OSError as error:
        budget.is_cut |= error.errno != ENOENT
        return 0
    if found.is_mount_root:
        return 0
    if stat.S_ISDIR(found.mode):
        if depth < _DEEPEST:
            return found.blocks + _blocks_below(fd, child, budget, depth + 1)
        budget.is_cut = True
    return found.blocks


class Counted(NamedTuple):
    """Blocks of a tree; ``is_cut``: there are more."""

    blocks: int
    is_cut: bool = False


def count_tree(top: int, relative: bytes) -> Counted | None:
    """Count the blocks of a directory and all below it; None if there is none.

    Below ``top`` nothing is followed and no mount is entered: it may be a dead one.
    """
    try:
        fd = kernel.open_beneath(top, relative)
    except OSError as error:
        return Counted(0) if error.errno == EXDEV else None
    budget = _Budget(_MOST_ENTRIES)
    try:
        return Counted(_blocks_of_handle(fd) + _blocks_in(fd, budget, 0), budget.is_cut)
    finally:
        os.close(fd)


def _blocks_of_handle(fd: int) -> int:
    try:
        return os.fstat(fd).st_blocks
    except OSError:
        return 0  # its disk is dying
