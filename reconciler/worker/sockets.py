"""Sockets: remove a dead shim's socket, and never a living one's.

Between a refused connection and an unlink a new shim could bind the same name. So the socket is
first taken out of use by renaming it; nobody can listen on that inode any more unless somebody
already does, and then it gets its name back (design section 3, step 5).
"""

import os
import socket
import stat
from typing import Final

from reconciler import kernel
from reconciler.model.ids import escape
from reconciler.worker.objects import HIDDEN, ObjectId, object_of
from reconciler.worker.record import Kept, Tally

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def is_there(path: bytes) -> bool:
    """Return whether there is a socket to remove, or one whose removal was cut short.

    Raises:
        OSError: That cannot be known.
    """
    return _is_name(path) or _is_name(hidden_path(path))


def hidden_path(path: bytes) -> bytes:
    """Give the path a socket has once it was taken out of use."""
    directory, _, name = path.rpartition(b"/")
    return directory + b"/" + HIDDEN + name


def _is_name(path: bytes) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_socket(sockets: bytes, path: bytes, judged: frozenset[ObjectId], tally: Tally) -> bool:
    """Unlink the socket at ``path`` if nobody listens on it.

    Args:
        sockets: The directory shims put their sockets in; one that lies elsewhere is kept.
        path: The socket's path.
        judged: What had the path, or the name it is hidden by, when the bundle was judged.
        tally: Counts what was done.

    Returns:
        Whether there was one.

    Raises:
        Kept: It is alive, is no socket, is not one that was judged, or lies elsewhere.
        OSError: The kernel refused.
    """
    directory, _, name = path.rpartition(b"/")
    if directory != sockets or not name or name in {b".", b".."}:
        raise Kept(f"socket {escape(path)} is not in {escape(sockets)}")
    try:
        parent = os.open(sockets, _DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return _Removal(parent, name, judged, tally).run()
    finally:
        os.close(parent)


class _Removal:
    """The removal of one socket from an open directory."""

    def __init__(self, parent: int, name: bytes, judged: frozenset[ObjectId], tally: Tally) -> None:
        self._parent = parent
        self._name = name
        self._hidden = HIDDEN + name
        self._judged = judged
        self._tally = tally

    def run(self) -> bool:
        finished = self._finish()
        try:
            found = kernel.statx(self._parent, self._name)
        except FileNotFoundError:
            return finished
        what = escape(self._name)
        if not stat.S_ISSOCK(found.mode):
            raise Kept(f"{what} is not a socket")
        if object_of(found) not in self._judged:
            raise Kept(f"{what} is another socket than was judged")
        if _is_alive(self._parent, self._name):
            raise Kept(f"somebody listens on {what}")
        try:
            self._rename(self._name, self._hidden)
        except FileNotFoundError:
            return finished
        return self._finish()

    def _finish(self) -> bool:
        """Remove what has the hidden name, if it was judged and nobody listens on it.

        Anything else gets its name back.
        """
        try:
            found = kernel.statx(self._parent, self._hidden)
            is_dead = stat.S_ISSOCK(found.mode) and not _is_alive(self._parent, self._hidden)
            if not is_dead or object_of(found) not in self._judged:
                self._rename(self._hidden, self._name)
                raise Kept(f"somebody has begun to use {escape(self._name)}")
            os.unlink(self._hidden, dir_fd=self._parent)
        except FileNotFoundError:
            return False  # whoever removes another bundle that named it was faster
        self._tally.add()
        return True

    def _rename(self, old: bytes, new: bytes) -> None:
        kernel.renameat2(self._parent, old, self._parent, new)
        self._tally.add()


def _is_alive(parent: int, name: bytes) -> bool:
    """Anything but a clear refusal is life, a full backlog too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(b"/proc/self/fd/%d/%s" % (parent, name))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
