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
from reconciler.act.record import Kept, Tally
from reconciler.model.ids import show

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_HIDDEN: Final = b".reconciler-"
"""Put before the name of a socket taken out of use: always the same, so that the next run finds
what one that was killed began."""


def is_there(path: bytes) -> bool:
    """Tell whether there is a socket to remove, or one whose removal was cut short.

    Raises:
        OSError: That cannot be told.
    """
    directory, _, name = path.rpartition(b"/")
    return _is_name(path) or _is_name(directory + b"/" + _HIDDEN + name)


def _is_name(path: bytes) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_socket(sockets: bytes, path: bytes, tally: Tally) -> bool:
    """Unlink the socket at ``path`` if nobody listens on it.

    Args:
        sockets: The directory shims put their sockets in; one that lies elsewhere is kept.
        path: The socket's path.
        tally: Counts what was done.

    Returns:
        Whether there was one.

    Raises:
        Kept: It is alive, is no socket, or lies elsewhere.
        OSError: The kernel refused.
    """
    directory, _, name = path.rpartition(b"/")
    if directory != sockets or not name or name in {b".", b".."}:
        raise Kept(f"socket {show(path)} is not in {show(sockets)}")
    try:
        parent = os.open(sockets, _DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return _remove(parent, name, tally)
    finally:
        os.close(parent)


def _remove(parent: int, name: bytes, tally: Tally) -> bool:
    hidden = _HIDDEN + name
    finished = _finish(parent, hidden, name, tally)
    try:
        found = kernel.statx(parent, name)
    except FileNotFoundError:
        return finished
    if not stat.S_ISSOCK(found.mode):
        raise Kept(f"{show(name)} is not a socket")
    if _is_alive(parent, name):
        raise Kept(f"somebody listens on {show(name)}")
    kernel.renameat2(parent, name, parent, hidden)
    tally.add()
    return _finish(parent, hidden, name, tally)


def _finish(parent: int, hidden: bytes, name: bytes, tally: Tally) -> bool:
    """Remove what has the hidden name, unless somebody listens on it: that gets its name back."""
    try:
        found = kernel.statx(parent, hidden)
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.mode) or _is_alive(parent, hidden):
        kernel.renameat2(parent, hidden, parent, name)
        tally.add()
        raise Kept(f"somebody has begun to use {show(name)}")
    os.unlink(hidden, dir_fd=parent)
    tally.add()
    return True


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
