"""A small HTTP/1.1 server on TCP and unix sockets: h11 for the protocol, anyio for the sockets.

It answers GET and HEAD (and POST where a route asks for it) from routes that never block, and is
built to be harmless when abused: bounded headers, bounded connections, a deadline for every read
and write. When all places are taken, the connection that has waited longest without sending a
whole request makes room, so slow clients cannot shut out a health check.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream, SocketListener

MAX_HEADER: Final = 16 * 1024
MAX_CONNECTIONS: Final = 128
READ_TIMEOUT: Final = 5.0
"""Seconds a client may take for one request, counted from its connection or its last answer."""
WRITE_TIMEOUT: Final = 10.0

_WAIT_FOR: Final = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED})
"""What accept(2) says where nothing is wrong with the listener: there is no handle left for now."""
_PAUSE: Final = 0.2

_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a route needs to know."""

    method: str
    path: str
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What a route answers; ``headers`` are added to the usual ones."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Request], Awaitable[Response]]


class _Connections:
    """The open connections; those still reading, oldest first, may be cut to make room."""

    def __init__(self) -> None:
        self._reading: dict[int, anyio.CancelScope] = {}
        self._open = 0
        self._last = 0

    def enter(self) -> int:
        self._open += 1
        self._last += 1
        if self._open > MAX_CONNECTIONS and self._reading:
            oldest = next(iter(self._reading))
            self._reading.pop(oldest).cancel()
        return self._last

    def leave(self, number: int) -> None:
        self._open -= 1
        self._reading.pop(number, None)

    def reading(self, number: int, scope: anyio.CancelScope) -> None:
        self._reading[number] = scope

    def answering(self, number: int) -> None:
        self._reading.pop(number, None)


class Spare:
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
    """Serves routes on any number of listeners.

    Args:
        routes: By method and path: ``("GET", "/metrics")``.
        spare: A handle for when there is no other.
    """

    def __init__(self, routes: Mapping[tuple[str, str], Route], spare: Spare) -> None:
        self._routes = routes
        self._spare = spare
        self._connections = _Connections()

    async def serve(self, listener: SocketListener) -> None:
        """Serve until cancelled; the listener is closed then."""
        async with listener, anyio.create_task_group() as tasks:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in _WAIT_FOR:
                        raise
                    if not self._spare.give():
                        await anyio.sleep(_PAUSE)
                        self._spare.take()
                else:
                    tasks.start_soon(self._talk, stream)

    async def _talk(self, stream: ByteStream) -> None:
        number = self._connections.enter()
        machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)
        try:
            async with stream:
                while await self._one_exchange(machine, stream, number):
                    pass
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass  # the client went away, which is its right
        finally:
            self._connections.leave(number)
            self._spare.take()

    async def _one_exchange(self, machine: h11.Connection, stream: ByteStream, number: int) -> bool:
        """Read one request and answer it; True if another may follow."""
        request: h11.Request | None = None
        with anyio.move_on_after(READ_TIMEOUT) as scope:
            self._connections.reading(number, scope)
            try:
                request = await _read(machine, stream)
            except h11.RemoteProtocolError as error:
                await _send(machine, stream, _refusal(error), head=False)
        self._connections.answering(number)
        if request is None:
            return False
        response = await self._answer(request)
        await _send(machine, stream, response, head=request.method == b"HEAD")
        if machine.our_state is not h11.DONE or machine.their_state is not h11.DONE:
            return False
        machine.start_next_cycle()
        return True

    async def _answer(self, request: h11.Request) -> Response:
        path, _, query = request.target.decode("latin-1").partition("?")
        method = request.method.decode("latin-1")
        route = self._routes.get(("GET" if method == "HEAD" else method, path))
        if route is not None:
            return await route(Request(method, path, query))
        if any(known == path for _, known in self._routes):
            return Response(b"method not allowed\n", 405)
        return Response(b"not found\n", 404)


async def _read(machine: h11.Connection, stream: ByteStream) -> h11.Request | None:
    """Read one whole request; its body is read and dropped. None if the client left."""
    request: h11.Request | None = None
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            try:
                machine.receive_data(await stream.receive(MAX_HEADER))
            except anyio.EndOfStream:
                return None
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None


async def _send(
    machine: h11.Connection, stream: ByteStream, response: Response, *, head: bool
) -> None:
    if machine.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        *_HEADERS,
        *response.headers.items(),
    ]
    data = machine.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if not head:
        data += machine.send(h11.Data(data=response.body)) or b""
    data += machine.send(h11.EndOfMessage()) or b""
    with anyio.move_on_after(WRITE_TIMEOUT):
        await stream.send(data)


def _refusal(error: h11.RemoteProtocolError) -> Response:
    return Response(b"bad request\n", error.error_status_hint, headers={"connection": "close"})
