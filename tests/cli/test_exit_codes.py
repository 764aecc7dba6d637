"""The table of exit codes: each of them is given by something, and the page has no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli import cleaning, scanning
from reconciler.cli.app import app, run
from reconciler.cli.checks import check_guards
from reconciler.cli.passes import clean_once, look_once
from reconciler.cli.scanning import ending
from reconciler.demo.node import DemoNode
from reconciler.errors import ExitCode, NoWorkerError, RefusedError
from reconciler.model.evidence import Containerd
from reconciler.model.observations import Guard, Refusal
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies, Policy
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.cli.program import running, tree, wait_for
from tests.decide.world import dead, key

JOURNAL = str(Path(__file__).parents[1] / "replay" / "journals" / "seed.jsonl")
POLICIES = Policies(default=Policy(enforce=True, grace=0.0))

TYPED = {
    ExitCode.DONE: ("replay", JOURNAL),
    ExitCode.ERROR: ("replay", JOURNAL, "--only", "default/nothing"),
    ExitCode.USAGE: ("scan", "--nonsense"),
    ExitCode.NO_DAEMON: ("status", "--socket", "/nonexistent/http.sock"),
    ExitCode.BAD_JOURNAL: ("replay", __file__),
    ExitCode.NO_CONTAINERD: ("scan", "--state", "/nonexistent/containerd"),
    ExitCode.CONFIG: ("config", "check", "--config", "/nonexistent/config.toml"),
}
GIVEN = {
    ExitCode.LEFTOVERS,
    ExitCode.UNPROVEN,
    ExitCode.BLOCKED,
    ExitCode.NO_WORKER,
    ExitCode.REFUSED,
    ExitCode.INTERRUPTED,
}


def test_every_exit_code_is_shown() -> None:
    assert TYPED.keys() | GIVEN == set(ExitCode)
    assert not TYPED.keys() & GIVEN


@pytest.mark.parametrize(("code", "words"), TYPED.items(), ids=lambda one: str(one)[:20])
def test_what_is_typed_ends_with_its_code(
    code: ExitCode, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, words, "containerd-reconciler") == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (0 if code is ExitCode.DONE else 1), lines


async def test_what_a_scan_found_is_its_code(node: FakeNode) -> None:
    node.inspector.tree = {key("ns/dead"): dead()}
    assert ending(await look_once(node.stages, POLICIES)) is ExitCode.LEFTOVERS
    node.node_source.node = type(node.node_source.node)(containerd=Containerd())
    assert ending(await look_once(node.stages, POLICIES)) is ExitCode.UNPROVEN


async def test_nothing_is_proven_of_what_mounts_hide(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.inspector.tree = {}
    found = await look_once(node.stages, POLICIES)
    hidden: list[str] = []
    monkeypatch.setattr(scanning, "out_of_sight", lambda *_: hidden)
    assert scanning._code(found, Setup()) is ExitCode.DONE
    hidden.append("2 filesystems are mounted on it")
    assert scanning._code(found, Setup()) is ExitCode.UNPROVEN
    node.inspector.tree = {key("ns/dead"): dead()}
    found = await look_once(node.stages, POLICIES)
    assert scanning._code(found, Setup()) is ExitCode.LEFTOVERS


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result.CLEANED, ExitCode.DONE),
        (Result.BLOCKED, ExitCode.BLOCKED),
        (Result.FAILED, ExitCode.ERROR),
    ],
)
async def test_what_came_of_a_clean_is_its_code(
    node: FakeNode, result: Result, code: ExitCode
) -> None:
    node.inspector.tree = {key("ns/dead"): dead()}
    node.cleaner.answer = lambda who, identity: Outcome(
        who, identity, result, None if result is Result.CLEANED else BlockReason.IO
    )
    found = await clean_once(node.stages, POLICIES)
    assert cleaning.exit_code(cleaning.cleaned(found, Setup(policies=POLICIES)), found) is code


@pytest.mark.parametrize(
    ("guard", "error", "code"),
    [
        (Guard.WORKER, NoWorkerError, ExitCode.NO_WORKER),
        (Guard.PID_NAMESPACE, RefusedError, ExitCode.REFUSED),
    ],
)
def test_a_guard_is_its_code(
    guard: Guard, error: type[NoWorkerError | RefusedError], code: ExitCode
) -> None:
    with pytest.raises(error) as raised:
        check_guards((Refusal(guard, "why"),))
    assert raised.value.code is code


def record(place: str) -> tuple[str, ...]:
    return "record", f"{place}/out.jsonl"


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (record, 0),
        (lambda _: ("run",), 130),
        (lambda place: ("run", "--record", f"{place}/out.jsonl"), 130),
    ],
    ids=["record", "run", "run-record"],
)
def test_ctrl_c_is_130_but_where_it_is_the_way_to_end(
    demo: DemoNode, words: Callable[[str], tuple[str, ...]], code: int
) -> None:
    with running(demo, *words(os.fsdecode(demo.top)), *tree(demo)) as child:
        wait_for(child, '"event":"bundle.judged"')
        child.send_signal(2)
        assert child.stderr is not None
        rest = child.stderr.read()
        assert (child.wait(timeout=10), "Traceback" in rest) == (code, False)
