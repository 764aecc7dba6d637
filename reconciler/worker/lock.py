"""Lock: at most one acting instance for each state tree. The kernel lets go when we die.

The file lies in a directory of our own and not in containerd's tree: a handle there would keep its
mount busy, and observing may not write there. It is named after the tree's device and inode, so two
paths to one tree are one lock. Only acting modes take it. The file stays; removing it would let two
instances hold one lock each. Nobody else may open it, or anybody could hold it
(:mod:`reconciler.kernel.private`).

A daemon also writes where it listens: into the lock file if it acts, and into a file beside it in
any case, so that whoever knows the tree alone can ask it. What is read there is bounded, and a
hint: who answers says himself of which tree he is.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from reconciler.kernel import private

DIRECTORY: Final = b"/run/containerd-reconciler"
VARIABLE: Final = "RECONCILER_LOCK_DIR"

_LOCK: Final = b"tree-%x-%x.lock"
_HINT: Final = b"tree-%x-%x.daemon"
_PID_DIGITS: Final = 20
_MOST: Final = 256  # bytes of a lock file that are read
_LONGEST: Final = 107  # bytes of a unix socket's path, unix(7)
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_BUDGET: Final = 0.5  # seconds to look through the list of all locks


def directory(environ: Mapping[str, str]) -> bytes:
    """Give the directory of the lock files: ``RECONCILER_LOCK_DIR`` or the default."""
    named = environ.get(VARIABLE)
    return os.fsencode(named) if named else DIRECTORY


class Taken(msgspec.Struct, frozen=True):
    """Another instance holds the lock; ``pid`` is 0 if it has not said which yet."""

    pid: int


class Listening(msgspec.Struct, frozen=True):
    """Who works on a tree now, as the files beside its lock say.

    Attributes:
        pid: Who; 0 if it has not said.
        socket: Where it can be asked; empty if nowhere: it may be no daemon.
        acts: Whether it holds the lock, and not only watches.
        is_known: Whether it is certain to be there; from another pid namespace nobody can tell.
    """

    pid: int
    socket: str
    acts: bool
    is_known: bool = True


class InstanceLock:
    """The lock on the tree we act on. Taking another tree's lets the first one go.

    Attributes:
        acting: Whether anything may be removed; one who only observes leaves the lock to others.
        listens: The socket at which we can be asked, which is told beside the lock; empty for none.
    """

    def __init__(self, where: bytes = DIRECTORY, *, acting: bool = True, listens: str = "") -> None:
        self.acting = acting
        self.listens = listens
        self._told: int | None = None
        self._where = where
        self._fd: int | None = None
        self._name: bytes | None = None

    def take(self, dev: int, ino: int) -> Taken | None:
        """Take the lock of the tree with this device and inode, or keep it; if not acting, let go.

        Returns None if it is ours now or not wanted, else who holds it.

        Raises:
            OSError: The lock file cannot be made, or is not ours alone.
        """
        if self.listens and self._told is None:
            with suppress(OSError):  # nobody is kept from acting for want of a hint
                told = self._take(_HINT % (dev, ino))
                self._told = told if isinstance(told, int) else None
        if not self.acting:
            self._let_go()
            return None
        name = _LOCK % (dev, ino)
        if name == self._name:
            return None
        taken = self._take(name)
        if isinstance(taken, Taken):
            return taken
        self._let_go()
        self._fd, self._name = taken, name
        return None

    def _take(self, name: bytes) -> int | Taken:
        """Lock a file and say in it who we are, and where we listen; the lock is the proof."""
        directory = private.open_directory(self._where)
        try:
            fd = private.open_file(directory, name, os.O_RDWR)
        finally:
            os.close(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n%b\n" % (os.getpid(), os.fsencode(self.listens)), 0)
        except BlockingIOError:
            pid, _ = _read(fd)
            os.close(fd)
            return Taken(pid)
        except OSError:
            os.close(fd)
            raise
        return fd

    def release(self) -> None:
        """Let it go; the files stay."""
        self._let_go()
        if self._told is not None:
            os.close(self._told)
            self._told = None

    def _let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self._name = None, None


def _read(fd: int) -> tuple[int, str]:
    """Read who holds it, and where it listens; 0 and empty where that is not said."""
    said, socket, *_ = [*os.pread(fd, _MOST, 0).split(b"\n"), b"", b""]
    pid = int(said) if said.isdigit() and len(said) < _PID_DIGITS else 0
    is_path = socket.startswith(b"/") and len(socket) <= _LONGEST
    return pid, os.fsdecode(socket) if is_path else ""


def listening(where: bytes, dev: int, ino: int) -> Iterator[Listening]:
    """Tell who works on the tree with this device and inode, whoever acts first.

    No lock is tried, for then somebody who starts this moment would be refused for our sake. What
    others may have written is not believed; where it cannot be read there is nobody.
    """
    from reconciler.probe.locks import LockState, lock_holder  # only for whoever asks

    for name, acts in ((_LOCK, True), (_HINT, False)):
        with suppress(OSError):
            pid, socket = _believed(where, name % (dev, ino))
            held = lock_holder(os.path.join(where, name % (dev, ino)), budget=_BUDGET)
            is_held = held.state is LockState.HELD
            if is_held or (socket and held.state is not LockState.FREE):
                # What it wrote is its number in its own pid namespace.
                yield Listening(held.pid or pid, socket, acts, is_held)


def _believed(where: bytes, name: bytes) -> tuple[int, str]:
    """Read a file that nobody but root or ourselves can have written.

    Raises:
        OSError: It is not there, or it may be somebody else's.
    """
    directory = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, flags, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        found = os.fstat(fd)
        ours = found.st_uid in {0, os.geteuid()} and not found.st_mode & _OTHERS_WRITE
        if not (stat.S_ISREG(found.st_mode) and ours and found.st_nlink == 1):
            raise PermissionError(name)
        return _read(fd)
    finally:
        os.close(fd)
