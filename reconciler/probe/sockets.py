"""Sockets of shims: somebody listens, nobody does, or there is no answer.

Connecting without waiting and hanging up is all that ever happens to a shim. Accepted, or a full
backlog, is life. Only a refusal or a missing name is death; everything else is no answer.

Does a shim live? That is asked of its socket, because a pod's containers share one shim. It names
its socket in ``bootstrap.json`` or ``address``; where neither does, or what they name is dead, the
sockets that a shim would derive are tried. The most alive answer wins. A socket that refuses is a
dead shim's. One that is not there is no more than a name: it says who is dead only if the bundle's
files tell for which id its shim was started.

Only sockets where containerd's shims listen are ever connected to: root's connection to any other
one could start a service (systemd.socket(5)), and a file can name any. Elsewhere is no answer.
"""

import os
import socket
import stat
from collections.abc import Iterable
from errno import EAGAIN, ECONNREFUSED, EIO, ENAMETOOLONG, ENOENT
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.evidence import Shim, ShimState
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.probe import documents
from reconciler.probe.handles import Handles

# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_ALIVE, _DEAD, _NO_ANSWER = ShimState.ALIVE, ShimState.DEAD, ShimState.NONE
_NOBODY: Final = frozenset({ENOENT, ECONNREFUSED})
_SUN_PATH: Final = 107  # bytes of a path that fit into a socket address (unix(7))
_LONGEST: Final = 4096
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


GONE: Final = "socket is gone"
"""What is said of a path at which there is no socket: nothing refused there."""


class Address(NamedTuple):
    """Where a shim listens: a path, or NUL and an abstract name; empty for other transports."""

    path: bytes

    @property
    def is_file(self) -> bool:
        """There is a file for it."""
        return self.path.startswith(b"/")


def parse_address(text: bytes) -> Address | None:
    """Read a shim's address; None if it is none (then it is as good as missing).

    ``unix:///path`` is a socket file. Shims before containerd 1.4 wrote a path without scheme and
    meant an abstract socket. Other schemes belong to runtimes we do not know.
    """
    text = text.strip(b" \t\r\n")
    scheme, separator, rest = text.partition(b"://")
    if separator and scheme != b"unix":
        known = scheme.isalnum() and rest and len(text) < _LONGEST
        return Address(b"") if known else None
    name = rest if separator else text
    if name[:1] in {b"@", b"\0"}:
        return Address(b"\0" + name[1:]) if 1 < len(name) <= _SUN_PATH else None
    path = documents.to_path(name)
    if path is None or path == b"/":
        return None
    return Address(path if separator else b"\0" + path)


class SocketProbe:
    """Probes sockets: connects without waiting, and hangs up at once.

    A connect that fails leaves its socket as it was, so one serves for a whole pile of dead shims;
    making one for each would cost more than the question. :meth:`close` gives it back.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._owner = 0

    def __del__(self) -> None:
        """Close it, should nobody have."""
        self.close()

    def close(self) -> None:
        """Give the socket back; the next probe makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def probe(self, address: Address) -> tuple[ShimState, str]:
        """Find out whether anybody listens, and say why not."""
        if not address.path:
            return _NO_ANSWER, "not a unix socket"
        errno = self._connect(address.path)
        if errno == ECONNREFUSED and address.is_file:
            return _DEAD, "connection refused"
        if errno in {0, EAGAIN}:
            return _ALIVE, "" if errno == 0 else "its backlog is full"
        if errno == ENOENT and address.is_file:
            return _DEAD, GONE
        if errno == ECONNREFUSED:
            # Abstract names belong to a network namespace: it may listen in another one.
            return _NO_ANSWER, "abstract socket, nobody listens in this network namespace"
        return _NO_ANSWER, f"connect: {os.strerror(errno)}"

    def _connect(self, path: bytes) -> int:
        if len(path) <= _SUN_PATH:
            return self._try(path)
        directory, _, name = path.rpartition(b"/")
        try:
            handle = os.open(directory or b"/", _HANDLE)
        except OSError as error:
            return error.errno or EIO
        try:
            return self._try(b"/proc/self/fd/%d/%s" % (handle, name))
        except OSError:
            return ENAMETOOLONG  # even the last name alone does not fit into an address
        finally:
            os.close(handle)

    def _try(self, path: bytes) -> int:
        if self._socket is None or self._owner != os.getpid():
            self.close()
            try:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
                )
            except OSError as error:
                return error.errno or EIO  # no descriptor is left, perhaps
            self._owner = os.getpid()
        errno = self._socket.connect_ex(path)
        if errno not in _NOBODY:
            self.close()
        return errno


_COVERED: Final = kernel.STATX_ATTR_MOUNT_ROOT | kernel.STATX_ATTR_AUTOMOUNT
_ABSTRACT: Final = b"\0/containerd-shim/"
"""How the abstract names of shims before containerd 1.4 began."""


class ShimNames(NamedTuple):
    """What is known about a shim before it is asked.

    Attributes:
        group: Id the shim was started for; None if that cannot be known.
        id: The bundle's own id.
        named: Addresses that files name, best first.
    """

    namespace: str
    group: str | None
    id: str
    named: tuple[Address, ...] = ()


def ask_sockets(
    names: ShimNames,
    layout: Layout,
    sockets: SocketProbe,
    handles: Handles,
    addresses: Iterable[bytes] = (),
) -> Shim:
    """Find out whether the shim lives.

    ``addresses`` are further containerd addresses that a shim may have been started with.
    """
    asked: dict[bytes, tuple[ShimState, str]] = {}
    silent: bytes | None = None
    for address in (*names.named, *map(Address, derived_sockets(names, layout, addresses))):
        path = address.path
        if path in asked:
            continue
        state, detail = asked[path] = _probe_where_shims_listen(address, layout, sockets, handles)
        if state is _ALIVE:
            return Shim(state, escape(path), names.group, None, detail)
        if state is _NO_ANSWER and silent is None:
            silent = path
    if silent is not None:
        return Shim(_NO_ANSWER, escape(silent) or None, names.group, None, asked[silent][1])
    if not names.named:
        return Shim(ShimState.UNNAMED, None, names.group, None, "no file names its socket")
    path = names.named[0].path
    if names.group is None and all(asked[one.path][1] == GONE for one in names.named):
        # A torn address leads nowhere, and a living shim's socket can be lost. With nothing that
        # tells its pod, either, any shim of the namespace might serve it.
        return Shim(ShimState.UNNAMED, None, None, None, f"{GONE}, and no file tells its pod")
    return Shim(_DEAD, escape(path), names.group, None, asked[path][1])


def _probe_where_shims_listen(
    address: Address, layout: Layout, sockets: SocketProbe, handles: Handles
) -> tuple[ShimState, str]:
    """Probe where shims listen, and nowhere else: through no symlink and at nothing mounted."""
    path = address.path
    directory, _, name = path.rpartition(b"/")
    is_file = path.startswith(b"/")
    if is_file:
        is_of_shims = directory == layout.sockets or directory == layout.own_sockets  # noqa: PLR1714 - the second is seldom asked for
    else:
        is_of_shims = not path or path.startswith(_ABSTRACT)
    if not is_of_shims:
        return ShimState.NONE, f"{escape(path)} is no place of containerd's shims"
    if not is_file:
        return sockets.probe(address)
    try:
        fd = handles.named(directory)
        seen = kernel.statx(fd, name)
    except FileNotFoundError:
        return _DEAD, GONE
    except OSError as error:
        return ShimState.NONE, error.strerror or str(error)
    if stat.S_ISLNK(seen.mode) or seen.attributes & _COVERED:
        return ShimState.NONE, "something else has its socket's name"
    return sockets.probe(Address(b"/proc/self/fd/%d/%s" % (fd, name)))


def derived_sockets(
    names: ShimNames, layout: Layout, addresses: Iterable[bytes] = ()
) -> tuple[bytes, ...]:
    """Give the sockets a shim of this bundle or of its group would derive."""
    group, id_ = names.group or names.id, names.id
    ids = (group,) if group == id_ else (group, id_)
    asked = dict.fromkeys((layout.address, *addresses)) if addresses else (layout.address,)
    namespace = names.namespace
    return tuple([layout.shim_socket(namespace, one, address) for address in asked for one in ids])
