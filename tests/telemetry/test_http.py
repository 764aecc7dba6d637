"""The HTTP server against clients of every kind of manners."""

import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EINVAL, EMFILE

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream, SocketListener, SocketStream
from typing_extensions import override

from reconciler.supervision import Supervisor
from reconciler.telemetry import http
from reconciler.telemetry.http import MAX_CONNECTIONS, Request, ReservedDescriptor, Response, Server


async def hello(request: Request) -> Response:
    return Response(f"hello {request.query}\n".encode())


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server = Server(
        {("GET", "/hello"): hello, ("POST", "/do"): hello}, ReservedDescriptor(), Supervisor()
    )
    multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = multi.listeners[0]
    assert isinstance(listener, anyio.abc.SocketListener)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio, not Django
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, listener)
        yield port
        tasks.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> bytes:
    """Send bytes and read to the end of the connection."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(request)
        return await read_all(stream)


async def read_all(stream: ByteStream) -> bytes:
    answer = b""
    with anyio.fail_after(20):
        try:
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/hello?a"), 200),
        (get("/hello", "HEAD"), 200),
        (get("/nothing"), 404),
        (get("/hello", "POST"), 405),
        (get("/do", "POST"), 200),
        (get("/../../etc/passwd"), 404),
        (b"\x00\x01\x02 rubbish\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
    ],
    ids=["get", "head", "unknown", "wrong method", "post", "dots", "rubbish", "1 MB header"],
)
async def test_each_request_gets_its_status(request_: bytes, status: int) -> None:
    async with serving() as port:
        answer = await ask(port, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (status == 431 and not answer)


async def test_a_head_has_no_body_and_a_get_has_one() -> None:
    async with serving() as port:
        assert (await ask(port, get("/hello?you"))).endswith(b"\r\n\r\nhello you\n")
        assert (await ask(port, get("/hello?you", "HEAD"))).endswith(b"\r\n\r\n")


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with serving() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        for _ in range(3):
            await stream.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            with anyio.fail_after(5):
                assert (await stream.receive()).startswith(b"HTTP/1.1 200")


async def test_a_thousand_slow_clients_do_not_shut_out_a_health_check() -> None:
    async with serving() as port:
        slow = []
        try:
            for _ in range(1000):
                client = socket.create_connection(("127.0.0.1", port))
                client.send(b"GET /hel")
                slow.append(client)
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(http.READ_TIMEOUT / 2):
                assert b"hello" in await ask(port, get("/hello"))
        finally:
            for client in slow:
                client.close()


async def test_a_client_that_sends_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.05)
    async with serving() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        assert await read_all(stream) == b""


async def test_places_are_given_back() -> None:
    async with serving() as port:
        for _ in range(MAX_CONNECTIONS + 20):
            assert b"200" in await ask(port, get("/hello"))


class Failing(SocketListener):
    """A listener whose accept(2) fails as it is told to, and once accepts somebody; then waits."""

    def __init__(self, *errors: int | None) -> None:
        self.errors = deque(errors)
        self.closed = False

    @property
    @override
    def _raw_socket(self) -> socket.socket:
        raise NotImplementedError

    @override
    async def accept(self) -> SocketStream:
        if not self.errors:
            await anyio.sleep_forever()
        errno = self.errors.popleft()
        if errno is None:
            near, far = socket.socketpair()
            far.close()
            return await SocketStream.from_socket(near)
        raise OSError(errno, "accept")

    @override
    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(http, "_PAUSE", 0.0)
    return Server({}, ReservedDescriptor(), Supervisor())


@pytest.mark.breaks_parts
async def test_a_listener_that_only_fails_is_given_up(hasty: Server) -> None:
    """Whoever has opened it opens another (`daemon.listening`)."""
    broken = Failing(*[EINVAL] * 1000)
    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await hasty.serve(broken)
    assert caught.value.subgroup(OSError)
    assert broken.closed
    assert len(broken.errors) == 1000 - http._TRIES


@pytest.mark.breaks_parts
@pytest.mark.parametrize("between", [None, EMFILE])
async def test_a_listener_is_not_given_up_for_its_clients_or_for_want_of_handles(
    hasty: Server, between: int | None
) -> None:
    few = [EINVAL] * (http._TRIES - 1)
    errors = [*few, None, *few] if between is None else [*few, *[between] * 100]
    patient = Failing(*errors)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hasty.serve, patient)
        with anyio.fail_after(5):
            while patient.errors:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert patient.closed
