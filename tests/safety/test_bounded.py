"""A hundred thousand bundles come and go: nothing that is kept grows with them (I19)."""

import ast
import gc
import os
import sys
from pathlib import Path

import pytest
import structlog
from msgspec.structs import replace

import reconciler
from reconciler.decide.engine import Engine
from reconciler.loop import Loop
from reconciler.model.observations import Resync, ResyncKind
from reconciler.model.policy import Brakes, Policies
from reconciler.ports import Stages
from reconciler.telemetry.logs import LogListener
from reconciler.telemetry.metrics import Metrics
from tests.decide.world import ENFORCE, dead, key
from tests.support.clock import VirtualClock
from tests.support.fakes import FakeCleaner, FakeExits, FakeGuards, FakeInspector, FakeNodeSource

pytestmark = pytest.mark.safety

ROUNDS = 100
WARM = 60
"""Rounds until everything that has a bound has reached it: of namespaces fifty get series."""


class Churn:
    """Rounds of bundles that appear dead and are cleaned, each round in a namespace of its own."""

    def __init__(self, a_round: int) -> None:
        self._a_round = a_round
        clock = VirtualClock()
        self.inspector = FakeInspector()
        self.cleaner = FakeCleaner(clock, self.inspector)
        self._exits = FakeExits()
        policies = Policies(default=replace(ENFORCE, grace=0.0), brakes=Brakes(max_per_minute=None))
        self.engine = Engine(policies)
        self.metrics = Metrics(self.engine, clock)
        filtering = structlog.make_filtering_bound_logger(10)
        logger = structlog.wrap_logger(structlog.ReturnLogger(), [], wrapper_class=filtering)
        log = LogListener(logger.bind())
        stages = Stages(
            clock=clock,
            inspector=self.inspector,
            node_source=FakeNodeSource(clock),
            cleaner=self.cleaner,
            guards=FakeGuards(),
            exits=self._exits,
            listeners=(self.metrics, log),
        )
        self.loop = Loop(self.engine, stages, relist=300.0)
        self.cleaned = 0
        self.round = 0
        self.kept: list[int] = []
        self.handles: list[int] = []
        self.series: list[int] = []

    def next_round(self, _: float) -> bool:
        """Begin another round once the last is over; true after all of them."""
        if self.inspector.tree:
            return False
        self.cleaned += len(self.cleaner.cleaned)
        self._measure()
        self.round += 1
        for number in range(self._a_round):
            name = f"ns{self.round}/b{number}"
            self.inspector.tree[key(name)] = dead(self.round * self._a_round + number)
        self.loop.emit(Resync(ResyncKind.ASKED))
        return self.round > ROUNDS

    def _measure(self) -> None:
        """Count what lives; the doubles' own memories are emptied first."""
        for memory in (self.cleaner.begun, self.cleaner.cleaned, self.inspector.looked):
            memory.clear()
        self._exits.expected.clear()
        self.series.append(len(self.metrics.render().splitlines()))
        gc.collect()
        self.kept.append(sys.getallocatedblocks())
        self.handles.append(len(os.listdir("/proc/self/fd")))


@pytest.mark.fault("I19")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bundles", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_memory_handles_and_series_do_not_grow_with_what_came_and_went(bundles: int) -> None:
    churn = Churn(bundles // ROUNDS)
    await churn.loop.run(churn.next_round)
    assert churn.cleaned >= bundles
    assert churn.handles[-1] == churn.handles[WARM]
    grown = churn.kept[-1] - churn.kept[WARM]
    assert grown < 500, churn.kept  # blocks of memory; a single bundle takes more than ten
    assert churn.series[-1] == churn.series[WARM]


# ------------------------------------------------------------------------------------ signals

MAY_SIGNAL = {
    "worker/client.py",  # its fork server, by pidfd
    "worker/forkserver.py",  # its workers, by pidfd
    "worker/signals.py",  # what those below have proven, by pidfd
    "journal/recorder.py",  # its own child, by pidfd
    "probe/commands.py",  # its own child, by pidfd
}
MAY_SEND = {
    "worker/orphans.py",  # a workload that the operator wants ended
    "worker/shims.py",  # a shim that serves nobody
}
MAY_KILL_A_CHILD = {"worker/hooks.py", "demo/node.py"}
"""Through `Popen.kill`, whose child is not reaped before."""


@pytest.mark.fault("I15")
def test_a_signal_goes_through_a_pidfd_and_only_where_somebody_has_thought_about_it() -> None:
    """I15: no pid ever reaches a signal."""
    root = Path(reconciler.__file__).parent
    pidfds, senders, kills = set(), set(), set()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(attr="pidfd_send_signal"):
                    pidfds.add(name)
                case ast.ImportFrom(module="reconciler.worker.signals"):
                    senders.add(name)
                case ast.Attribute(value=ast.Name(id="os"), attr="kill" | "killpg"):
                    pytest.fail(f"{name} sends a signal to a pid")
                case ast.Call(func=ast.Attribute(attr="kill" | "terminate"), args=[]):
                    kills.add(name)
                case ast.Attribute(attr="send_signal"):
                    pytest.fail(f"{name} sends a signal to a pid")
                case _:
                    pass
    assert pidfds == MAY_SIGNAL
    assert senders == MAY_SEND
    assert kills == MAY_KILL_A_CHILD
