"""Log records: one per change and per step, bounded, never in anybody's way."""

import contextlib
import json
import os
import select
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.decisions import (
    AskNode,
    Braked,
    BudgetKind,
    Clean,
    DeathCause,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    Judgement,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    ProcessScan,
)
from reconciler.model.ids import BundleKey, Identity, escape
from reconciler.model.observations import (
    CleanRequested,
    Guard,
    GuardsChecked,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Refusal,
    ReleaseRequested,
    Resync,
    ResyncKind,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result, Step, StepResult
from reconciler.present.records import WINDOW
from reconciler.telemetry.logs import LogListener, make_logger, stderr_sink
from reconciler.telemetry.sink import Sink
from tests.decide.world import DEAD
from tests.support.fakes import FakeWatcher

KEY = BundleKey("k8s.io", "web")
WHO = Identity(1, 2, 3)
LEFTOVER = Judgement(Verdict.LEFTOVER, 8, "shim dead, init dead, cgroup gone, not listed")


class Lines(Sink):
    def __init__(self) -> None:
        self.lines: list[str] = []

    @override
    def write(self, line: str) -> None:
        self.lines.append(line)

    @property
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> LogListener:
    return LogListener(make_logger(as_json=True, level=10, sink=lines))


def at(mono: float) -> Stamp:
    return Stamp(mono=mono, wall=1_700_000_000.1239 + mono)


BLOCKED = Outcome(
    KEY,
    WHO,
    result=Result.BLOCKED,
    reason=BlockReason.MOUNT_BUSY,
    detail="rootfs is busy",
    holders=(Holder(17, "sleep", "cwd"),),
    steps=(Step("unmount", StepResult.BLOCKED, "busy"),),
)


def test_a_verdict_tells_what_was_decided_on_what_grounds(log: LogListener, lines: Lines) -> None:
    judged = Judged(
        KEY, LEFTOVER, Phase.WAITING, Verdict.RUNNING, cause="", due_at=12.5, facts=DEAD
    )
    log.decided(at(2.5), judged)
    assert lines.records == [
        {
            "timestamp": "2023-11-14T22:13:22.623Z",
            "level": "debug",
            "event": "bundle.judged",
            "namespace": "k8s.io",
            "id": "web",
            "verdict": "leftover",
            "previous": "running",
            "phase": "waiting",
            "cause": "",
            "rule": 8,
            "reason": LEFTOVER.reason,
            "due_in_seconds": 10.0,
            "facts": {
                "kind": "directory",
                "identifier": "yes",
                "helper": "no",
                "shim": "dead",
                "init": "dead",
                "cgroup": "gone",
                "runtime": "known",
                "created": "yes",
                "task": "not listed",
            },
            "mono": 2.5,
        }
    ]


def test_each_step_and_the_end_of_a_cleanup_is_a_record(log: LogListener, lines: Lines) -> None:
    steps = (
        Step("unmount", StepResult.DONE, "rootfs", 0.002, 1),
        Step("cgroup", StepResult.WARNING, "gone already"),
        Step("bundle", StepResult.DONE, "", 0.001, 8),
    )
    log.observed(at(1), Outcome(KEY, WHO, Result.CLEANED, steps=steps, seconds=0.0041))
    told = lines.records
    assert [line["event"] for line in told] == [*["step.finished"] * 3, "bundle.cleaned"]
    assert [line["level"] for line in told] == ["debug", "warning", "debug", "info"]
    assert sum(int(str(line["mutations"])) for line in told[:3]) == told[3]["mutations"] == 9
    assert told[3]["seconds"] == 0.0041


def test_blocked_names_its_cause_and_the_holders(log: LogListener, lines: Lines) -> None:
    log.observed(at(1), BLOCKED)
    last = lines.records[-1]
    assert last["event"] == "bundle.blocked"
    assert last["level"] == "warning"
    assert last["reason"] == "mount busy"
    assert last["holders"] == ["17 sleep (cwd)"]


def test_a_retry_that_ends_the_same_is_told_once_and_counted(
    log: LogListener, lines: Lines
) -> None:
    for mono in range(5):
        log.observed(at(mono), BLOCKED)
        for phase in (Phase.CLEANING, Phase.BLOCKED):
            log.decided(at(mono), Judged(KEY, LEFTOVER, phase, Verdict.LEFTOVER, "busy"))
    told = [line["event"] for line in lines.records]
    assert told == ["step.finished", "bundle.blocked", "bundle.judged", "bundle.judged"]
    log.observed(at(WINDOW + 1), BLOCKED)
    assert [line.get("repeated") for line in lines.records[4:]] == [4, 4]


@pytest.mark.parametrize(
    "news",
    [
        replace(BLOCKED, detail="another mount"),
        replace(BLOCKED, reason=BlockReason.READ_ONLY),
        replace(BLOCKED, result=Result.FAILED),
        replace(BLOCKED, result=Result.SKIPPED),
    ],
)
def test_another_cause_is_told_at_once(log: LogListener, lines: Lines, news: Outcome) -> None:
    log.observed(at(0), BLOCKED)
    before = len(lines.records)
    log.observed(at(0.1), news)
    assert len(lines.records) > before


def test_a_step_that_changed_something_is_never_withheld(log: LogListener, lines: Lines) -> None:
    steps = (Step("unmount", StepResult.DONE, "rootfs", mutations=1),)
    for mono in range(10):
        log.observed(at(mono), replace(BLOCKED, steps=steps))
    assert sum(line["event"] == "step.finished" for line in lines.records) == 10


def test_a_changed_verdict_is_never_withheld(log: LogListener, lines: Lines) -> None:
    running = Judgement(Verdict.RUNNING, 3, "shim and init live")
    for mono in range(10):
        log.decided(at(mono), Judged(KEY, running, Phase.NONE, Verdict.LEFTOVER))
        log.decided(at(mono), Judged(KEY, LEFTOVER, Phase.WAITING, Verdict.RUNNING))
    assert len(lines.records) == 20


OBSERVATIONS: list[tuple[Observation, str | None]] = [
    (Hint(KEY, HintKind.MOUNT), "hint.received"),
    (Resync(ResyncKind.OVERFLOW), "resync.started"),
    (Listed(answered=False, present=True), "listing.failed"),
    (Listed(answered=True, present=False), "tree.not_found"),
    (Listed(answered=True, present=False, sandboxes=False), "listing.failed"),
    (Listed(answered=True, present=True, seconds=0.5), "tree.listed"),
    (Looked(KEY, None), None),
    (CleanRequested((KEY,), 0, 7), "cleanup.requested"),
    (ReleaseRequested(0, 7), "release.requested"),
    (NodeLooked(0.0, processes=ProcessScan(answered=False)), "processes.scanned"),
    (NodeLooked(0.0, containerd=Containerd(ContainerdState.DOWN)), "containerd.asked"),
    (GuardsChecked((Refusal(Guard.PID_NAMESPACE, "foreign pid namespace"),)), "guards.checked"),
]

DECISIONS: list[tuple[Decision, str | None]] = [
    (Vanished(KEY, Verdict.LEFTOVER, cleaned=True), "bundle.vanished"),
    (Died(KEY, DeathCause.BOTH), "task.died"),
    (OverBudget(KEY, BudgetKind.AGE), "budget.exceeded"),
    (Braked("mass death", on=True, detail="12 of 13"), "brake.pulled"),
    (Braked("mass death", on=False, detail="released"), "brake.released"),
    (LookAt(KEY, HintKind.CHANGED), None),
    (Relist(ResyncKind.TIMER), None),
    (AskNode("recheck"), None),
    (Clean(KEY, WHO, claimed=False, attempt=1), None),
    (FinishRemoval(KEY, WHO), None),
]


@pytest.mark.parametrize(("observation", "event"), OBSERVATIONS)
def test_every_observation_has_its_record_or_none_on_purpose(
    log: LogListener, lines: Lines, observation: Observation, event: str | None
) -> None:
    log.observed(at(0), observation)
    assert [line["event"] for line in lines.records] == ([] if event is None else [event])


@pytest.mark.parametrize(("decision", "event"), DECISIONS)
def test_every_decision_has_its_record_or_none_on_purpose(
    log: LogListener, lines: Lines, decision: Decision, event: str | None
) -> None:
    log.decided(at(0), decision)
    assert [line["event"] for line in lines.records] == ([] if event is None else [event])


def test_a_backend_that_was_left_is_named_with_why_and_what_to_do(lines: Lines) -> None:
    watcher = FakeWatcher(backend="poll", reason="no inotify instance left; poll instead")
    log = LogListener(make_logger(as_json=True, level=20, sink=lines), watcher)
    for _ in range(3):
        log.observed(at(0), Resync(ResyncKind.BACKEND))
    watcher.backend, watcher.reason = "inotify", ""
    log.observed(at(1), Resync(ResyncKind.BACKEND))
    told = [
        (line["level"], line["backend"], line["problem"])
        for line in lines.records
        if line["event"] == "watch.switched"
    ]
    assert told == [
        ("warning", "poll", "no inotify instance left; poll instead"),
        ("info", "inotify", ""),
    ]


def test_the_level_leaves_out_what_matters_less(lines: Lines) -> None:
    log = LogListener(make_logger(as_json=True, level=30, sink=lines))
    log.observed(at(0), Listed(answered=True, present=True))
    log.decided(at(0), Died(KEY, DeathCause.INIT))
    assert [line["event"] for line in lines.records] == ["task.died"]


@given(namespace=st.binary(max_size=60), name=st.binary(max_size=255))
def test_a_hostile_name_stays_on_one_line(namespace: bytes, name: bytes) -> None:
    key = BundleKey(escape(namespace), escape(name))
    for as_json in (True, False):
        lines = Lines()
        LogListener(make_logger(as_json=as_json, sink=lines)).decided(
            at(0), Died(key, DeathCause.INIT)
        )
        (line,) = lines.lines
        assert line.isprintable()
        if as_json:
            json.loads(line)


def test_people_read_the_name_as_they_type_it(lines: Lines) -> None:
    log = LogListener(make_logger(as_json=False, level=10, sink=lines))
    log.decided(at(0), Judged(KEY, LEFTOVER, Phase.WAITING, None, facts=DEAD))
    (line,) = lines.lines
    assert "k8s.io/web" in line
    assert "facts" not in line
    assert "\x1b" not in line


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_log_nobody_reads_drops_lines_and_says_so_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = stderr_sink(writer)
    line = json.dumps({"event": "x" * 3000})
    for _ in range(100):
        sink.write(line)  # would wait for ever after 64 KiB, and the timeout would end this test
    dropped = sink.dropped
    assert 0 < dropped < 100
    assert os.get_blocking(writer)

    got = read_all(reader)
    sink.write(json.dumps({"event": "after"}))
    got += read_all(reader)
    told = [json.loads(text) for text in got.decode().splitlines()]
    assert told[-2:] == [{"event": "lines.dropped", "count": dropped}, {"event": "after"}]
    assert len(told) == 100 - dropped + 2


def test_a_line_longer_than_the_pipe_is_not_torn(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = stderr_sink(writer)
    long = json.dumps({"event": "x" * 200_000})
    sink.write(long)
    got = b""
    for _ in range(20):
        got += read_all(reader)
        sink.write(json.dumps({"event": "tick"}))
    got += read_all(reader)
    told = [json.loads(text) for text in got.decode().splitlines()]
    assert json.dumps(told[0]) == long


def test_a_reader_that_went_away_costs_lines_only(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    sink = stderr_sink(writer)
    for _ in range(3):
        sink.write("{}")


def read_all(reader: int) -> bytes:
    got = b""
    while select.select([reader], [], [], 0)[0]:
        piece = os.read(reader, 65536)
        if not piece:
            break
        got += piece
    return got
