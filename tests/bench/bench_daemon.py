"""The daemon with its endpoints: what it holds, when it is ready, and how often it wakes.

A containerd of ours answers it and lists nothing, as on a node where nothing happens; with one that
is down it would look for it once a minute. No grace runs, or it would write its checkpoint
meanwhile.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, NamedTuple

from anyio.from_thread import start_blocking_portal

from reconciler.present.events import LogEvent
from tests.bench.figure import Plan, Row, environment
from tests.bench.pile import STATE, Pile, with_pile
from tests.support.fake_containerd import FakeContainerd

_EMPTY: Final = 0
_SIZES: Final = (1_000, 10_000)
_IDLE_SECONDS: Final = 15.0
_LONG_IDLE_SECONDS: Final = 60.0
_PATIENCE: Final = 120.0
_MIB: Final = 1 << 20
_KIB: Final = 1 << 10


class _Held(NamedTuple):
    ready: float
    known: float
    rss: float
    pss: float
    parent_wakes: float
    all_wakes: float


def measure(plan: Plan) -> Iterator[Row]:
    """At each size: start, memory after scrapes, and wake-ups while nothing changes.

    They are counted in the first round alone: nothing happens then, for however long.
    """
    sizes = (_EMPTY, *_SIZES) if plan.large else _SIZES
    held = {size: with_pile(partial(_hold, size=size, plan=plan)) for size in sizes}
    for size, one in held.items():
        yield Row(
            f"`daemon` at {size:,} bundles: start to ready, to all judged",
            f"{one.ready:.2f} s, {one.known:.2f} s",
            design="0.6 s" if size == _SIZES[0] else "",
            values={"ready_s": one.ready, "known_s": one.known},
        )
        yield Row(
            f"`daemon` at {size:,} bundles: memory with endpoints, scraped",
            f"{one.rss / _MIB:.1f} MiB RSS, {one.pss / _MIB:.1f} MiB PSS with its fork server",
            design="45 MiB" if size == _SIZES[0] else "",
            values={"rss_mib": one.rss / _MIB, "pss_mib": one.pss / _MIB},
        )
        yield Row(
            f"`daemon` at {size:,} bundles: wake-ups a minute while nothing changes",
            f"{one.parent_wakes:.0f} ({one.all_wakes:.0f} with its workers)",
            design="0",
            values={"a_minute": one.parent_wakes, "with_workers": one.all_wakes},
        )
    few, many = _SIZES
    each = (held[many].rss - held[few].rss) / (many - few)
    yield Row(
        "`daemon`: memory of each further bundle",
        f"{each / _KIB:.2f} KiB",
        design="1.5 KiB",
        values={"kib": each / _KIB},
    )


def _hold(pile: Pile, size: int, plan: Plan) -> _Held:
    pile.heap(size)
    idle = _LONG_IDLE_SECONDS if plan.large else _IDLE_SECONDS
    with _containerd(pile):
        found = [_once(pile, size, idle if number == 0 else 0.0) for number in range(plan.rounds)]
    middle = _Held(*(statistics.median(values) for values in zip(*found, strict=True)))
    return middle._replace(parent_wakes=found[0].parent_wakes, all_wakes=found[0].all_wakes)


@contextmanager
def _containerd(pile: Pile) -> Iterator[None]:
    fake = FakeContainerd(pile.base)
    fake.layout = pile.layout
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fake),
        fake.lock(),
    ):
        yield


def _once(pile: Pile, size: int, idle: float) -> _Held:
    own, etc = pile.base / "own", pile.base / "etc"
    for place in (own, etc):
        place.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = etc / "config.toml"
    config.write_text(
        'cleanup = { grace = "0s" }\n'
        f'containerd = {{ state = "{STATE}", root = "{pile.base / "lib"}", '
        f'address = "{os.fsdecode(pile.layout.address)}" }}\n'
        f'http = {{ listen = "127.0.0.1:{port}", socket = "{own / "http.sock"}" }}\n'
    )
    env = {**environment(), "RUNTIME_DIRECTORY": str(own), "RECONCILER_LOCK_DIR": str(own)}
    log = own / "log"
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "daemon", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=file,
            env=env,
        )
    try:
        _until(lambda: LogEvent.READINESS_REACHED.value.encode() in log.read_bytes())
        ready = time.monotonic() - began
        _until(lambda: _leftovers(port) == size)
        known = time.monotonic() - began
        for _ in range(5):
            for path in ("/metrics", "/status", "/", "/readyz?verbose"):
                _get(port, path)
        _until(lambda: len(_family(process.pid)) <= 2)
        wakes = _wakes(process.pid)
        time.sleep(idle)
        more = {pid: count - wakes.get(pid, 0) for pid, count in _wakes(process.pid).items()}
        minute = 60.0 / idle if idle else 0.0
        pss = sum(_rollup(pid, "Pss") for pid in _family(process.pid))
        rss = _rollup(process.pid, "Rss")
        parent = more[process.pid] * minute
        return _Held(ready, known, rss, pss, parent, sum(more.values()) * minute)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)


def _until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _get(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _leftovers(port: int) -> int:
    count: int = json.loads(_get(port, "/status"))["summary"]["verdicts"]["leftover"]
    time.sleep(0.25)  # asking costs the daemon a look at all it knows
    return count


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children")
        if children.exists():
            found += map(int, children.read_text().split())
    return found


def _wakes(pid: int) -> dict[int, int]:
    """Count voluntary context switches by process, all threads together."""
    found: dict[int, int] = {}
    for one in _family(pid):
        for task in os.listdir(f"/proc/{one}/task"):
            for line in Path(f"/proc/{one}/task/{task}/status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found[one] = found.get(one, 0) + int(line.split()[1])
    return found


def _rollup(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(what)
