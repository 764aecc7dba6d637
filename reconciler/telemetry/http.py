"""A small HTTP/1.1 server on TCP and unix sockets: h11 for the protocol, anyio for the sockets.

It answers GET and HEAD (and POST where a route asks for it) from routes that never block, and is
built to be harmless when abused: bounded headers and bodies, bounded connections, a deadline for
every read and write, a pause between two requests of one connection. When all places are taken,
whoever has most of them loses the one that has waited longest without sending a whole request, so
neither slow clients nor many fast ones can shut out a health check. A connection or a route that
fails is counted, and costs that client its answer and nobody anything else.
"""

import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from errno import ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM
from http import HTTPStatus
from typing import Final

import anyio
import h11
import msgspec
from anyio.abc import ByteStream, SocketAttribute, SocketListener, SocketStream

from reconciler.supervision import Supervisor

MAX_HEADER: Final = 16 * 1024
MAX_REQUEST: Final = 64 * 1024
"""Bytes of a request with its body, which no route reads."""
MAX_CONNECTIONS: Final = 128
READ_TIMEOUT: Final = 5.0
"""Seconds a client may take for one request, counted from its connection or its last answer."""
WRITE_TIMEOUT: Final = 10.0
PAUSE: Final = 0.25
"""Seconds between two requests of one connection: no scraper or probe notices, a flood does."""

_WAIT_FOR: Final = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED})
"""What accept(2) says where nothing is wrong with the listener: there is no handle left for now."""
_PAUSE: Final = 0.2
_TRIES: Final = 25
"""So often in a row accept(2) may fail otherwise, which takes five seconds; then it is over."""
_PIECE: Final = 32 * 1024

_UCRED: Final = struct.Struct("3i")

_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
)


class Request(msgspec.Struct, frozen=True):
    """What a route needs to know; ``peer`` is who asks, on a unix socket: user id and pid."""

    method: str
    path: str
    query: str = ""
    peer: tuple[int, int] | None = None


class Response(msgspec.Struct, frozen=True):
    """What a route answers; ``headers`` are added to the usual ones."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


Route = Callable[[Request], Awaitable[Response]]

FAILED: Final = Response(b"internal error, see the log\n", 500)
"""What is answered where we have failed ourselves."""


class _TooLongError(Exception):
    """A request with a body that nobody asked for."""


class _Connections:
    """The open connections. Where there is no place left, whoever has most of them loses one."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, anyio.CancelScope]] = {}
        self._answering: set[int] = set()
        self._last = 0

    def enter(self, peer: str, scope: anyio.CancelScope) -> int:
        """Add a connection of a peer; cancelling the scope must end it."""
        self._last += 1
        self._open[self._last] = peer, scope
        if len(self._open) > MAX_CONNECTIONS:
            self._make_room()
        return self._last

    def leave(self, number: int) -> None:
        self._open.pop(number, None)
        self._answering.discard(number)

    def waits(self, number: int) -> None:
        """Note that a connection waits for its client."""
        self._answering.discard(number)

    def answers(self, number: int) -> None:
        """Note that a connection is being answered."""
        self._answering.add(number)

    def _make_room(self) -> None:
        """Cut the oldest connection of the peer with most of them; those being answered last."""
        most, _ = Counter(peer for peer, _ in self._open.values()).most_common(1)[0]
        theirs = [number for number, (peer, _) in self._open.items() if peer == most]
        waiting = (number for number in theirs if number not in self._answering)
        number = next(waiting, theirs[0])
        _, scope = self._open[number]
        self.leave(number)
        scope.cancel()


class ReservedDescriptor:
    """A file handle kept for the day on which there is no other: then one client is answered."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self.take()

    def take(self) -> None:
        """Keep one, if there is one to be had."""
        if self._fd is None:
            with suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give(self) -> bool:
        """Let go of it; tell whether there was one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        return fd is not None


class Server:
    """Serves routes on any number of listeners. Nothing that a client sends ends it.

    Args:
        routes: By method and path: ``("GET", "/metrics")``.
        spare: A handle for when there is no other.
        watch: Counts what fails: a connection, a route.
        pause: Seconds from an answer to the next request on the same connection, at least.
    """

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Route],
        spare: ReservedDescriptor,
        watch: Supervisor,
        *,
        pause: float = PAUSE,
    ) -> None:
        self._routes = routes
        self._spare = spare
        self._watch = watch
        self._pause = pause
        self._connections = _Connections()
        watch.know("connection", "accept", *(f"route {path}" for _, path in routes))

    async def serve(self, listener: SocketListener) -> None:
        """Serve until cancelled; the listener is closed then.

        Raises:
            OSError: Nobody could be accepted for a while, and not for want of handles: the listener
                itself is at fault, and only another one helps.
        """
        failures = 0
        async with listener, anyio.create_task_group() as tasks:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in _WAIT_FOR:
                        # The client's own end of it, or the listener's: only the next try can tell.
                        self._watch.failed("accept", error)
                        failures += 1
                        if failures >= _TRIES:
                            raise
                    if error.errno not in _WAIT_FOR or not self._spare.give():
                        await anyio.sleep(_PAUSE)
                        self._spare.take()
                else:
                    failures = 0
                    tasks.start_soon(self._talk, stream)

    async def _talk(self, stream: SocketStream) -> None:
        machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)
        number = 0
        try:
            with self._watch.part("connection"), anyio.CancelScope() as scope:
                async with stream:
                    number = self._connections.enter(_peer(stream), scope)
                    while await self._one_exchange(machine, stream, number):
                        pass
        finally:
            self._connections.leave(number)
            self._spare.take()

    async def _one_exchange(
        self, machine: h11.Connection, stream: SocketStream, number: int
    ) -> bool:
        """Read one request and answer it; True if another may follow."""
        try:
            request: h11.Request | None = None
            refused = 0
            with anyio.move_on_after(READ_TIMEOUT):
                self._connections.waits(number)
                try:
                    request = await _read(machine, stream)
                except h11.RemoteProtocolError as error:
                    refused = error.error_status_hint
                except _TooLongError:
                    refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self._connections.answers(number)
            if refused:
                # Not by the machine: it may have seen a HEAD, or half of something.
                await _send(stream, [_refusal(HTTPStatus(refused))])
            if request is None:
                return False
            response = await self._answer(request, stream)
            await _send(stream, _written(machine, response, head=request.method == b"HEAD"))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            return False  # the client went away, which is its right
        if machine.our_state is not h11.DONE or machine.their_state is not h11.DONE:
            return False
        machine.start_next_cycle()
        self._connections.waits(number)
        await anyio.sleep(self._pause)
        return True

    async def _answer(self, request: h11.Request, stream: SocketStream) -> Response:
        path, _, query = request.target.decode("latin-1").partition("?")
        method = request.method.decode("latin-1")
        route = self._routes.get(("GET" if method == "HEAD" else method, path))
        if route is not None:
            with self._watch.part(f"route {path}"):
                return await route(Request(method, path, query, _credentials(stream)))
            return FAILED
        if any(known == path for _, known in self._routes):
            return Response(b"method not allowed\n", 405)
        return Response(b"not found\n", 404)


def _peer(stream: SocketStream) -> str:
    """Tell who is at the other end: a host, or all of those who reach a unix socket of ours."""
    address = stream.extra(SocketAttribute.remote_address, "")  # noqa: S610 - anyio, not Django
    return str(address[0]) if isinstance(address, tuple) else ""


def _credentials(stream: SocketStream) -> tuple[int, int] | None:
    """Tell who is at the other end of a unix socket, as of its connection (``SO_PEERCRED``)."""
    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio, not Django
    if raw.family != socket.AF_UNIX:
        return None
    pid, uid, _ = _UCRED.unpack(raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid, pid


async def _read(machine: h11.Connection, stream: ByteStream) -> h11.Request | None:
    """Read one whole request; its body is read and dropped. None if the client left."""
    request: h11.Request | None = None
    received = 0
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            if received > MAX_REQUEST:
                raise _TooLongError
            try:
                data = await stream.receive(MAX_HEADER)
            except anyio.EndOfStream:
                return None
            received += len(data)
            machine.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None


def _written(machine: h11.Connection, response: Response, *, head: bool) -> list[bytes]:
    """Write an answer as the pieces to be sent; the body is the one that others get as well."""
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        *_HEADERS,
        *response.headers.items(),
    ]
    start = machine.send(h11.Response(status_code=response.status, headers=headers)) or b""
    body = b"" if head else response.body
    if not head:
        machine.send_with_data_passthrough(h11.Data(data=body))  # for its books alone
    machine.send(h11.EndOfMessage())
    return [start, body] if len(body) > _PIECE else [start + body]


async def _send(stream: ByteStream, pieces: Iterable[bytes]) -> None:
    """Send within a deadline, and never have more than a piece of it wait for the client."""
    with anyio.move_on_after(WRITE_TIMEOUT):
        for piece in pieces:
            for begin in range(0, len(piece), _PIECE):
                await stream.send(piece[begin : begin + _PIECE])


def _refusal(status: HTTPStatus) -> bytes:
    """Write an answer to what is no request of ours; nothing may follow it on its connection."""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ).encode()
