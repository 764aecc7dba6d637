"""Parts fail, the reconciler goes on: listeners, adapters and sources that raise at everything."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from errno import EPIPE
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from typing_extensions import Buffer, override

from reconciler.errors import InvariantError
from reconciler.journal.lines import Given, Lost
from reconciler.journal.listener import Snapshot
from reconciler.journal.reader import Journal
from reconciler.loop import Loop
from reconciler.loop.listeners import Listeners
from reconciler.model.containerd import ShimGroup
from reconciler.model.decisions import Decision, Verdict
from reconciler.model.evidence import Containerd, Look, PartialLook
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hint, Observation, Refusal, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies
from reconciler.ports import Emit, Recorder, Source
from reconciler.supervision import Fault, Supervisor
from reconciler.testing.journals import replay
from tests.decide.world import ENFORCE, dead, key
from tests.support.fakes import FakeExits, FakeGuards, FakeInspector, FakeNodeSource, FakeWatcher
from tests.support.rig import Rig
from tests.telemetry.test_logs import DECISIONS, OBSERVATIONS

pytestmark = pytest.mark.breaks_parts


def broken() -> NoReturn:
    raise KeyError("of our own making")


@dataclass
class Raising(Recorder):
    """Raises at whatever it hears."""

    received: Counter[type] = field(default_factory=Counter)
    lost: int = 0

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        self.received[type(observation)] += 1
        broken()

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        self.received[type(decision)] += 1
        broken()

    @override
    def advanced(self, stamp: Stamp) -> None:
        broken()

    @override
    def configured(self, stamp: Stamp, policies: Policies) -> None:
        broken()

    @override
    def missed(self) -> None:
        self.lost += 1
        broken()


def rig_with(**parts: object) -> tuple[Rig, Supervisor, list[Fault]]:
    """Make a rig with other parts, and a supervisor whose reports can be read."""
    rig, faults = Rig(Policies(default=ENFORCE)), list[Fault]()
    watch = Supervisor(faults.append)
    stages = replace(rig.stages, supervisor=watch, **parts)
    rig.loop = Loop(rig.engine, stages, relist=300.0)
    return rig, watch, faults


@pytest.mark.fault("every listener raising at every kind of value")
async def test_a_listener_that_raises_at_everything_costs_nothing_but_itself() -> None:
    """Everybody behind it hears everything, the dead bundle is cleaned, and it is said once."""
    rig, watch, faults = rig_with()
    raising = Raising()
    stages = replace(rig.stages, listeners=(raising, rig.memory), supervisor=watch)
    rig.loop = Loop(rig.engine, stages, relist=300.0)
    rig.inspector.tree[key()] = dead()
    for observation, _ in OBSERVATIONS:
        rig.loop.emit(observation)
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    received = [type(one) for _, one in (*rig.memory.observations, *rig.memory.decisions)]
    assert raising.received == Counter(received)
    assert {type(one) for one, _ in OBSERVATIONS} <= raising.received.keys()
    assert watch.counts["listener test_supervision"] == sum(raising.received.values())
    assert len(faults) == 1, "each distinct fault is said once"
    assert faults[0].what == "KeyError: 'of our own making'"
    assert faults[0].frames[-1].endswith(" broken")


@pytest.mark.parametrize(("decision", "_event"), DECISIONS)
def test_every_kind_of_decision_may_break_a_listener(
    decision: Decision, _event: str | None
) -> None:
    rig, watch, _ = rig_with(recorders=(recorder := Raising(),))
    received = Listeners(replace(rig.stages, recorders=(recorder,), supervisor=watch))
    received.decided(Stamp(1.0, 1.0), decision)
    assert [one for _, one in rig.memory.decisions] == [decision]
    assert recorder.lost == 1, "it is told of its hole, and may break at that, too"


class Fragile(Snapshot):
    """A recorder that can be made to fail half-way through a record."""

    fragile = False

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        if self.fragile:
            broken()
        super().decided(stamp, decision)


@pytest.mark.parametrize("what", ["observed", "decided", "advanced", "configured"])
def test_a_recorder_that_failed_tells_of_its_loss_and_never_a_wrong_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It fails once, in the middle; what is read back is right before the loss and after it."""
    path = tmp_path / "run.jsonl"
    watch = Supervisor()
    with path.open("wb") as stream:
        recorder = Fragile(stream, Stamp(0.0, 0.0), Policies())
        rig = Rig(Policies())
        stages = replace(rig.stages, listeners=(), recorders=(recorder,), supervisor=watch)
        received = Listeners(stages)

        def step(n: int) -> None:
            stamp = Stamp(float(n), float(n))
            if what == "advanced":
                received.advanced(stamp)
                decisions = rig.engine.advance(stamp)
            elif what == "configured":
                policies = Policies(settle=float(n))
                received.configured(stamp, policies)
                decisions = rig.engine.configure(stamp, policies)
            else:
                hint = Hint(key(f"ns/b{n}"))
                received.observed(stamp, hint)
                decisions = rig.engine.observe(stamp, hint)
            for decision in decisions:
                received.decided(stamp, decision)

        for n in range(1, 10):
            step(n)
        with monkeypatch.context() as patch:
            if what == "decided":
                patch.setattr(recorder, "fragile", True)
            else:
                patch.setattr(recorder._encoder, "record", lambda *_: broken())
            step(10)
        for n in range(11, 20):
            step(n)
        with recorder:
            pass
    items = [one for one in Journal(path, pytest.fail).items() if isinstance(one, Given | Lost)]
    losses = [place for place, one in enumerate(items) if isinstance(one, Lost)]
    assert len(losses) == 1, items
    assert all(isinstance(one, Given) for one in items[losses[0] + 1 :])
    last = items[-1]
    assert isinstance(last, Given)
    assert last.stamp == Stamp(19.0, 19.0)
    if what == "configured":
        assert last.policies == Policies(settle=19.0)
    assert watch.counts.total() == 1
    assert replay(path).differences == []


@dataclass
class NoEyes(FakeInspector):
    @override
    def look(self, key: BundleKey) -> Look | None:
        broken()


@dataclass
class NoWatcher(FakeWatcher):
    @override
    def follow(self, bundles: Collection[BundleKey]) -> None:
        broken()

    @override
    async def run(self, emit: Emit) -> None:
        broken()


@dataclass
class NoExits(FakeExits):
    @override
    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        broken()

    @override
    def forget(self, key: BundleKey) -> None:
        broken()


@dataclass
class NoGuards(FakeGuards):
    @override
    async def check(self) -> tuple[Refusal, ...]:
        broken()


async def test_a_look_that_fails_is_no_answer_and_the_loop_goes_on() -> None:
    rig, watch, _ = rig_with()
    rig.inspector.tree[key()] = dead()
    rig, watch, _ = rig_with(inspector=NoEyes(dict(rig.inspector.tree)))
    await rig.run_for(1000)
    assert rig.cleaner.cleaned == []
    assert watch.counts["looks"] >= 3


async def test_a_look_that_fails_spoils_none_that_is_made_with_it() -> None:
    """Many are made together: the others are judged, and it is never taken for dead."""
    bad, others = key("ns/b7"), {key(f"ns/b{n}"): dead(n + 1) for n in range(100) if n != 7}

    class BadSpot(FakeInspector):
        @override
        def look(self, key: BundleKey) -> Look | PartialLook | None:
            return broken() if key == bad else super().look(key)

    rig, watch, faults = rig_with(inspector=BadSpot({bad: dead(8), **others}))
    await rig.run_for(1000)
    views = {view.key: view.judgement.verdict for view in rig.engine.views(rig.clock.now)}
    assert views.pop(bad) is Verdict.UNKNOWN
    assert views == dict.fromkeys(others, Verdict.LEFTOVER)
    assert watch.counts["looks"]
    assert [fault.where for fault in faults].count("looks") == 1


async def test_guards_that_fail_refuse() -> None:
    rig, watch, _ = rig_with(guards=NoGuards())
    rig.inspector.tree[key()] = dead()
    await rig.run_for(1000)
    assert rig.cleaner.cleaned == []
    assert watch.counts["guards"]


async def test_a_watcher_and_exits_that_fail_cost_time_alone() -> None:
    rig, watch, faults = rig_with(watcher=NoWatcher(), exits=NoExits())
    rig.inspector.tree[key()] = dead()
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    assert watch.counts["watcher"]
    assert watch.counts["exits"]
    assert watch.counts["source test_supervision"] >= 3, "it is started again"
    assert {fault.where for fault in faults} == watch.counts.keys() - {"listener fakes"}


async def test_a_hand_that_fails_is_a_failed_cleanup_that_is_tried_again() -> None:
    rig, watch, _ = rig_with()
    failures = iter([True, True, False])

    def answer(_key: BundleKey, _identity: Identity) -> Outcome | None:
        return broken() if next(failures) else None

    rig.cleaner.answer = answer
    rig.inspector.tree[key()] = dead()
    await rig.run_until(lambda: bool(rig.cleaner.cleaned))
    results = [one.result for _, one in rig.memory.observations if isinstance(one, Outcome)]
    assert results == [Result.FAILED, Result.FAILED, Result.CLEANED]
    assert watch.counts["cleaner"] == 2


@pytest.mark.parametrize("name", ["observe", "advance"])
async def test_the_engine_ends_the_loop(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rig, _, _ = rig_with()
    rig.inspector.tree[key()] = dead()
    monkeypatch.setattr(rig.engine, name, lambda *_: broken())
    with pytest.raises(BaseExceptionGroup):
        await rig.run_until(lambda: bool(rig.cleaner.cleaned))


class AskingWitnesses(FakeNodeSource):
    """containerd does not list: it is to be asked about single bundles."""

    @override
    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
            about("ns")
        return await super().containerd(about, shims)


@pytest.mark.parametrize("name", ["refusal", "to_ask", "configure"])
async def test_the_engine_ends_the_loop_where_a_part_has_asked_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Hands, witnesses and whoever reloads are supervised: what they call of the engine is not."""
    rig, watch, faults = rig_with()
    rig.inspector.tree[key()] = dead()

    class Reloads(Source):
        @override
        async def run(self, emit: Emit) -> None:
            await rig.clock.take(1.0)
            rig.loop.configure(Policies(default=ENFORCE))
            await anyio.sleep_forever()

    monkeypatch.setattr(rig.engine, name, lambda *_: broken())
    node_source = AskingWitnesses(rig.clock)
    stages = replace(rig.stages, supervisor=watch, node_source=node_source, sources=(Reloads(),))
    rig.loop = Loop(rig.engine, stages, relist=300.0)
    with pytest.raises(BaseExceptionGroup) as caught:
        await rig.run_for(100.0)
    assert caught.value.subgroup(InvariantError)
    assert faults == []


def test_an_invariant_among_other_failures_is_no_failure_of_a_part() -> None:
    both = ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError(), InvariantError()])])
    watch = Supervisor()
    with pytest.raises(ExceptionGroup), watch.part("cleaner"):
        raise both
    assert watch.counts.total() == 0


def test_an_invariant_that_does_not_hold_is_no_failure_of_a_part() -> None:
    def break_it() -> None:
        raise InvariantError("two hands on one bundle")

    watch = Supervisor()
    with pytest.raises(InvariantError):
        watch.call("cleaner", break_it)
    with pytest.raises(InvariantError), watch.part("cleaner"):
        break_it()
    assert watch.counts.total() == 0


def test_what_is_said_is_printable_bounded_and_said_once() -> None:
    faults: list[Fault] = []
    watch = Supervisor(faults.append)

    def fail(text: str) -> None:
        raise ValueError(text)

    for n in range(1000):
        watch.call("page", fail, f"\x1b[31m{n}\n\udcff" + "x" * 10_000)
    assert len(faults) == 1
    assert faults[0].what.isprintable()
    assert len(faults[0].what) < 1000
    assert watch.counts["page"] == 1000


def test_a_report_that_fails_is_counted_and_nothing_more() -> None:
    def report(_: Fault) -> None:
        broken()

    watch = Supervisor(report)
    assert not watch.call("page", broken)
    assert watch.counts == {"page": 1, "report": 1}


async def test_a_part_that_is_cancelled_has_not_failed() -> None:
    watch = Supervisor()
    with anyio.move_on_after(0.01) as scope, watch.part("connection"):
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert watch.counts.total() == 0


def test_a_reader_that_went_away_ends_a_snapshot_once_and_as_no_fault_of_ours() -> None:
    class Pipe(BytesIO):
        @override
        def write(self, data: Buffer, /) -> int:
            if self.tell():
                raise BrokenPipeError(EPIPE, "Broken pipe")
            return super().write(data)

    watch, stream, rig = Supervisor(), Pipe(), Rig(Policies())

    def record() -> None:
        with Snapshot(stream, Stamp(0.0, 0.0), Policies()) as recorder:
            received = Listeners(replace(rig.stages, recorders=(recorder,), supervisor=watch))
            for n in range(1, 4):
                received.observed(Stamp(float(n), float(n)), Hint(key(f"ns/b{n}")))

    with pytest.raises(BrokenPipeError):
        record()
    assert watch.counts.total() == 0
    assert stream.getvalue().count(b"\n") == 1
