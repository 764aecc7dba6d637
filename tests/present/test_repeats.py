"""What the log withholds: never the line that tells what is so now."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.decisions import Judged, Judgement, Phase, Vanished, Verdict
from reconciler.model.evidence import Containerd, ContainerdState, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Listed,
    NodeLooked,
    Observation,
    Refusal,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Outcome, Result, Step, StepResult
from reconciler.present.records import WINDOW, Level
from reconciler.telemetry.logs import LogListener, make_logger
from tests.telemetry.test_logs import Lines

KEYS = [BundleKey("ns", "a"), BundleKey("ns", "b")]
WHO = Identity(1, 2, 3)
ON_THE_WAY = {Phase.DUE, Phase.CLEANING}


def containerd(state: ContainerdState) -> NodeLooked:
    return NodeLooked(0.0, containerd=Containerd(state))


@dataclass
class Log:
    """A log as most people read it, and the last line about each thing."""

    lines: Lines = field(default_factory=Lines)
    now: float = 0.0
    level: Level = Level.INFO

    def __post_init__(self) -> None:
        logger = make_logger(as_json=True, level=self.level.number, sink=self.lines)
        self.listener = LogListener(logger)

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.now, self.now)

    def observed(self, observation: Observation) -> None:
        self.listener.observed(self.stamp, observation)

    def last(self, *events: str, id_: str = "") -> dict[str, object] | None:
        """Give the last line of these events, or about a bundle; those on the way not at debug."""
        found = (json.loads(line) for line in reversed(self.lines.lines))
        if id_:
            about = (one for one in found if one.get("id") == id_)
            is_all = self.level is Level.DEBUG
            return next((one for one in about if not is_all or tells_state(one)), None)
        return next((one for one in found if one["event"] in events), None)


def tells_state(line: dict[str, object]) -> bool:
    return line["event"] == "bundle.vanished" or (
        line["event"] == "bundle.judged" and line["phase"] not in {one.value for one in ON_THE_WAY}
    )


def is_trouble(verdict: object, phase: object) -> bool:
    """A state of a bundle that is worth a line, and so is its end."""
    return verdict == "orphaned" or phase in ("blocked", "held", "protected")


def test_down_is_said_though_it_was_down_a_moment_ago() -> None:
    """The instance: no answer, up, down, no answer within five minutes."""
    log = Log()
    states = [ContainerdState.NONE, ContainerdState.UP, ContainerdState.DOWN] * 3
    for now, state in enumerate(states):
        log.now = float(now)
        log.observed(containerd(state))
        log.observed(containerd(state))
    told = [json.loads(line)["state"] for line in log.lines.lines]
    assert told == [state.value for state in states], "each change once, and no repeat"


@dataclass
class Bundle:
    """What is so about one bundle, and how it comes to be so."""

    key: BundleKey
    verdict: Verdict | None = None
    phase: Phase = Phase.NONE
    cause: str = ""

    def judge(self, log: Log, verdict: Verdict, phase: Phase, cause: str) -> None:
        judgement = Judgement(verdict, 8, "why")
        log.listener.decided(log.stamp, Judged(self.key, judgement, phase, self.verdict, cause))
        self.verdict, self.phase, self.cause = verdict, phase, cause

    def vanish(self, log: Log) -> None:
        log.listener.decided(log.stamp, Vanished(self.key, self.verdict, cleaned=False))
        self.verdict = None


moves = st.tuples(
    st.sampled_from(
        ["judge", "judge", "judge", "attempt", "vanish", "containerd", "guards", "sweep", "list"]
    ),
    st.sampled_from(range(2)),
    st.sampled_from([Verdict.LEFTOVER, Verdict.LEFTOVER, Verdict.RUNNING, Verdict.ORPHANED]),
    st.sampled_from(
        [Phase.WAITING, Phase.DUE, Phase.CLEANING, Phase.BLOCKED, Phase.HELD, Phase.BLOCKED]
    ),
    st.sampled_from(["busy", "read-only"]),
    st.sampled_from([0.0, 1.0, WINDOW / 3, WINDOW + 1]),
)


@pytest.mark.parametrize("level", [Level.DEBUG, Level.INFO])
@given(story=st.lists(moves, max_size=60))
def test_the_last_line_about_anything_tells_what_is_so(
    level: Level, story: list[tuple[str, int, Verdict, Phase, str, float]]
) -> None:
    log, bundles = Log(level=level), [Bundle(key) for key in KEYS]
    so = {"containerd": "", "guards": True, "sweep": True, "list": "tree.listed"}
    for what, which, verdict, phase, cause, later in story:
        log.now += later
        bundle = bundles[which]
        match what:
            case "judge":
                alive = verdict is not Verdict.LEFTOVER
                bundle.judge(log, verdict, Phase.NONE if alive else phase, "" if alive else cause)
            case "attempt":
                if bundle.verdict is not Verdict.LEFTOVER:
                    continue
                bundle.judge(log, Verdict.LEFTOVER, Phase.CLEANING, "")
                steps = (Step("unmount", StepResult.BLOCKED, cause, mutations=which),)
                reason = BlockReason.MOUNT_BUSY
                log.observed(Outcome(bundle.key, WHO, Result.BLOCKED, reason, cause, (), steps))
                bundle.judge(log, Verdict.LEFTOVER, Phase.BLOCKED, cause)
            case "vanish":
                if bundle.verdict is not None:
                    bundle.vanish(log)
            case "containerd":
                state = [ContainerdState.UP, ContainerdState.DOWN][which]
                so["containerd"] = state.value
                log.observed(containerd(state))
            case "guards":
                refused = (Refusal(Guard.INSTANCE, cause),) if which else ()
                so["guards"] = not refused
                log.observed(GuardsChecked(refused))
            case "sweep":
                so["sweep"] = bool(which)
                log.observed(NodeLooked(0.0, processes=ProcessScan(answered=bool(which))))
            case _:
                kinds = {Phase.WAITING: (False, True), Phase.HELD: (True, False)}
                answered, present = kinds.get(phase, (True, True))
                log.observed(Listed(answered=answered, present=present))
                found = "tree.listed" if present else "tree.not_found"
                so["list"] = found if answered else "listing.failed"
        check(log, bundles, so)


def check(log: Log, bundles: list[Bundle], so: dict[str, object]) -> None:
    for bundle in bundles:
        line = log.last(id_=bundle.key.id)
        if bundle.verdict is not None and bundle.phase not in ON_THE_WAY:
            so_now = (bundle.verdict.value, bundle.phase.value, bundle.cause)
            if log.level is Level.DEBUG or is_trouble(*so_now[:2]):
                assert line is not None
                assert (line["verdict"], line["phase"], line["cause"]) == so_now, line
            else:
                assert not tells_trouble(line)
        elif bundle.verdict is None and log.level is Level.DEBUG:
            assert line is None or line["event"] == "bundle.vanished"
        elif bundle.verdict is None:
            assert not tells_trouble(line)
    line = log.last("containerd.asked")
    assert so["containerd"] == (line["state"] if line else "")
    line = log.last("guards.checked")
    assert so["guards"] == (line["ok"] if line else True)
    line = log.last("processes.scanned")
    assert so["sweep"] == (line["answered"] if line else True)
    line = log.last("listing.failed", "tree.not_found", "tree.listed")
    assert so["list"] == (line["event"] if line else "tree.listed")


def tells_trouble(line: dict[str, object] | None) -> bool:
    if line is None or line["event"] == "bundle.vanished":
        return False
    return line["event"] != "bundle.judged" or is_trouble(line["verdict"], line["phase"])


@pytest.mark.parametrize("attempts", [5, 50])
def test_an_attempt_that_goes_as_the_last_one_did_is_not_said_again(attempts: int) -> None:
    log, bundle = Log(), Bundle(KEYS[0], Verdict.LEFTOVER)
    steps = (Step("cgroup", StepResult.WARNING, "a"), Step("cgroup", StepResult.WARNING, "b"))
    for _ in range(attempts):
        bundle.judge(log, Verdict.LEFTOVER, Phase.CLEANING, "")
        log.observed(
            Outcome(KEYS[0], WHO, Result.BLOCKED, BlockReason.MOUNT_BUSY, "busy", steps=steps)
        )
        bundle.judge(log, Verdict.LEFTOVER, Phase.BLOCKED, "busy")
    events = [json.loads(line)["event"] for line in log.lines.lines]
    assert events == [*["step.finished"] * 2, "bundle.blocked", "bundle.judged"]


def test_an_end_is_as_loud_as_the_trouble_was_and_said_once() -> None:
    log, bundle = Log(), Bundle(KEYS[0])
    for phase in (Phase.WAITING, Phase.DUE, Phase.BLOCKED):
        bundle.judge(log, Verdict.LEFTOVER, phase, "busy" if phase is Phase.BLOCKED else "")
    bundle.judge(log, Verdict.RUNNING, Phase.NONE, "")
    bundle.judge(log, Verdict.STOPPED, Phase.NONE, "")
    bundle.vanish(log)
    told = [(line["verdict"], line["phase"]) for line in map(json.loads, log.lines.lines)]
    assert told == [("leftover", "blocked"), ("running", "")]


def test_healthy_containers_coming_and_going_are_nobodys_news() -> None:
    log = Log()
    for n in range(100):
        bundle = Bundle(BundleKey("ns", str(n)))
        for verdict in (
            Verdict.UNKNOWN,
            Verdict.IN_TRANSITION,
            Verdict.STARTING,
            Verdict.RUNNING,
            Verdict.STOPPED,
        ):
            bundle.judge(log, verdict, Phase.NONE, "")
        bundle.vanish(log)
    assert not log.lines.lines
    assert not log.listener._repeats._objects, "nor is any of it remembered"


def test_a_cleaned_bundle_is_one_line() -> None:
    log, bundle = Log(), Bundle(KEYS[0], Verdict.RUNNING)
    for phase in (Phase.WAITING, Phase.DUE, Phase.CLEANING):
        bundle.judge(log, Verdict.LEFTOVER, phase, "")
    steps = tuple(Step(name, StepResult.DONE, mutations=1) for name in ("unmount", "bundle"))
    log.observed(Outcome(KEYS[0], WHO, Result.CLEANED, steps=steps))
    log.listener.decided(log.stamp, Vanished(KEYS[0], Verdict.LEFTOVER, cleaned=True))
    (line,) = map(json.loads, log.lines.lines)
    assert (line["event"], line["level"], line["mutations"]) == ("bundle.cleaned", "info", 2)


def test_what_is_remembered_is_bounded() -> None:
    log = Log()
    for n in range(10_000):
        bundle = Bundle(BundleKey("ns", str(n)), Verdict.LEFTOVER)
        bundle.judge(log, Verdict.LEFTOVER, Phase.BLOCKED, "busy")
    assert len(log.listener._repeats._objects) <= 4096
