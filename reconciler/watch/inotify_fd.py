"""A typed inotify instance: the only place that knows inotify_simple.

The kernel's side is inotify(7). Names stay bytes. Nothing here keeps state.
"""

import os
from collections.abc import Iterator
from errno import EMFILE, ENFILE, ENOMEM, ENOSPC
from typing import Final, NamedTuple, Protocol

from inotify_simple import INotify, flags, parse_events  # type: ignore[import-untyped]  # it comes without types

from reconciler.watch.backend import BackendError

CREATE: Final = int(flags.CREATE)
DELETE: Final = int(flags.DELETE)
MOVED_FROM: Final = int(flags.MOVED_FROM)
MOVED_TO: Final = int(flags.MOVED_TO)
CLOSE_WRITE: Final = int(flags.CLOSE_WRITE)
DELETE_SELF: Final = int(flags.DELETE_SELF)
MOVE_SELF: Final = int(flags.MOVE_SELF)
UNMOUNT: Final = int(flags.UNMOUNT)
OVERFLOW: Final = int(flags.Q_OVERFLOW)
IGNORED: Final = int(flags.IGNORED)
ONLYDIR: Final = int(flags.ONLYDIR)
EXCL_UNLINK: Final = int(flags.EXCL_UNLINK)
ISDIR: Final = int(flags.ISDIR)

NAMES: Final = CREATE | DELETE | MOVED_FROM | MOVED_TO
"""Something happened to a name in the directory."""

CAME: Final = CREATE | MOVED_TO
GONE: Final = IGNORED | UNMOUNT
"""The watch itself has ended."""

_CHUNK: Final = 1 << 16  # some 2,000 events: 6 ms of work in one turn of the loop
_EXHAUSTED: Final = {
    ENOSPC: ("no inotify watch left", "fs.inotify.max_user_watches"),
    EMFILE: ("no inotify instance left, or no file handle", "fs.inotify.max_user_instances"),
    ENFILE: ("the machine has no file handle left", "fs.file-max"),
    ENOMEM: ("the kernel has no memory left for watches", ""),
}


class Event(NamedTuple):
    """One event: the watch it came through, what happened (a bit mask), and to which name."""

    wd: int
    mask: int
    name: bytes


class Handle(Protocol):
    """An inotify instance."""

    def fileno(self) -> int:
        """Give the handle to wait on."""
        ...

    def add_watch(self, path: bytes, mask: int) -> int:
        """Watch an inode; the same inode gives the same number, and the new mask replaces."""
        ...

    def rm_watch(self, wd: int) -> None:
        """End a watch; IGNORED follows. OSError if there is none."""
        ...

    def read(self) -> Iterator[Event]:
        """Take a bounded number of events; none if there are none."""
        ...

    def close(self) -> None:
        """End all watches."""
        ...


class Inotify:
    """The real :class:`Handle`."""

    def __init__(self) -> None:
        """Make an instance.

        Raises:
            BackendError: There is none to be had.
        """
        try:
            self._raw = INotify(nonblocking=True)
        except OSError as error:
            raise_if_exhausted(error)
            raise BackendError(f"no inotify: {error.strerror}") from error

    def fileno(self) -> int:
        """Give the handle to wait on."""
        return int(self._raw.fileno())

    def add_watch(self, path: bytes, mask: int) -> int:
        """Watch an inode; OSError as inotify_add_watch(2) gives it."""
        return int(self._raw.add_watch(path, mask))

    def rm_watch(self, wd: int) -> None:
        """End a watch."""
        self._raw.rm_watch(wd)

    def read(self) -> Iterator[Event]:
        """Take what is there, at most a chunk of it."""
        try:
            data = os.read(self._raw.fileno(), _CHUNK)
        except BlockingIOError:
            return
        for wd, mask, _, name in parse_events(data):
            yield Event(wd, mask, os.fsencode(name))

    def close(self) -> None:
        """End all watches."""
        self._raw.close()


def raise_if_exhausted(error: OSError) -> None:
    """Raise a `BackendError` for the errors that mean "nothing left"."""
    reason, limit = _EXHAUSTED.get(error.errno or 0, ("", ""))
    if reason:
        raise BackendError(f"{reason}{_how_to_raise(limit)}") from error


def _how_to_raise(limit: str) -> str:
    """Say what a limit is now and how to have another; it is shared with all of the user's."""
    if not limit:
        return ""
    try:
        with open(f"/proc/sys/{limit.replace('.', '/')}", encoding="ascii") as file:
            now = int(file.read())
    except (OSError, ValueError):
        return f" ({limit})"
    return f" ({limit} is {now}; raise it: sysctl -w {limit}={2 * now})"
