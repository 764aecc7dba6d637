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

    def __post_init__(self) -> None:
        level = Level.INFO.number
        self.listener = LogListener(make_logger(as_json=True, level=level, sink=self.lines))

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.now, self.now)

    def observed(self, observation: Observation) -> None:
        self.listener.observed(self.stamp, observation)

    def last(self, *events: str, id_: str = "") -> dict[str, object] | None:
        """Give the last line of these events, or about a bundle."""
        found = (json.loads(line) for line in reversed(self.lines.lines))
        return next(
            (one for one in found if (one.get("id") == id_ if id_ else one["event"] in events)),
            None,
        )


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
    st.sampled_from([Verdict.LEFTOVER, Verdict.LEFTOVER, Verdict.RUNNING]),
    st.sampled_from(
        [Phase.WAITING, Phase.DUE, Phase.CLEANING, Phase.BLOCKED, Phase.HELD, Phase.BLOCKED]
    ),
    st.sampled_from(["busy", "read-only"]),
    st.sampled_from([0.0, 1.0, WINDOW / 3, WINDOW + 1]),
)


@given(st.lists(moves, max_size=60))
def test_the_last_line_about_anything_tells_what_is_so(
    story: list[tuple[str, int, Verdict, Phase, str, float]],
) -> None:
    log, bundles = Log(), [Bundle(key) for key in KEYS]
    so = {"containerd": "", "guards": True, "sweep": True, "list": "relisted"}
    for what, which, verdict, phase, cause, later in story:
        log.now += later
        bundle = bundles[which]
        match what:
            case "judge":
                alive = verdict is Verdict.RUNNING
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
                so["list"] = (
                    "relist failed" if not answered else "relisted" if present else "no state tree"
                )
        check(log, bundles, so)


def check(log: Log, bundles: list[Bundle], so: dict[str, object]) -> None:
    for bundle in bundles:
        line = log.last(id_=bundle.key.id)
        if bundle.verdict is not None and bundle.phase not in ON_THE_WAY:
            assert line is not None
            told = (line["verdict"], line["phase"], line["cause"])
            assert told == (bundle.verdict.value, bundle.phase.value, bundle.cause), line
        elif bundle.verdict is None and line is not None:
            assert line["event"] == "vanished"
    line = log.last("containerd")
    assert so["containerd"] == (line["state"] if line else "")
    line = log.last("guards")
    assert so["guards"] == (line["ok"] if line else True)
    line = log.last("process scan")
    assert so["sweep"] == (line["answered"] if line else True)
    line = log.last("relist failed", "no state tree", "relisted")
    assert so["list"] == (line["event"] if line else "relisted")


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
    assert events == ["verdict", "step", "step", "blocked", "verdict"]


def test_what_is_remembered_is_bounded() -> None:
    log = Log()
    for n in range(10_000):
        bundle = Bundle(BundleKey("ns", str(n)), Verdict.LEFTOVER)
        bundle.judge(log, Verdict.LEFTOVER, Phase.BLOCKED, "busy")
    assert len(log.listener._repeats._objects) <= 4096
