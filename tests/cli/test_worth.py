"""What an answer is worth: said first, in the verdicts, and by the exit code."""

import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.cli import cleaning
from reconciler.cli.app import app, run
from reconciler.cli.checks import check_namespaces, warn_of_place
from reconciler.cli.globals import Form, Globals
from reconciler.cli.output import Output
from reconciler.cli.passes import clean_once, look_once
from reconciler.cli.scanning import ending
from reconciler.cli.setup import make_setup
from reconciler.demo.node import DemoNode
from reconciler.errors import ExitCode, UsageError
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Containerd, Look, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.observations import SPOILS_LOOKING, Guard, Refusal
from reconciler.model.policy import Policies, Policy
from reconciler.model.processes import UnreadProcess
from reconciler.present import rows
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.cli.program import program, tree
from tests.decide.world import dead, key, running, stopped

POLICIES = Policies()
FOREIGN = Refusal(Guard.PID_NAMESPACE, "own pid namespace is not that of containerd (pid 1)")


@pytest.mark.parametrize(
    ("bundles", "code"),
    [
        ({"ns/live": running()}, ExitCode.DONE),
        ({}, ExitCode.DONE),
        ({"ns/live": running(), "ns/dead": dead(2)}, ExitCode.LEFTOVERS),
    ],
    ids=["none", "nothing", "some"],
)
async def test_zero_means_looked_and_found_none(
    node: FakeNode, bundles: dict[str, Look], code: ExitCode
) -> None:
    node.inspector.tree = {key(name): look for name, look in bundles.items()}
    assert ending(await look_once(node.stages, POLICIES)) is code


@pytest.mark.parametrize("why", ["containerd", "place", "processes", "unread"])
async def test_what_could_not_be_proven_is_eleven(node: FakeNode, why: str) -> None:
    node.inspector.tree = {key("ns/dead"): dead(), key("ns/live"): running(2)}
    word = node.node_source.node
    match why:
        case "containerd":
            node.node_source.node = replace(word, containerd=Containerd())
        case "place":
            node.refuse(FOREIGN)
        case "processes":
            node.node_source.node = replace(word, processes=ProcessScan())
        case _:
            unread = ProcessScan(answered=True, unread=(UnreadProcess(7),))
            node.node_source.node = replace(word, processes=unread)
    found = await look_once(node.stages, POLICIES)
    assert {str(v.key): v.judgement.verdict for v in found.views} == {
        "ns/dead": Verdict.UNKNOWN,
        "ns/live": Verdict.RUNNING,
    }
    assert ending(found) is ExitCode.UNPROVEN


async def test_from_a_foreign_place_nothing_is_stopped_and_a_dry_run_is_a_refusal(
    node: FakeNode,
) -> None:
    node.inspector.tree = {key("ns/ended"): stopped(), key("ns/dead"): dead(2)}
    node.refuse(FOREIGN)
    found = await look_once(node.stages, POLICIES)
    assert {view.judgement.verdict for view in found.views} == {Verdict.UNKNOWN}
    report = cleaning.planned(found, Setup())
    assert cleaning.exit_code(report, found) is ExitCode.REFUSED


@pytest.mark.parametrize("guard", Guard)
def test_a_guard_that_spoils_looking_is_a_warning(
    guard: Guard, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_place([Refusal(guard, "why; what to do")], Output(quiet=True))
    said = capsys.readouterr().err
    expected = (
        "containerd-reconciler: warning: not everything can be seen from here: why; what to do\n"
    )
    assert said == (expected if guard in SPOILS_LOOKING else "")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("defualt", "did you mean default?"), ("xyz", "there are default, k8s.io")],
)
def test_a_namespace_that_does_not_exist_is_a_mistake(
    tmp_path: Path, asked: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(state=os.fsencode(tmp_path))
    for name in ("default", "k8s.io"):
        (tmp_path / "io.containerd.runtime.v2.task" / name).mkdir(parents=True)
    check_namespaces(layout, ["k8s.io", "default"], Output())
    with pytest.raises(UsageError) as raised:
        check_namespaces(layout, ["default", asked], Output())
    assert str(raised.value).startswith(f"there is no namespace {asked} in {tmp_path}")
    assert raised.value.hint == hint
    assert capsys.readouterr().err == ""
    check_namespaces(layout, [asked], Output(), may_come=True)
    assert capsys.readouterr().err.endswith(" yet\n")


@pytest.mark.parametrize(
    "command",
    ["scan", "scan --exit-code", "scan -o journal", "clean --dry-run", "clean --yes", "explain web",
     "run --once", "record --once out.jsonl"],
)  # fmt: skip
def test_a_mistyped_namespace_never_ends_with_0(demo: DemoNode, command: str) -> None:
    words = [os.fsdecode(demo.top) + "/out" if w == "out.jsonl" else w for w in command.split()]
    done = program(demo, *words, "-n", "nowhere", *tree(demo))
    assert done.returncode == ExitCode.USAGE, done
    assert done.stdout == ""
    assert "there is no namespace nowhere in " in done.stderr


async def test_a_dry_run_shows_what_nobody_can_judge(node: FakeNode) -> None:
    node.inspector.tree = {key("ns/dead"): dead()}
    node.node_source.node = replace(node.node_source.node, containerd=Containerd())
    found = await look_once(node.stages, POLICIES)
    planned = cleaning.planned(found, Setup())
    (one,) = planned.results
    assert (one.id, one.result) == ("dead", "unknown")
    assert "no answer from" in one.detail
    assert planned.summary.results["unknown"] == 1
    assert "1 unknown" in rows.clean_summary(planned.summary)
    assert "unknown" in rows.plan(planned.results).plain()
    assert cleaning.planned(found, Setup(), dry_run=False).results == []


async def test_an_interrupted_clean_names_what_it_did_not_reach(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = Policies(
        default=Policy(enforce=True, grace=5.0, max_age=None, max_size=None), parallel=1
    )
    node.inspector.tree = {key(f"ns/d{number}"): dead(number + 1) for number in range(20)}

    async def stop_workers() -> None:
        pass

    def interrupt(who: BundleKey, identity: Identity) -> None:  # None: removed as ever
        if len(node.cleaner.cleaned) == 2:
            signal.raise_signal(signal.SIGINT)

    node.cleaner.answer = interrupt
    found = await clean_once(node.stages, policies, stop_workers)
    setup = Setup(policies=policies)
    assert cleaning._interrupted(signal.SIGINT, found, setup, Form.TABLE, Output()) == 130
    said = capsys.readouterr()
    listed = {line.split()[1]: line.split()[2] for line in said.out.splitlines()[1:]}
    assert set(listed) == {f"d{number}" for number in range(20)}
    assert set(listed.values()) == {"cleaned", "skipped"}
    missed = list(listed.values()).count("skipped")
    assert said.err.endswith(f"interrupted before the end; {missed} bundles not reached\n")


def test_a_relative_state_directory_is_the_one_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").touch()
    said = Globals(
        config=str(tmp_path / "c.toml"), state="run/./x", root="../lib", address="c.sock"
    )
    layout = make_setup(said, environ={}).layout
    assert layout.state == os.fsencode(tmp_path / "run" / "x")
    assert layout.root == os.fsencode(tmp_path.parent / "lib")
    assert layout.address == os.fsencode(tmp_path / "c.sock")


def test_a_replay_of_a_bundle_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Path(__file__).parents[1] / "replay" / "journals" / "seed.jsonl"
    for only, code in (("default/alive", 0), ("default/nothing", 1), ("defualt/alive", 1)):
        assert run(app, ["replay", str(journal), "--only", only], "prog") == code, only
    said = capsys.readouterr()
    assert "there is no bundle default/nothing in this journal\n" in said.err
    assert said.out.count("\n") == 1
