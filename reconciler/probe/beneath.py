"""Beneath: how a directory below another one is entered, and what is in it. Reads only.

Always by the handle of the one above, never through a symlink or onto a mount, and never for
longer than it is needed. What cannot be entered is told, and whoever asks decides what that means:
nothing here takes it for emptiness.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EFBIG, ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import Identity

MOST_NAMES: Final = 1 << 20
"""Names in one directory; containerd needs minutes to make so many."""

_ON_DISK: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""What ``os.fsencode`` does, which asks for the type of each name first."""

_NOTHING: Final = frozenset({ENOENT, ENOTDIR})
_BARRED: Final = frozenset({ELOOP, EXDEV})


def identity_of(seen: kernel.Stat) -> Identity:
    """Give the identity of what a stat was taken of."""
    return Identity(seen.dev, seen.ino, seen.mount_id)


@contextmanager
def opened(path: bytes, flags: int = os.O_RDONLY | os.O_NOFOLLOW) -> Iterator[int]:
    """Open a directory by its path, where work beneath it begins.

    ``O_PATH`` asks nothing of its filesystem; without ``O_NOFOLLOW`` it may be a symlink itself.

    Raises:
        OSError: It cannot be opened.
    """
    handle = os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def beneath(parent: int, name: bytes) -> Iterator[int]:
    """Open a directory below another one (:func:`reconciler.kernel.open_beneath`).

    Raises:
        OSError: It cannot be opened; ELOOP for a symlink, EXDEV for a mount.
    """
    handle = kernel.open_beneath(parent, name)
    try:
        yield handle
    finally:
        os.close(handle)


def names(directory: int) -> Iterator[bytes]:
    """Give the names in a directory as they are read, for there may be very many.

    One that has been removed has none: the kernel removes only empty ones, and then says ENOENT.

    Raises:
        OSError: It cannot be read, or holds more than :data:`MOST_NAMES` (EFBIG).
    """
    try:
        with os.scandir(directory) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_NAMES:
                    raise OSError(EFBIG, f"more than {MOST_NAMES} names in a directory")
                yield entry.name.encode(*_ON_DISK)
    except FileNotFoundError:
        return


def visible(directory: int) -> Iterator[bytes]:
    """Give the names that containerd would take for those of namespaces or bundles."""
    return (name for name in names(directory) if not name.startswith(b"."))


class Entered(NamedTuple):
    """A directory, open until the next one is asked for.

    Attributes:
        fd: Handle on it; -1 if it cannot be entered.
        errno: Then why: ELOOP for a symlink, EXDEV if something is mounted there.
    """

    name: bytes
    fd: int
    errno: int = 0


def enter(parent: int, wanted: Iterable[bytes]) -> Iterator[Entered]:
    """Enter the directories of these names; what is none, or not there, is left out.

    Raises:
        OSError: One of them cannot be opened.
    """
    for name in wanted:
        try:
            fd = kernel.open_beneath(parent, name)
        except OSError as error:
            # The kernel calls a symlink no directory where only a directory will do.
            errno = ELOOP if error.errno == ENOTDIR and _is_link(parent, name) else error.errno
            if errno in _BARRED:
                yield Entered(name, -1, errno)
            elif errno not in _NOTHING:
                raise
            continue
        try:
            yield Entered(name, fd)
        finally:
            os.close(fd)


def _is_link(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(kernel.statx(parent, name).mode)
    except FileNotFoundError:
        return False
