"""Watching: how soon an event or a death is told, and what it costs, beside watchfiles.

The other side is a process of its own. The names it makes carry the time at which it made them, so
what is measured ends where the loop is told.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from typing_extensions import override

from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, Observation, ResyncKind
from reconciler.watch.exits import ExitWatch
from reconciler.watch.select import Choice, Watching
from tests.bench.figure import MS, US, Plan, Row, percentile, times
from tests.bench.pile import Pile, with_pile
from tests.bench.running import running as running_program
from tests.watch.support import Inbox, Tree, running

_EVENTS = 2_000
_PER_SECOND = 1_000
_SECONDS = 3
_DEATHS = 300
_BUNDLES = 10_000
_BURST = 10_000
_IDLE = 3.0

# Makes directories named by the time, evenly spread, and removes each again if asked to.
_MAKER = """
import os, sys, time
top, count, gap, again = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "1"
begin = time.monotonic()
for number in range(count):
    wait = begin + number * gap - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    path = f"{top}/{time.monotonic_ns()}"
    os.mkdir(path)
    if again:
        os.rmdir(path)
print(time.monotonic() - begin)
"""

# Receives as many events as it is told, and watches and stats each directory that came.
_BARE = """
import os, sys, time
from inotify_simple import INotify, flags
top, left = sys.argv[1], int(sys.argv[2])
inotify = INotify()
inotify.add_watch(top, flags.CREATE | flags.DELETE)
print("ready", flush=True)
began = time.process_time()
while left > 0:
    for event in inotify.read():
        if event.mask & (flags.CREATE | flags.DELETE) and event.name:
            left -= 1
        if event.mask & flags.CREATE:
            path = f"{top}/{event.name}"
            try:
                inotify.add_watch(path, flags.CREATE | flags.DELETE)
                os.stat(path)
            except OSError:
                pass
print(time.process_time() - began)
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher told of a stream of bundles, and what it spent."""

    delays: list[float]
    lost: int
    cpu: float


def measure(plan: Plan) -> Iterator[Row]:
    """One row for each figure."""
    yield from _latency()
    yield from _churn()
    yield _churn_with_looks()
    yield from _deaths()
    yield from _bulk(plan)


def _latency() -> Iterator[Row]:
    ours, peer = (_hear_stream(name, _EVENTS, 0.002, again=False) for name in _BOTH)
    yield Row(
        "event to the loop",
        _say(ours.delays),
        f"watchfiles: {_say(peer.delays)}",
        f"{times(percentile(peer.delays, 0.5), percentile(ours.delays, 0.5))} (p50)",
        "p50 1 ms, p99 5 ms",
        values={
            "p50_ms": percentile(ours.delays, 0.5) * MS,
            "p99_ms": percentile(ours.delays, 0.99) * MS,
            "watchfiles_p50_ms": percentile(peer.delays, 0.5) * MS,
        },
    )


def _churn() -> Iterator[Row]:
    count = _PER_SECOND * _SECONDS
    ours, peer = (_hear_stream(name, count, 1 / _PER_SECOND, again=True) for name in _BOTH)
    each, peer_each = (told.cpu / (2 * count) * US for told in (ours, peer))
    yield Row(
        f"{_PER_SECOND:,} creations and deletions a second, CPU per event",
        f"{each:.0f} us, {ours.lost} lost",
        f"watchfiles: {peer_each:.0f} us, {peer.lost} lost",
        times(peer_each, each),
        "60 us, nothing lost",
        ("churn: our share of an event up to the loop's inbox; the looks are not in it",),
        {"cpu_us": each, "watchfiles_cpu_us": peer_each, "lost": ours.lost},
    )


def _churn_with_looks() -> Row:
    ours, bare = with_pile(_churned)
    return Row(
        f"{_PER_SECOND:,} creations and deletions a second, looks and all of `run` included",
        f"{ours * US:.0f} us CPU an event",
        f"a bare loop of inotify, a watch and a statx each: {bare * US:.0f} us",
        times(bare, ours),
        "60 us",
        values={"cpu_us": ours * US, "bare_cpu_us": bare * US},
    )


def _churned(pile: Pile) -> tuple[float, float]:
    """Give the processor seconds an event of a `run`, and of a bare loop, over the same stream."""
    count = _PER_SECOND * _SECONDS
    top = Path(os.fsdecode(pile.layout.tasks)) / "churn"
    top.mkdir(parents=True)
    maker = [sys.executable, "-c", _MAKER, os.fspath(top), str(count), str(1 / _PER_SECOND), "1"]
    with running_program(pile, 0) as one:
        one.wait_idle()
        before = one.cpu
        subprocess.run(maker, stdout=subprocess.DEVNULL, check=True)
        one.wait_idle()
        ours = one.cpu - before
    bare = [sys.executable, "-c", _BARE, os.fspath(top), str(2 * count)]
    with subprocess.Popen(bare, stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
        subprocess.run(maker, stdout=subprocess.DEVNULL, check=True)
        alone = float(loop.stdout.readline())
    return ours / (2 * count), alone / (2 * count)


def _deaths() -> Iterator[Row]:
    delays = anyio.run(_hear_deaths)
    yield Row("process death to the loop", _say(delays), design="part of p99 10 ms")


def _bulk(plan: Plan) -> Iterator[Row]:
    runs = [anyio.run(_hear_burst) for _ in range(plan.rounds)]
    adding, burst, idle = (sorted(values)[len(values) // 2] for values in zip(*runs, strict=True))
    yield Row(f"watching {_BUNDLES:,} listed bundles, each", f"{adding / _BUNDLES * US:.1f} us")
    yield Row(f"draining {_BURST:,} queued events", f"{burst * MS:.0f} ms")
    yield Row(f"wake-ups in {_IDLE:.0f} s without an event", f"{idle:.0f}", design="0")


_BOTH: tuple[Choice, Choice] = ("inotify", "watchfiles")


def _hear_stream(backend: Choice, count: int, gap: float, *, again: bool) -> Told:
    return anyio.run(_hear_stream_of, backend, count, gap, again)


async def _hear_stream_of(backend: Choice, count: int, gap: float, again: bool) -> Told:
    with _tree() as tree:
        top = tree.namespace()
        watching, inbox = Watching(tree.layout, backend), _Timed()
        async with running(watching, inbox):
            if backend != "inotify":
                await inbox.resync(ResyncKind.BACKEND)
            maker = [sys.executable, "-c", _MAKER, os.fspath(top)]
            words = [*maker, str(count), str(gap), str(int(again))]
            before = time.process_time()
            await anyio.run_process(words, stderr=None)
            with anyio.move_on_after(2):
                while len(inbox.first) < count:  # noqa: ASYNC110 -- an event each would cost CPU
                    await anyio.sleep(0.05)
            cpu = time.process_time() - before
    delays = [at - int(key.id) / 1e9 for key, at in inbox.first.items()]
    return Told(delays, count - len(delays), cpu)


async def _hear_deaths() -> list[float]:
    delays = []
    watch, inbox = ExitWatch(), Inbox()
    key = BundleKey("ns", "c1")
    async with running(watch, inbox):
        for _ in range(_DEATHS):
            with subprocess.Popen(["sleep", "60"]) as process:  # noqa: ASYNC220 -- it is short
                watch.expect(key, init=process.pid, shim=None)
                inbox.forget()
                began = time.monotonic()
                process.kill()
                await inbox.until(lambda: bool(inbox.received))
                delays.append(time.monotonic() - began)
    return delays


async def _hear_burst() -> tuple[float, float, float]:
    """Give the seconds to add watches and to drain a burst, and the wake-ups of an idle while."""
    with _tree() as tree:
        for number in range(_BUNDLES):
            tree.bundle(f"c{number}")
        watching, inbox = Watching(tree.layout), Inbox()
        listed = tree.listed()
        began = time.process_time()
        async with running(watching, inbox):
            watching.follow(listed)
            await inbox.until(lambda: len(set(inbox.hints())) >= _BUNDLES - 2_000)
            await anyio.wait_all_tasks_blocked()
            adding = time.process_time() - began
            inbox.forget()
            for key in listed[:_BURST]:
                os.mkdir(tree.root / "ns" / key.id / "rootfs")
            began = time.process_time()
            await inbox.until(lambda: len(inbox.received) >= _BURST)
            burst = time.process_time() - began
            await anyio.wait_all_tasks_blocked()
            return adding, burst, await _switches()


async def _switches() -> float:
    """Count how often this process wakes up by itself; waiting for the deadline is one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    with anyio.move_on_after(_IDLE):
        await anyio.sleep_forever()
    return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before - 1)


class _Timed(Inbox):
    """Notes when each bundle was first told of."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[BundleKey, float] = {}

    @override
    def __call__(self, observation: Observation) -> None:
        if isinstance(observation, Hint):
            self.first.setdefault(observation.key, time.monotonic())
        else:
            super().__call__(observation)


@contextmanager
def _tree() -> Iterator[Tree]:
    """A state tree in memory, as containerd's is."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    top = Path(tempfile.mkdtemp(prefix="reconciler-bench-", dir=memory))
    try:
        tree = Tree(top)
        tree.namespace()
        yield tree
    finally:
        shutil.rmtree(top)


def _say(delays: list[float]) -> str:
    half, most = (percentile(delays, share) * MS for share in (0.5, 0.99))
    return f"p50 {half:.2f} ms, p99 {most:.2f} ms"
