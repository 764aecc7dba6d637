"""Twenty thousand requests that no client would send: afterwards everything is as it was."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import anyio
import anyio.abc
import pytest
from msgspec.structs import replace

from reconciler.daemon.endpoints import Check, Handlers, routes
from reconciler.daemon.requests import Requests
from reconciler.decide.engine import Engine
from reconciler.model.layout import Layout
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.present.status import About, Attempts, ConfigStatus, Reload, Status, gather
from reconciler.supervision import Supervisor
from reconciler.telemetry import http
from reconciler.telemetry.http import ReservedDescriptor, Server
from reconciler.telemetry.metrics import Metrics
from tests.support.clock import VirtualClock
from tests.support.handles import open_files

REQUESTS: Final = 20_000
SEED: Final = 20_240_229
AT_ONCE: Final = 16
PATIENCE: Final = 30.0


def handlers(watch: Supervisor) -> Handlers:
    """What a daemon without bundles answers from."""
    engine, clock = Engine(Policies()), VirtualClock()

    async def ping() -> None:
        await anyio.lowlevel.checkpoint()

    async def reload() -> Reload:
        return Reload()

    async def deliver(observation: Observation) -> None:
        engine.observe(Stamp(clock.now, 0.0), observation)

    def status(_text: str) -> Status:
        config = ConfigStatus([], 0.0, ok=True, after_restart=[])
        about = About("node-1", "1", "observe", 1, "poll", 0.0, ready=True, config=config)
        return gather(engine, Attempts(Layout()), about, Stamp(clock.now, 0.0))

    return Handlers(
        ping=ping,
        checks=lambda: (Check("listing", ok=True), Check("guards", ok=False, detail="refused")),
        status=status,
        metrics=Metrics(engine, clock, None, watch),
        reload=reload,
        now=clock.monotonic,
        watch=watch,
        requests=Requests(
            engine,
            deliver,
            lambda: ("1", "observe", 1, "/s"),
            list,
            lambda: Stamp(clock.monotonic(), clock.wall()),
        ),
    )


@asynccontextmanager
async def serving(where: Path, watch: Supervisor) -> AsyncIterator[Path]:
    """Serve on a unix socket, with orders: more routes, and as many connections as one likes."""
    server = Server(routes(handlers(watch), orders=True), ReservedDescriptor(), watch, pause=0.0)
    path = where / "http.sock"
    listener = await anyio.create_unix_listener(path)
    assert isinstance(listener, anyio.abc.SocketListener)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, listener)
        yield path
        tasks.cancel_scope.cancel()


async def ask(path: Path, request: bytes, *, rude: bool = False) -> bytes:
    """Send bytes, and read to the end of the connection, or leave at once."""
    answer = b""
    async with await anyio.connect_unix(path) as stream:
        try:
            await stream.send(request)
            if rude:
                return answer
            await stream.send_eof()
            with anyio.fail_after(PATIENCE):
                while True:
                    answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
            return answer


TARGETS: Final = [
    *("/", "/livez", "/healthz", "/readyz", "/metrics", "/status", "/-/reload", "/nothing"),
    *("/?q=x", "/?filter", "/?filter&q=%ff%00%3cb%3e", "/?" + "q=a&" * 400, "/?q=" + "b" * 9000),
    *("/bundles", "/bundles?key=a/b&key=%ff", "/-/clean?key=a", "/-/clean?key=a/b", "/-/release"),
    *("*", "", "//", "/%00", "/\xff", "http://x/livez", "/livez/..", "/" + "a" * 3000, "x:1"),
]
METHODS: Final = [
    *("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get"),
    *("G\x00T", "", "X" * 300),
]
VERSIONS: Final = ["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 "]


def headers(chance: random.Random) -> Iterator[str]:
    """Headers that are usual, odd, many, contradictory or wrong."""
    if chance.random() < 0.85:
        yield "Host: x"
    odd: list[Callable[[], str]] = [
        lambda: (
            f"Content-Length: {chance.choice(['0', '3', '-1', 'x', '9' * 5000, '3, 4', '3,3'])}"
        ),
        lambda: f"Transfer-Encoding: {chance.choice(['chunked', 'gzip', 'chunked, chunked', ''])}",
        lambda: f"Connection: {chance.choice(['close', 'keep-alive', 'upgrade', 'x' * 200])}",
        lambda: f"Expect: {chance.choice(['100-continue', 'x'])}",
        lambda: f"Upgrade: {chance.choice(['h2c', 'websocket'])}",
        lambda: f"X-{chance.randrange(10**9)}: {'y' * chance.choice([0, 1, 500, 20_000])}",
        lambda: " folded: line",
        lambda: "No colon",
        lambda: f"{chr(chance.randrange(256))}: {chr(chance.randrange(256))}",
        lambda: "Host: another",
        lambda: "Range: bytes=0-1,0-1,0-1",
    ]
    many = chance.choice([0, 0, 1, 1, 2, 3, 300])
    yield from (chance.choice(odd)() for _ in range(min(many, 8)))
    yield from ("A: b" for _ in range(many - 8))


def body(chance: random.Random) -> bytes:
    """Nothing, something, chunks that are right, wrong, torn or endless."""
    junk = chance.randbytes(chance.choice([0, 1, 3, 100, 5000]))
    chunk = b"%x\r\n%s\r\n" % (len(junk), junk)
    return chance.choice(
        [
            b"",
            b"",
            b"abc",
            junk,
            chunk + b"0\r\n\r\n",
            chunk,
            b"ZZ\r\n",
            b"-1\r\n\r\n",
            b"0\r\n" + b"a: b\r\n" * 200 + b"\r\n",
            b"1;" + b"x" * 3000 + b"\r\na\r\n0\r\n\r\n",
            b"f" * 30 + b"\r\n",
            b"1\r\na\r\n" * 2000,
        ]
    )


def request(chance: random.Random) -> bytes:
    """One request, or something that was to be one."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.choice([0, 1, 100, 20_000]))
    fields = "&".join(
        chance.choice(["verbose", "a=b", "%", "%zz", "=", "a" * 50, "\xe9"])
        for _ in range(chance.choice([0, 1, 2, 21, 400]))
    )
    query = chance.choice(["", f"?{fields}", f"?{fields}#x", "?"])
    line = f"{chance.choice(METHODS)} {chance.choice(TARGETS)}{query} {chance.choice(VERSIONS)}"
    text = "\r\n".join([line, *headers(chance), "", ""])
    whole = text.encode("latin-1") + body(chance)
    if chance.random() < 0.1:
        whole *= chance.choice([2, 5, 30])  # one after the other, without waiting
    if chance.random() < 0.1:
        whole = whole[: chance.randrange(len(whole) + 1)]
    return whole


@pytest.mark.fault("HTTP garbage")
@pytest.mark.timeout(120)
async def test_no_request_whatsoever_ends_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails, not even under supervision; no handle is lost; health is answered."""
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.5)
    watch, left = Supervisor(), REQUESTS
    chance = random.Random(SEED)  # noqa: S311 - the same garbage each time
    async with serving(tmp_path, watch) as path:
        await ask(path, b"GET /livez HTTP/1.0\r\n\r\n")
        before = open_files()

        async def client() -> None:
            nonlocal left
            while left:
                left -= 1
                await ask(path, request(chance), rude=chance.random() < 0.1)

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(client)
        assert (await ask(path, b"GET /livez HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\nok\n")
        with anyio.fail_after(PATIENCE):
            while not open_files() <= before:  # noqa: ASYNC110 - others close them
                await anyio.sleep(0.01)
    assert watch.counts.total() == 0


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /readyz?" + b"&".join(b"%d" % n for n in range(21)) + b" HTTP/1.1\r\nHost: x", 503),
        (b"GET /readyz?" + b"&" * 10_000 + b"verbose HTTP/1.1\r\nHost: x", 503),
        (
            b"HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
            200,
        ),
        (b"HEAD /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ", 400),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: x", 400),
        (
            b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
            + b"x" * 200_000,
            413,
        ),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000, 431),
    ],
    ids=["21 fields", "10,000 fields", "HEAD, body", "HEAD, no chunk", "HEAD", "body", "header"],
)
async def test_what_ended_the_daemon_once_gets_its_answer(
    tmp_path: Path, asked: bytes, status: int
) -> None:
    watch = Supervisor()
    async with serving(tmp_path, watch) as path:
        answer = await ask(path, asked + b"\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status) or (not answer and status in {413, 431})
        assert answer.count(b"HTTP/1.1") <= 1
        if asked.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n"), "no body"
    assert watch.counts.total() == 0


@pytest.mark.breaks_parts
async def test_a_route_that_fails_is_a_500_that_is_counted(tmp_path: Path) -> None:
    watch = Supervisor()

    def fail(*_asked: str) -> NoReturn:
        raise KeyError("of our own making")

    broken = replace(handlers(watch), status=fail, checks=fail)
    server = Server(routes(broken, orders=False), ReservedDescriptor(), watch)
    listener = await anyio.create_unix_listener(tmp_path / "http.sock")
    assert isinstance(listener, anyio.abc.SocketListener)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, listener)
        for target, status in (("/", 500), ("/status", 500), ("/readyz", 500), ("/livez", 200)):
            answer = await ask(tmp_path / "http.sock", f"GET {target} HTTP/1.0\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 %d " % status), target
            assert b"of our own making" not in answer
        shown = await ask(tmp_path / "http.sock", b"GET /metrics HTTP/1.0\r\n\r\n")
        tasks.cancel_scope.cancel()
    for target in ("/", "/status", "/readyz"):
        assert watch.counts[f"route {target}"] == 1
        assert f'internal_errors_total{{where="route {target}"}} 1.0'.encode() in shown
