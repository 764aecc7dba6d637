"""Sockets the daemon listens on: one TCP address, and one unix socket that only root may open.

A stale unix socket, left by a daemon that was killed, is removed first; a living one is refused.
What is removed is a socket in our own directory, by name beneath a handle. Our own goes before we
listen no more: as long as it answers, nobody else puts his in its place.

All of it is done in this thread, names looked up as well: the daemon confines itself next, and a
thread that is there by then, as the usual helpers leave one, would not be confined.
"""

import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from errno import ECONNREFUSED, ENOENT, ENOTDIR
from typing import Final

import anyio
import msgspec
from anyio.abc import SocketListener

from reconciler.errors import ReconcilerError, RefusedError
from reconciler.present.status import EndpointStatus
from reconciler.probe.beneath import opened
from reconciler.settings.schema import Http
from reconciler.supervision import RESTARTS, Supervisor
from reconciler.telemetry.http import Server

_BACKLOG: Final = 1024
"""More than a flood has at once: whoever finds the queue full tries again after a second only."""

_Sockaddr = str | tuple[str | int | bytes, ...]
Wait = Callable[[float], Awaitable[None]]


Open = Callable[[], Awaitable[tuple[SocketListener, ...]]]


def _nothing() -> None:
    """Leave no name behind: there is none."""


class Endpoint:
    """An address to be reached at. One that cannot be had is no reason to end: it is tried again.

    Args:
        key: The key of the configuration that names it.
        address: What it says.
        listen: Listens there.
        watch: Counts what fails.
        withdraw: Takes the name away that others find it by, if it leaves one.

    Attributes:
        trouble: Why nobody can reach us there, in one line; empty if all is well.
    """

    def __init__(
        self,
        key: str,
        address: str,
        listen: Open,
        watch: Supervisor,
        withdraw: Callable[[], None] = _nothing,
    ) -> None:
        self.withdraw = withdraw
        self._key = key
        self._address = address
        self._listen = listen
        self._watch = watch
        self._listeners: tuple[SocketListener, ...] = ()
        self.trouble = ""

    @property
    def status(self) -> EndpointStatus:
        """Tell it for the status."""
        return EndpointStatus(self._key, self._address, self.trouble)

    async def open(self) -> None:
        """Listen; :attr:`trouble` says why, where that is not possible."""
        if not self._listeners and self._address:
            self.trouble = "internal error, see the log"
            with self._watch.part(f"endpoint {self._key}"):
                try:
                    self._listeners = await self._listen()
                    self.trouble = ""
                except ReconcilerError as error:
                    self.trouble = str(error)

    async def close(self) -> None:
        """Listen no more, where nobody serves."""
        self.withdraw()
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            await listener.aclose()

    async def serve(self, server: Server, wait: Wait, reachable: Callable[[str], None]) -> None:
        """Serve until cancelled; whatever fails is opened again, after a growing pause.

        ``reachable`` is called with the address once it could be had after all.
        """
        failures = 0
        while self._address:
            was_troubled = bool(self.trouble)
            await self.open()
            listeners, self._listeners = self._listeners, ()
            if listeners:
                failures = 0
                if was_troubled:
                    reachable(self._address)
                with self._watch.part(f"endpoint {self._key}"):
                    async with anyio.create_task_group() as tasks:
                        for listener in listeners:
                            tasks.start_soon(server.serve, listener)
                self.trouble = "it has failed; it is opened again soon"
            failures += 1
            await wait(RESTARTS.after(failures))


class HttpListeners(msgspec.Struct, frozen=True):
    """Where requests come in: at ``ours`` also orders."""

    ours: Endpoint
    public: Endpoint


@asynccontextmanager
async def open_listeners(http: Http, watch: Supervisor) -> AsyncIterator[HttpListeners]:
    """Listen as the configuration says. The unix socket first: a daemon that runs is told by it.

    Raises:
        RefusedError: Another daemon runs.
    """
    async with AsyncExitStack() as closes:
        unix, tcp = UnixSocket(http.socket), TcpAddress(http.listen)
        http_listeners = HttpListeners(
            Endpoint("http.socket", http.socket, unix.listen, watch, unix.withdraw),
            Endpoint("http.listen", http.listen, tcp.listen, watch),
        )
        for endpoint in (http_listeners.ours, http_listeners.public):
            closes.push_async_callback(endpoint.close)
        if http.socket and _answers(http.socket):
            raise RefusedError(
                f"another daemon listens on {http.socket}",
                "stop it first, or give this one a socket and a port of its own: "
                "set http.socket and http.listen",
            )
        for endpoint in (http_listeners.ours, http_listeners.public):
            await endpoint.open()
        yield http_listeners


class TcpAddress:
    """A TCP address: ``host:port``, an IPv6 host in brackets.

    Its name is looked up once, at the first attempt: that waits, and may wait long.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._found: list[tuple[int, _Sockaddr]] | None = None

    async def listen(self) -> tuple[SocketListener, ...]:
        """Listen there; ReconcilerError if the address is taken or is none of ours."""
        address = self._address
        try:
            with ExitStack() as undo:
                bound = [undo.enter_context(_bound(*one)) for one in self._look_up()]
                listeners = [await SocketListener.from_socket(one) for one in bound]
                undo.pop_all()
                return tuple(listeners)
        except OSError as error:
            raise ReconcilerError(
                f"cannot listen on {address}: {error.strerror or error}",
                "free it, or set http.listen to another, or empty it",
            ) from None

    def _look_up(self) -> list[tuple[int, _Sockaddr]]:
        if self._found is None:
            host, _, port = self._address.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            # Text goes through the tables of international names, which stay in memory.
            named = host.encode() if host.isascii() else host
            self._found = []
            self._found = [
                (family, to)
                for family, _, _, _, to in socket.getaddrinfo(
                    named or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            ]
        if not self._found:
            raise OSError("its name could not be looked up when the daemon was started")
        return self._found


class UnixSocket:
    """A unix socket of mode 0600, in a directory that is made if missing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._made: tuple[int, int] | None = None

    async def listen(self) -> tuple[SocketListener, ...]:
        """Listen there.

        Raises:
            ReconcilerError: Another process listens there, or it cannot be made.
        """
        path = self._path
        try:
            directory, name = os.path.split(path)
            os.makedirs(directory, mode=0o755, exist_ok=True)  # perhaps not ours: /run, or /tmp
            _clear(directory, name, path)
            before = os.umask(0o177)  # it is never there with another mode; nobody else is here yet
            try:
                bound = _bound(socket.AF_UNIX, path)
            finally:
                os.umask(before)
            made = os.lstat(path)
            self._made = made.st_dev, made.st_ino
            return (await SocketListener.from_socket(bound),)
        except OSError as error:
            raise ReconcilerError(
                f"cannot listen on {path}: {error.strerror or error}",
                "set http.socket, or empty it",
            ) from None

    def withdraw(self) -> None:
        """Remove the socket, if what has its name is the one that was made."""
        made, self._made = self._made, None
        if made is None:
            return
        directory, name = os.path.split(self._path)
        with suppress(OSError), opened(os.fsencode(directory), os.O_RDONLY) as handle:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == made and stat.S_ISSOCK(found.st_mode):
                os.unlink(name, dir_fd=handle)


def _bound(family: int, address: _Sockaddr) -> socket.socket:
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
    with opened(os.fsencode(directory), os.O_RDONLY) as handle, suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if not stat.S_ISSOCK(found.st_mode):
            raise ReconcilerError(f"{path} exists and is no socket", "set http.socket elsewhere")
        if _answers(path):
            raise ReconcilerError(f"another process listens on {path}", "set http.socket elsewhere")
        os.unlink(name, dir_fd=handle)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            error = probe.connect_ex(path)
        except OSError:
            return False  # it cannot even be the name of one
    return error not in {ECONNREFUSED, ENOENT, ENOTDIR}
