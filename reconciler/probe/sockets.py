"""Probes a unix socket: somebody listens, nobody does, or there is no answer.

Connecting without waiting and hanging up is all that ever happens to a shim. Accepted, or a full
backlog, is life. Only a refusal or a missing name is death; everything else is no answer.
"""

import os
import socket
from errno import EAGAIN, ECONNREFUSED, EIO, ENAMETOOLONG, ENOENT
from typing import Final, NamedTuple

from reconciler.model.evidence import ShimState
from reconciler.probe import documents

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
