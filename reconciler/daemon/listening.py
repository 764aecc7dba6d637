"""Sockets the daemon listens on: one TCP address, and one unix socket that only root may open.

A stale unix socket, left by a daemon that was killed, is removed first; a living one is refused.
What is removed is a socket in our own directory, by name beneath a handle.

All of it is done in this thread, names looked up as well: the daemon confines itself next, and a
thread that is there by then, as the usual helpers leave one, would not be confined.
"""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from errno import ECONNREFUSED, ENOENT
from typing import Final

from anyio.abc import SocketListener

from reconciler.errors import ReconcilerError, RefusedError
from reconciler.settings.schema import Http

_BACKLOG: Final = 128
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Doors:
    """Where requests come in: at ``ours`` also orders."""

    ours: tuple[SocketListener, ...] = ()
    public: tuple[SocketListener, ...] = ()


@asynccontextmanager
async def open_doors(http: Http) -> AsyncIterator[Doors]:
    """Listen as the configuration says. The unix socket first: a daemon that runs is told by it.

    Raises:
        RefusedError: Another daemon runs.
        ReconcilerError: An address is taken.
    """
    async with AsyncExitStack() as closes:
        ours = (await listen_unix(http.socket),) if http.socket else ()
        for listener in ours:
            closes.push_async_callback(listener.aclose)
        public = await listen_tcp(http.listen) if http.listen else ()
        for listener in public:
            closes.push_async_callback(listener.aclose)
        yield Doors(ours, public)


async def listen_tcp(address: str) -> tuple[SocketListener, ...]:
    """Listen on ``host:port`` (an IPv6 host in brackets).

    Raises:
        ReconcilerError: The address is taken or is none of ours.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        with ExitStack() as undo:
            found = socket.getaddrinfo(
                host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            bound = [undo.enter_context(_bound(family, to)) for family, _, _, _, to in found]
            listeners = [await SocketListener.from_socket(one) for one in bound]
            undo.pop_all()
            return tuple(listeners)
    except OSError as error:
        raise ReconcilerError(
            f"cannot listen on {address}: {error.strerror or error}", "set http.listen, or empty it"
        ) from None


async def listen_unix(path: str) -> SocketListener:
    """Listen on a unix socket of mode 0600, in a directory that is made if missing.

    Raises:
        ReconcilerError: Another process listens there, or it cannot be made.
    """
    try:
        directory, name = os.path.split(path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        _clear(directory, name, path)
        before = os.umask(0o177)  # it is never there with another mode; nobody else is here yet
        try:
            bound = _bound(socket.AF_UNIX, path)
        finally:
            os.umask(before)
        return await SocketListener.from_socket(bound)
    except OSError as error:
        raise ReconcilerError(
            f"cannot listen on {path}: {error.strerror or error}", "set http.socket, or empty it"
        ) from None


def _bound(family: int, address: str | tuple[str | int | bytes, ...]) -> socket.socket:
    """Listen on one address."""
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # 0.0.0.0 and :: are two addresses
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _clear(directory: str, name: str, path: str) -> None:
    """Remove a dead socket of that name; leave everything else where it is."""
    handle = os.open(directory, _DIRECTORY)
    try:
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if not stat.S_ISSOCK(found.st_mode):
            raise ReconcilerError(f"{path} exists and is no socket", "set http.socket elsewhere")
        if _answers(path):
            raise RefusedError(f"another daemon listens on {path}", "stop it first")
        os.unlink(name, dir_fd=handle)
    except FileNotFoundError:
        pass
    finally:
        os.close(handle)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        error = probe.connect_ex(path)
    return error not in {ECONNREFUSED, ENOENT}
