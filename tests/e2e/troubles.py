"""Everything at once against one daemon: each kind of trouble by its name.

    with trouble(ground, "http", "reload"): ...

An ingredient does its harm in a thread of its own until the time is over, and takes it back at the
end.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tests.e2e.containerd import TASKS
from tests.e2e.processes import kill_all, until
from tests.e2e.soak import BULK, Ground

SOCKET: Final = "/run/containerd-reconciler/http.sock"
AT_A_TIME: Final = 20
"""Cheap tasks that live before the oldest of them dies."""

_BELIEVED: Final = "[brake]\nmass_deaths = 100000\n"
"""Without it a mass of deaths would be held for ten minutes, as it should."""

BROKEN: Final = (
    _BELIEVED,
    "mode = ",
    "mode = 'enforced'",
    "[cleanup]\ngrace = '-1s'",
    "[cleanup]\ngrase = '1s'",
    f"\ufeffmode = 'observe'\n{_BELIEVED}",
    "\0" * 64,
    "[[rule]]\nname = 'x'\nmatch = { namespace = 7 }",
    "[containerd]\nstate = '/'",
    "x = " + "[" * 5000,
)
"""Configurations to be refused, or that say little."""

Ingredient = Callable[[Ground], contextlib.AbstractContextManager[Callable[[], None]]]
"""Sets up some trouble; the call it gives makes some, and is made again and again."""


# ---------------------------------------------------------------------------------- garbage


def _requests(draw: random.Random) -> bytes:
    """Draw what a client sends that knows no better."""
    method = draw.choice(
        [b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"get", b"\xff", b"G" * 900]
    )
    path = draw.choice([b"/metrics", b"/livez", b"/readyz", b"/status", b"/", b"/-/x", b"//", b"*"])
    query = draw.choice([b"", b"?verbose", b"?" + b"&".join(b"%d" % n for n in range(40)), b"?%zz"])
    headers = draw.choice(
        [
            b"Host: x\r\n",
            b"Host: x\r\nHost: y\r\n",
            b"Host: x\r\nContent-Length: 5\r\n",
            b"Host: x\r\nTransfer-Encoding: chunked\r\n",
            b"Host: x\r\nContent-Length: -1\r\n",
            b"Host: x\r\nExpect: 100-continue\r\n",
            b"Host: x\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(300)),
            b": \r\n",
            b"",
        ]
    )
    body = draw.choice([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", draw.randbytes(200)])
    version = draw.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""])
    whole = b"%s %s%s %s\r\n%s\r\n%s" % (method, path, query, version, headers, body)
    return draw.choice([whole, whole, whole * 3, whole[: draw.randrange(len(whole))]])


def _send(connection: socket.socket, said: bytes) -> None:
    connection.settimeout(2)
    with contextlib.suppress(OSError):
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


@contextlib.contextmanager
def http(ground: Ground) -> Iterator[Callable[[], None]]:
    """Say all kinds of things over TCP and over the unix socket, and leave some waiting."""
    draw = random.Random(ground.seed)  # noqa: S311 -- not for secrets
    idle: deque[socket.socket] = deque()

    def some() -> None:
        unix = draw.random() < 0.3
        connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        to = os.fspath(ground.node.apart.path(SOCKET)) if unix else ("127.0.0.1", ground.port)
        if connection.connect_ex(to) or draw.random() < 0.9:
            _send(connection, _requests(draw))
            connection.close()
            return
        idle.append(connection)
        if len(idle) > 50:
            idle.popleft().close()

    try:
        yield some
    finally:
        for connection in idle:
            connection.close()


# ----------------------------------------------------------------------------- configuration


@contextlib.contextmanager
def reload(ground: Ground) -> Iterator[Callable[[], None]]:
    """Change the configuration for better and for worse, and say so, or leave it to be seen."""
    draw = random.Random(ground.seed + 1)  # noqa: S311 -- not for secrets

    def some() -> None:
        if draw.random() < 0.5:
            ground.write(draw.choice(BROKEN))
        else:
            mode = draw.choice(["enforce", "enforce", "observe"])
            ground.configure(mode, draw.choice(["0s", "0s", "1h"]))
        for _ in range(draw.randrange(4)):
            os.kill(ground.daemon, signal.SIGHUP)
        ground.over.wait(draw.random() / 4)

    try:
        yield some
    finally:
        ground.configure()
        os.kill(ground.daemon, signal.SIGHUP)


# ------------------------------------------------------------------------------- sick things


@contextlib.contextmanager
def shims(ground: Ground) -> Iterator[Callable[[], None]]:
    """Stop the shims of living containers."""
    for task in ground.wedged:
        os.kill(task.shim.pid, signal.SIGSTOP)
    try:
        yield lambda: _wait(ground, 0.5)
    finally:
        for task in ground.wedged:
            os.kill(task.shim.pid, signal.SIGCONT)


_DEAD_FUSE: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for target in sys.argv[1:]:
    server = os.open("/dev/fuse", os.O_RDWR)
    said = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"dead", target.encode(), b"fuse", 0, said):
        raise OSError(ctypes.get_errno(), target)
print("here", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def fuse(ground: Ground) -> Iterator[Callable[[], None]]:
    """Have three places that dead bundles name on filesystems that never answer."""
    node = ground.node
    base = f"/run/{node.namespace}/fuse"
    places = [f"{base}/root", f"{base}/address", f"{node.root}/{TASKS}/{BULK}/fuse-work"]
    node.apart.run("mkdir", "-p", *places[:2])
    # Nobody connects to a socket that is not where shims listen, so its end is never proven.
    ground.fake("fuse-address", address=f"unix://{places[1]}/socket")
    bundles = [
        ground.fake("fuse-root", options_json=f'{{"root": "{places[0]}"}}'),
        ground.fake("fuse-work"),
    ]
    helper = node._popen([sys.executable, "-c", _DEAD_FUSE, *places])
    assert helper.stdout is not None
    assert helper.stdout.readline() == "here\n", helper.communicate()
    try:
        yield lambda: _wait(ground, 0.5)
    finally:
        helper.communicate()  # whoever waits for an answer gets an error now
        for place in places:
            # A worker that waited for an answer is killed, and may have it open until then.
            until(partial(_unmounted, ground, place), f"nobody uses {place} any more")
        ground.dying += bundles


def _unmounted(ground: Ground, place: str) -> bool:
    return ground.node.apart.run("umount", place, check=False).returncode == 0


# ------------------------------------------------------------------------------------ deaths


@contextlib.contextmanager
def deaths(ground: Ground) -> Iterator[Callable[[], None]]:
    """Let cheap tasks come, live for a while and die."""
    alive: deque[subprocess.Popen[bytes]] = deque()
    begun = time.monotonic()

    def end() -> None:
        with alive.popleft() as oldest:
            oldest.kill()

    def some() -> None:
        made = len(ground.dying)
        _wait(ground, begun + made * ground.seconds / ground.deaths - time.monotonic())
        alive.append(subprocess.Popen(["sleep", "1000000"]))
        ground.dying.append(ground.fake(f"dying-{made}", alive[-1].pid))
        if len(alive) > AT_A_TIME:
            end()

    try:
        yield some
    finally:
        while len(ground.dying) < ground.deaths:
            some()
        while alive:
            end()


@contextlib.contextmanager
def crashes(ground: Ground) -> Iterator[Callable[[], None]]:
    """Let real containers die; without `runtime` containerd cannot clean up after them."""
    node, made = ground.node, 0

    def some() -> None:
        nonlocal made
        task = node.run(f"crash-{made}")
        made += 1
        node.lose(task, "runtime")
        kill_all([task.shim, task.init])
        ground.dying.append(node.bundle(task.id))
        _wait(ground, 2.0)

    yield some


# -------------------------------------------------------------------------------- neighbours


_LOCKS: Final = """
import fcntl, os, sys, tempfile
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with tempfile.TemporaryFile() as file:
    for place in range(20_000):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * place)
    sys.stdin.read()
"""
NOBODY: Final = 65534


@contextlib.contextmanager
def neighbours(ground: Ground) -> Iterator[Callable[[], None]]:
    """Let somebody without privileges hold many locks, and call itself a shim of the dying."""
    named = ["-namespace", BULK, "-id", "dying-3", "-address", ground.node.address]
    shim = ["containerd-shim-runc-v2", "-c", "read _", *named]
    with contextlib.ExitStack() as stack:
        locks = [sys.executable, "-I", "-c", _LOCKS]
        stack.enter_context(_neighbour(locks, sys.executable, None))
        for words in (shim, [*shim, "start"], [*shim, "delete"]):
            stack.enter_context(_neighbour(words, "/bin/sh", NOBODY))
        yield lambda: _wait(ground, 0.5)


@contextlib.contextmanager
def _neighbour(words: list[str], program: str, user: int | None) -> Iterator[None]:
    with subprocess.Popen(
        words,
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
    ) as process:
        try:
            yield
            assert process.poll() is None, f"{words[:2]} has ended"
        finally:
            process.kill()


INGREDIENTS: Final[dict[str, Ingredient]] = {
    "http": http,
    "reload": reload,
    "shims": shims,
    "fuse": fuse,
    "deaths": deaths,
    "crashes": crashes,
    "neighbours": neighbours,
}


def _wait(ground: Ground, seconds: float) -> None:
    ground.over.wait(max(seconds, 0.0))


@contextlib.contextmanager
def trouble(ground: Ground, *names: str) -> Iterator[Callable[[], None]]:
    """Make all trouble of these names at once; in the end all of it is taken back.

    The call it gives fails as soon as one of those that make it has failed.
    """

    def make(name: str) -> None:
        with INGREDIENTS[name](ground) as some:
            while not ground.over.is_set():
                some()

    with ThreadPoolExecutor(len(names)) as pool:
        makers = [pool.submit(make, name) for name in names]

        def check() -> None:
            for maker in makers:
                if maker.done():
                    maker.result()

        try:
            yield check
        finally:
            ground.over.set()
        for maker in makers:
            maker.result()
