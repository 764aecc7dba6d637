"""Lock: at most one acting instance for each state tree. The kernel lets go when we die.

The file lies in a directory of our own and not in containerd's tree: a handle there would keep its
mount busy, and observing may not write there. It is named after the tree's device and inode, so two
paths to one tree are one lock. Only acting modes take it. The file stays; removing it would let two
instances hold one lock each. Nobody else may open it, or anybody could hold it
(:mod:`reconciler.kernel.private`).
"""

import fcntl
import os
from collections.abc import Mapping
from typing import Final

import msgspec

from reconciler.kernel import private

DIRECTORY: Final = b"/run/containerd-reconciler"
VARIABLE: Final = "RECONCILER_LOCK_DIR"

_PID_DIGITS: Final = 20


def directory(environ: Mapping[str, str]) -> bytes:
    """Give the directory of the lock files: ``RECONCILER_LOCK_DIR`` or the default."""
    named = environ.get(VARIABLE)
    return os.fsencode(named) if named else DIRECTORY


class Taken(msgspec.Struct, frozen=True):
    """Another instance holds the lock; ``pid`` is 0 if it has not said which yet."""

    pid: int


class InstanceLock:
    """The lock on the tree we act on. Taking another tree's lets the first one go.

    Attributes:
        acting: Whether anything may be removed; one who only observes leaves the lock to others.
    """

    def __init__(self, where: bytes = DIRECTORY, *, acting: bool = True) -> None:
        self.acting = acting
        self._where = where
        self._fd: int | None = None
        self._name: bytes | None = None

    def take(self, dev: int, ino: int) -> Taken | None:
        """Take the lock of the tree with this device and inode, or keep it; if not acting, let go.

        Returns None if it is ours now or not wanted, else who holds it.

        Raises:
            OSError: The lock file cannot be made, or is not ours alone.
        """
        if not self.acting:
            self.release()
            return None
        name = b"tree-%x-%x.lock" % (dev, ino)
        if name == self._name:
            return None
        directory = private.open_directory(self._where)
        try:
            fd = private.open_file(directory, name, os.O_RDWR)
        finally:
            os.close(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(fd)
            os.close(fd)
            return Taken(pid)
        except OSError:
            os.close(fd)
            raise
        self.release()
        self._fd, self._name = fd, name
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)  # for people; the lock is the proof
        return None

    def release(self) -> None:
        """Let it go; the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self._name = None, None


def _read_pid(fd: int) -> int:
    text = os.pread(fd, _PID_DIGITS, 0).strip()
    return int(text) if text.isdigit() else 0
