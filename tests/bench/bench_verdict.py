"""Verdict: from the death of a shim and its init to the word that their bundle is a leftover.

All stages are the real ones, in this process, on a throw-away tree of real processes: the exit, the
look, the pass over /proc in a worker, the judgement. There is no containerd to ask.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
from msgspec.structs import replace
from typing_extensions import override

from reconciler.assembly import opened
from reconciler.decide.engine import Engine
from reconciler.demo.fixtures import Task, contents, runc_state
from reconciler.demo.node import Process, Processes
from reconciler.loop import Loop
from reconciler.model.decisions import Decision, Judged, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Observation, Stamp
from reconciler.ports import Listener
from reconciler.setup import Setup
from tests.bench.figure import MS, Plan, Row, percentile

_DEATHS = 20
_APART = 1.5
"""Seconds between two deaths: a quiet node, on which no other question is just being paused for."""


def measure(plan: Plan) -> Iterator[Row]:
    """One row."""
    top = Path(tempfile.mkdtemp(prefix="rbench-", dir="/dev/shm"))
    try:
        with Processes() as processes:
            delays = anyio.run(_hear_verdicts, top, processes)
    finally:
        shutil.rmtree(top)
    half, most = (percentile(delays, share) * MS for share in (0.5, 0.99))
    yield Row(
        "death of shim and init to the verdict",
        f"p50 {half:.1f} ms, p99 {most:.1f} ms",
        design="p99 10 ms",
    )


class _Inbox(Listener):
    """Hears which bundles were judged leftovers."""

    def __init__(self) -> None:
        self.changed = anyio.Event()
        self.at: dict[BundleKey, float] = {}
        self.verdicts: dict[BundleKey, Verdict] = {}

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        pass

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        if isinstance(decision, Judged):
            self.verdicts[decision.key] = decision.judgement.verdict
            self.at[decision.key] = time.monotonic()
            self.changed.set()

    async def wait_for(self, key: BundleKey, verdict: Verdict) -> float:
        while self.verdicts.get(key) is not verdict:
            self.changed = anyio.Event()
            await self.changed.wait()
        return self.at[key]


async def _hear_verdicts(top: Path, processes: Processes) -> list[float]:
    base = os.fsencode(top)
    layout = Layout(base + b"/run", base + b"/lib", base + b"/run/c.sock", base + b"/run")
    tasks = [_start(layout, processes, BundleKey("bench", f"t{n}")) for n in range(_DEATHS)]
    setup = Setup(layout=layout, without_containerd=True, own_tree=True)
    inbox, delays = _Inbox(), []
    async with opened(setup, watching=True) as session, anyio.create_task_group() as group:
        stages = replace(session.stages, listeners=(inbox,))
        loop = Loop(Engine(setup.policies), stages, relist=setup.relist)
        group.start_soon(loop.run)
        with anyio.fail_after(60):
            for key, _ in tasks:
                await inbox.wait_for(key, Verdict.RUNNING)
            for key, ours in tasks:
                await anyio.sleep(_APART)
                began = time.monotonic()
                for process in ours:
                    os.kill(process.pid, signal.SIGKILL)
                delays.append(await inbox.wait_for(key, Verdict.LEFTOVER) - began)
                for process in ours:
                    process.end()
        loop.stop()
    return delays


def _start(
    layout: Layout, processes: Processes, key: BundleKey
) -> tuple[BundleKey, tuple[Process, Process]]:
    socket = layout.shim_socket(key.namespace, key.id)
    bundle = Path(os.fsdecode(layout.bundle(key)))
    state = Path(os.fsdecode(layout.runc_root), *key)
    for directory in (os.path.dirname(socket), bundle / "rootfs", state):
        os.makedirs(directory, exist_ok=True)
    address = os.fsdecode(layout.address)
    shim = processes.shim(key.namespace, key.id, address, socket, os.fsencode(bundle))
    init = processes.init("bench")
    task = Task(key, init.pid, init.start_ticks, socket, None, layout.runc_root)
    for file, content in contents(task).items():
        (bundle / file).write_bytes(content)
    (state / "state.json").write_bytes(runc_state(task, os.fsencode(bundle)))
    return key, (shim, init)
