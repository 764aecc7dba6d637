"""Walk: take one directory tree apart, bottom up, with a bounded number of handles.

Used by `removal` only, which says what it promises. It must never make a destructive call that is
not relative to a handle from :func:`reconciler.kernel.open_beneath`, and never enter anything by
another call: the kernel then refuses mounts and symlinks, however late they appear. Names come
from the directory being read.

Deep trees: a stack instead of recursion, and only the lowest directories keep their handles. One
further up is opened again by its names, from the top and within the same limits, and must be the
same object.
"""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from reconciler import kernel
from reconciler.model.ids import Identity, escape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import identity_of
from reconciler.worker.blocked import Blocked, blocked_at, blocked_by
from reconciler.worker.step_log import Tally

_BATCH: Final = 4096  # names held at a time, however many a directory has
_HANDLES: Final = 32  # directories held open at a time, however deep the tree is
_SPARE: Final = 16  # listings beyond those its first size needs, before somebody is filling it
_PATH_LIMIT: Final = 3800  # below PATH_MAX by more than one name


class _Frame(msgspec.Struct):
    """One directory on the way down.

    Attributes:
        fd: Handle; -1 while given up.
        pending: Directories found in it and not yet entered.
        listed: A listing has come to its end: once nothing is pending it should be empty.
        listings: How many more listings it may take; set by the first.
        identity: What it was when its handle was given up.
    """

    name: bytes
    fd: int
    pending: list[bytes] = []
    listed: bool = False
    listings: int | None = None
    identity: Identity | None = None


class Walk:
    """The removal of one tree. Run once, then close.

    Attributes:
        bytes: Allocated bytes freed.
    """

    def __init__(self, parent_fd: int, tally: Tally, mount_points: frozenset[bytes]) -> None:
        self.bytes = 0
        self._tally = tally
        self._parent_fd = parent_fd
        self._mount_points = mount_points
        self._frames: list[_Frame] = []

    def run(self, name: bytes, expected: Identity) -> None:
        """Remove ``name`` and all below it, if it is the object expected."""
        self._go_on(name)
        self._enter(self._parent_fd, name)
        if self._frames:
            check_identity(self._look(self._frames[0].fd), expected, self._path())
        while self._frames:
            frame = self._frames[-1]
            if frame.pending:
                self._descend(frame.pending.pop())
            elif frame.listed:
                self._ascend(frame, expected)
            else:
                self._thin_out(frame)

    def close(self) -> None:
        """Close what handles are left."""
        for frame in self._frames:
            if frame.fd >= 0:
                os.close(frame.fd)
        self._frames.clear()

    # ---- down

    def _descend(self, name: bytes) -> None:
        self._go_on(name)
        here = self._handle(len(self._frames) - 1)
        if len(self._frames) == 1 and name in self._mount_points:
            self._rmdir(here, name, name)
        else:
            self._enter(here, name)

    def _enter(self, dir_fd: int, name: bytes) -> None:
        try:
            fd = kernel.open_beneath(dir_fd, name)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            if not self._frames:
                raise Blocked(BlockReason.CHANGED, escape(name), "not a directory") from None
            self._unlink(dir_fd, name)  # it was a directory when it was listed
            return
        except OSError as error:
            raise blocked_by(error, self._path(name)) from None
        self._frames.append(_Frame(name, fd))
        if len(self._frames) > _HANDLES:
            self._give_up(self._frames[-_HANDLES - 1])

    def _give_up(self, frame: _Frame) -> None:
        if frame.fd >= 0:
            frame.identity = identity_of(self._look(frame.fd))
            os.close(frame.fd)
            frame.fd = -1

    # ---- here

    def _thin_out(self, frame: _Frame) -> None:
        """Unlink what a listing shows and note its directories."""
        here = self._handle(len(self._frames) - 1)
        try:
            with os.scandir(here) as listing:
                found = [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in islice(listing, _BATCH)
                ]
                if frame.listings is None:
                    frame.listings = sum(1 for _ in listing) // _BATCH + _SPARE
        except OSError as error:
            raise blocked_by(error, self._path()) from None
        frame.listings -= 1
        if frame.listings < 0:
            detail = "somebody fills it while it is emptied"
            raise Blocked(BlockReason.MOUNT_BUSY, self._path(), detail)
        for name, is_directory in found:
            if is_directory:
                frame.pending.append(name)
            else:
                self._go_on(name)
                self._unlink(here, name)
        frame.listed = len(found) < _BATCH

    def _unlink(self, dir_fd: int, name: bytes) -> None:
        try:
            size = kernel.allocated(dir_fd, name)
            os.unlink(name, dir_fd=dir_fd)
        except (FileNotFoundError, IsADirectoryError):
            return  # gone, or a directory by now: the next listing shows it
        except OSError as error:
            raise blocked_at(dir_fd, name, error, self._path(name)) from None
        self._tally.add()
        self.bytes += size

    # ---- up

    def _ascend(self, frame: _Frame, expected: Identity) -> None:
        """Remove the directory that should be empty; if it is not, it will be listed again."""
        above = self._handle(len(self._frames) - 2)
        try:
            if len(self._frames) > 1 or self._still_is(frame.name, expected):
                self._rmdir(above, frame.name, b"")
        except Blocked as blocked:
            if blocked.reason is not BlockReason.NOT_EMPTY:
                raise
            frame.listed = False
            return
        self._frames.pop()
        os.close(frame.fd)

    def _rmdir(self, dir_fd: int, name: bytes, below: bytes) -> None:
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise blocked_at(dir_fd, name, error, self._path(below)) from None
        self._tally.add()

    def _still_is(self, name: bytes, expected: Identity) -> bool:
        """Return whether the tree's own name is still there; raise if it means another object."""
        try:
            seen = kernel.statx(self._parent_fd, name)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise blocked_by(error, escape(name)) from None
        check_identity(seen, expected, self._path())
        return True

    # ---- shared

    def _go_on(self, name: bytes) -> None:
        if self._tally.stop():
            raise Blocked(BlockReason.INTERRUPTED, self._path(name), "a stop was requested")

    def _path(self, name: bytes = b"") -> str:
        names = [frame.name for frame in self._frames]
        return escape(b"/".join([*names, name] if name else names))

    def _look(self, fd: int) -> kernel.Stat:
        try:
            return kernel.statx_handle(fd)
        except OSError as error:
            raise blocked_by(error, self._path()) from None

    def _handle(self, index: int) -> int:
        """Give the handle of a directory on the way down; -1 means the one that holds the tree."""
        if index < 0:
            return self._parent_fd
        if self._frames[index].fd < 0:
            # Several at once, because the way from the top is long and each will be needed.
            first = max(0, index - _HANDLES // 2)
            names = [frame.name for frame in self._frames]
            self._reopen(first, self._parent_fd, _paths(names[: first + 1]))
            for each in range(first + 1, index + 1):
                self._reopen(each, self._frames[each - 1].fd, iter(names[each : each + 1]))
        return self._frames[index].fd

    def _reopen(self, index: int, start: int, paths: Iterator[bytes]) -> None:
        """Open a directory again by paths from a handle; it must be what it was."""
        fd = os.dup(start)
        try:
            for path in paths:
                below = kernel.open_beneath(fd, path)
                os.close(fd)
                fd = below
            seen = kernel.statx_handle(fd)
        except OSError as error:
            os.close(fd)
            raise blocked_by(error, self._path()) from None
        if identity_of(seen) != self._frames[index].identity:
            os.close(fd)
            detail = f"a directory {len(self._frames) - 1 - index} above was moved meanwhile"
            raise Blocked(BlockReason.CHANGED, self._path(), detail)
        self._frames[index].fd = fd


def check_identity(seen: kernel.Stat, expected: Identity, path: str) -> None:
    """Raise Blocked unless this is the object that was judged."""
    if identity_of(seen) == expected:
        return
    if seen.is_mount_root:
        raise Blocked(BlockReason.FOREIGN_MOUNT, path, "something is mounted there")
    raise Blocked(BlockReason.CHANGED, path, "not the object that was judged")


def _paths(names: list[bytes]) -> Iterator[bytes]:
    """Join names to paths that the kernel takes."""
    part: list[bytes] = []
    length = 0
    for name in names:
        if length + len(name) >= _PATH_LIMIT:
            yield b"/".join(part)
            part, length = [], 0
        part.append(name)
        length += len(name) + 1
    yield b"/".join(part)
