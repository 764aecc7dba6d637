"""Sockets: remove a dead shim's socket, and never a living one's.

Between a refused connection and an unlink a new shim could bind the same name. So the socket is
first taken out of use by renaming it; nobody can listen on that inode any more unless somebody
already does, and then it gets its name back (design section 3, step 5).

Members of a pod share one, which goes with the last bundle that names it. To know the last one
every bundle would have to be read for every bundle removed, so what was read is kept for a while.
That is exact all the same: a bundle that is gone by now does not count, and none that came
meanwhile can name a *dead* socket, because a new member joins only a shim that lives.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe import documents
from reconciler.probe.beneath import beneath, opened, visible
from reconciler.probe.sockets import parse_address
from reconciler.probe.ttl_cache import TTLCache
from reconciler.worker.objects import HIDDEN, Aside, ObjectId, object_of
from reconciler.worker.step_log import Kept, Tally
from reconciler.worker.under_removal import stays

_FRESH_SECONDS: Final = 2.0
_COST: Final = 20.0  # reading may take a twentieth of the time
_LIMIT: Final = 4096


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


def remove_socket(sockets: bytes, path: bytes, judged: frozenset[ObjectId], tally: Tally) -> None:
    """Unlink the socket at ``path``, if there is one and nobody listens on it.

    ``judged`` is what had the path, or the name it is hidden by, when the bundle was judged.

    Raises:
        Kept: It is alive, is no socket, is not one that was judged, or is not in ``sockets``.
        OSError: The kernel refused.
    """
    with _opened(sockets, path, judged, tally) as aside:
        with suppress(FileNotFoundError):
            aside.check()  # an earlier run may have been killed
            _unlink(aside)
        aside.put()
        _unlink(aside)


def finish_socket(sockets: bytes, path: bytes, judged: frozenset[ObjectId], tally: Tally) -> None:
    """Unlink only what an earlier run has taken out of use at ``path``; raises likewise."""
    with _opened(sockets, path, judged, tally) as aside:
        aside.check()
        _unlink(aside)


@contextmanager
def _opened(
    sockets: bytes, path: bytes, judged: frozenset[ObjectId], tally: Tally
) -> Iterator[Aside]:
    """Open the directory, so that a socket in it can be put aside; one that is gone is fine."""
    directory, _, name = path.rpartition(b"/")
    if directory != sockets or not name or name in {b".", b".."}:
        raise Kept(f"socket {escape(path)} is not in {escape(sockets)}")
    with suppress(FileNotFoundError), opened(sockets, os.O_PATH) as parent:

        def refuse(now: bytes) -> None:
            why = _doubt(parent, now, judged)
            if why and now != name:
                raise Kept(f"somebody has begun to use {escape(name)}")
            if why:
                raise Kept(why)

        yield Aside(parent, name, HIDDEN + name, refuse, tally)


def _unlink(aside: Aside) -> None:
    os.unlink(aside.hidden, dir_fd=aside.parent)
    aside.tally.add()


def _doubt(parent: int, name: bytes, judged: frozenset[ObjectId]) -> str:
    """Say why a socket may not be removed; empty if it may.

    Raises:
        OSError: That cannot be known; FileNotFoundError if it is gone.
    """
    found, what = kernel.statx(parent, name), escape(name)
    if not stat.S_ISSOCK(found.mode):
        return f"{what} is not a socket"
    if object_of(found) not in judged:
        return f"{what} is another socket than was judged"
    return f"somebody listens on {what}" if _is_alive(parent, name) else ""


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


class SocketUsers:
    """Remembers who names which socket, one namespace at a time."""

    def __init__(self, clock: SystemClock) -> None:
        self._users = TTLCache(clock, _read_users, _FRESH_SECONDS, cost=_COST)

    def others(self, layout: Layout, key: BundleKey, socket: bytes) -> str | None:
        """Give the id of another bundle of the namespace that names the socket and stays, if any.

        A pod's sandbox may be in a tree of its own.

        Raises:
            OSError: The namespace cannot be read.
        """
        for one in (key.task, key.sandbox):
            own = frozenset({key.id}) if one == key else frozenset[str]()
            try:
                found = self._named(layout.tree_of(one), one, socket, own)
            except FileNotFoundError:
                if one == key:
                    raise
                continue
            if found is not None:
                return found
        return None

    def _named(self, tree: bytes, key: BundleKey, socket: bytes, own: frozenset[str]) -> str | None:
        name = unescape(key.namespace)
        ids = self._users.get((tree, name)).get(socket, set()) - own
        with opened(tree) as top, beneath(top, name) as namespace:
            return next((id_ for id_ in sorted(ids) if stays(namespace, unescape(id_))), None)


def _read_users(where: tuple[bytes, bytes]) -> dict[bytes, set[str]]:
    """Read in a tree's namespace which sockets are named, and by which ids."""
    tree, name = where
    with opened(tree) as top, beneath(top, name) as namespace:
        return sockets_named_in(namespace)


def sockets_named_in(namespace: int) -> dict[bytes, set[str]]:
    """Read which sockets the bundles of a namespace name, and by which ids.

    Raises:
        OSError: The namespace cannot be read.
    """
    found: dict[bytes, set[str]] = {}
    for id_ in visible(namespace):
        socket = _named_socket(namespace, id_)
        if socket is not None:
            found.setdefault(socket, set()).add(escape(id_))
    return found


def _named_socket(namespace: int, id_: bytes) -> bytes | None:
    """Read the socket a bundle's files name: ``bootstrap.json`` (2.x), else ``address``."""
    for name in (b"bootstrap.json", b"address"):
        try:
            said = kernel.read_beneath(namespace, id_ + b"/" + name, _LIMIT)
        except OSError:
            continue  # missing, or nothing that names a socket
        text = documents.parse_bootstrap(said)
        address = None if text is None else parse_address(text)
        if address is not None and address.is_file:
            return address.path
    return None
