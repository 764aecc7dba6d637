"""`clean --debris` removes what its plan shows, of the kinds that are named; else it all stays."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from reconciler.cli import checks, explaining, scanning, session
from reconciler.cli import setup as making
from reconciler.cli.app import app, run
from reconciler.cli.output import Output
from reconciler.cli.passes import Found, clean_once, look_once
from reconciler.errors import ExitCode
from reconciler.model.debris import DebrisKind
from reconciler.model.evidence import Answer
from reconciler.model.outcome import Result
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.decide.debris_world import place, places
from tests.decide.world import dead, key
from tests.support.schema import strict

pytestmark = pytest.mark.safety


class Program(Protocol):
    """Runs a command, with this as the file of its configuration."""

    def __call__(self, *args: str, says: str = "") -> int: ...


SOCKET = place(DebrisKind.SHIM_SOCKET, "/run/s/dead", names=("", ""))
GROUP = place(DebrisKind.CGROUP, "/ns/x")
SHIM = place(DebrisKind.SHIM, "4711")


@pytest.fixture
def program(node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """Runs a command on doubles, where nobody is there to agree."""

    def look(setup: Setup, _output: Output, _server: object) -> Found:
        return anyio.run(look_once, node.stages, setup.policies)

    def clean(setup: Setup, _output: Output, _server: None) -> Found:
        return anyio.run(clean_once, node.stages, setup.policies)

    for user in (session, scanning, explaining):
        monkeypatch.setattr(user, "look", look)
    monkeypatch.setattr(session, "clean", clean)
    monkeypatch.setattr(making, "start_fork_server", lambda _setup: None)
    for check in ("check_state", "check_namespaces"):
        monkeypatch.setattr(checks, check, lambda *_args, **_more: None)
    config = tmp_path / "config.toml"

    def call(*args: str, says: str = "") -> int:
        config.write_text(says)
        return run(app, ["--config", str(config), *args], "containerd-reconciler")

    return call


def removed(node: FakeNode) -> set[str]:
    return {str(one.key) for batch in node.cleaner.batches for one in batch}


def test_all_kinds_go_with_the_bundles_and_living_shims_stay(
    node: FakeNode, program: Program
) -> None:
    node.inspector.tree = {key("ns/dead"): dead(1)}
    node.cleaner.debris += [SOCKET, GROUP, SHIM]
    assert program("clean", "--debris", "--yes") == ExitCode.DONE
    assert removed(node) == {str(SOCKET.key), str(GROUP.key)}
    assert node.cleaner.debris == [SHIM]
    assert [str(one) for _, one in node.cleaner.cleaned] == ["ns/dead"]


@pytest.mark.parametrize("args", [("clean", "--yes"), ("clean", "--yes", "ns/dead"), ("scan",)])
def test_without_a_word_nothing_of_it_goes_whatever_is_configured(
    node: FakeNode, program: Program, args: tuple[str, ...]
) -> None:
    node.inspector.tree = {key("ns/dead"): dead(1)}
    node.cleaner.debris += [SOCKET, GROUP]
    says = "mode = 'enforce'\n[debris]\naction = 'clean'\n"
    rule = "[[rule]]\nname = 'r'\nmatch = {}\ndebris = 'clean'"
    assert program(*args, says=says + rule) == ExitCode.DONE
    assert not node.cleaner.batches


def test_only_the_kinds_that_are_named_go(node: FakeNode, program: Program) -> None:
    node.cleaner.debris += [SOCKET, GROUP]
    rule = "[[rule]]\nname = 'r'\nmatch = {}\ndebris = 'clean'"
    assert program("clean", "--debris", "cgroup", "--yes", says=rule) == ExitCode.DONE
    assert removed(node) == {str(GROUP.key)}


@pytest.mark.parametrize("kind", ["shims", "cgroups", "cgroup,", "ns/dead"])
def test_what_is_no_kind_is_refused(node: FakeNode, program: Program, kind: str) -> None:
    assert program("clean", "--debris", kind, "--yes") == ExitCode.USAGE
    assert not node.node_source.inventories


@pytest.mark.parametrize("missing", [{1}, {2}, {3}, {2, 3, 4}, range(1, 99), range(2, 99)])
def test_a_kind_that_an_inventory_leaves_out_is_asked_for_again_and_not_for_ever(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str], missing: Container[int]
) -> None:
    """The first, that at the grace's end, that after a batch; or none tells of cgroups any more."""
    node.cleaner.debris += [SOCKET, GROUP]
    out = frozenset({DebrisKind.CGROUP})
    node.node_source.left_out = lambda n: out if n in missing else ()
    began = node.clock.now
    code = program("clean", "--debris", "--yes")
    said = capsys.readouterr().err
    assert node.clock.now - began < 20.0
    is_silent = 90 in missing
    assert code == (ExitCode.NO_WORKER if is_silent else ExitCode.DONE), said
    assert ("no answer what is left of cgroup (cgroup: it" in said) == is_silent
    assert removed(node) == {str(SOCKET.key)} | (set() if is_silent else {str(GROUP.key)})


def test_a_kind_that_was_not_asked_for_is_not_waited_for(node: FakeNode, program: Program) -> None:
    node.cleaner.debris += [SOCKET, GROUP]
    node.node_source.left_out = lambda _: frozenset({DebrisKind.CGROUP})
    assert program("clean", "--debris", "shim-socket", "--yes") == ExitCode.DONE
    assert removed(node) == {str(SOCKET.key)}
    assert program("clean", "--yes") == ExitCode.DONE
    assert program("clean", "--debris", "--dry-run") == ExitCode.NO_WORKER


KILL = "[cleanup]\nshims = 'kill'\n"
KEEP = "[[rule]]\nname = 'r'\nmatch = {}\n"


@pytest.mark.parametrize(
    ("says", "args", "is_ended"),
    [
        ("", ("--debris", "shim"), False),
        (KEEP + "debris = 'clean'", ("--debris", "shim"), False),
        (KILL, (), False),
        (KILL, ("--debris", "cgroup"), False),
        (KILL, ("--debris", "shim"), True),
        (KILL, ("--debris",), True),
        (KILL + KEEP + "shims = 'report'", ("--debris",), False),
        (KILL + KEEP + "protect = true", ("--debris",), False),
        (KILL + KEEP + "debris = 'report'", ("--debris",), False),
        (KEEP + "shims = 'kill'", ("--debris",), True),
    ],
)
def test_a_shim_is_ended_where_that_is_said_twice(
    node: FakeNode, program: Program, says: str, args: tuple[str, ...], *, is_ended: bool
) -> None:
    node.cleaner.debris += [SHIM]
    assert program("clean", "--yes", *args, says=says) == ExitCode.DONE
    assert removed(node) == ({str(SHIM.key)} if is_ended else set())


def test_what_becomes_of_a_shim_is_said_as_of_a_process(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    node.cleaner.debris += [SHIM]
    assert program("clean", "--debris", "--dry-run", says=KILL) == ExitCode.DONE
    assert "end" in capsys.readouterr().out.split()
    acts = "mode = 'enforce'\n"
    assert program("explain", "shim:4711", says=acts + KILL) == ExitCode.DONE
    assert "ended in 10m, if another inventory" in capsys.readouterr().out
    assert program("explain", "shim:4711", says=acts) == ExitCode.DONE
    assert "living shims are only reported" in capsys.readouterr().out
    assert program("-o", "json", "scan", says=acts) == ExitCode.DONE
    (one,) = json.loads(capsys.readouterr().out)["debris"]
    assert (one["kind"], one["path"], one["phase"]) == ("shim", "4711", "waiting")


def test_names_and_debris_do_not_go_together(node: FakeNode, program: Program) -> None:
    assert program("clean", "ns/x", "--yes", "--debris") == ExitCode.USAGE
    assert not node.cleaner.batches


def test_a_dry_run_names_them_and_touches_nothing(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    unsure = place(DebrisKind.CGROUP, "/ns/y", owned=Answer.NONE)
    node.cleaner.debris += [SOCKET, GROUP, unsure]
    assert program("-o", "json", "clean", "--debris", "--dry-run") == ExitCode.DONE
    said = capsys.readouterr()
    told = {(one["kind"], one["path"]): one["result"] for one in json.loads(said.out)["results"]}
    assert told == {
        ("shim-socket", "/run/s/dead"): "planned",
        ("cgroup", "/ns/x"): "planned",
        ("cgroup", "/ns/y"): "unknown",
    }
    assert "2 pieces of debris would be removed" in said.err
    assert not node.cleaner.batches


def test_what_came_of_each_is_told(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    node.cleaner.debris += [GROUP]
    node.cleaner.debris_result = Result.BLOCKED
    assert program("-o", "json", "clean", "--debris", "--yes") == ExitCode.BLOCKED
    (one,) = json.loads(capsys.readouterr().out)["results"]
    assert (one["kind"], one["path"], one["result"]) == ("cgroup", "/ns/x", "blocked")
    assert (one["namespace"], one["id"]) == ("ns", "x")


def test_the_table_names_kind_and_path(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    node.cleaner.debris += [SOCKET]
    assert program("clean", "--debris", "--yes") == ExitCode.DONE
    assert "shim-socket" in (out := capsys.readouterr().out)
    assert "/run/s/dead" in out
    node.cleaner.debris += [SOCKET]
    assert program("-o", "name", "clean", "--debris", "--yes") == ExitCode.DONE
    assert capsys.readouterr().out == "shim-socket:/run/s/dead\n"


def test_what_a_rule_protects_stays_and_is_told(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    node.cleaner.debris += [GROUP, SOCKET]
    rule = "[[rule]]\nname = 'keep'\nmatch = { namespace = 'ns' }\nprotect = true"
    assert program("-o", "json", "clean", "--debris", "--yes", says=rule) == ExitCode.DONE
    told = {one["kind"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert told["shim-socket"]["result"] == "cleaned"
    assert told["cgroup"]["result"] == "protected"
    assert "keep" in told["cgroup"]["reason"]
    assert removed(node) == {str(SOCKET.key)}


def test_what_comes_after_the_question_is_not_removed(
    node: FakeNode, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.cleaner.debris += [GROUP]

    def yes(_output: Output, question: str) -> bool:
        assert question == "Remove 1 piece of debris?"
        node.cleaner.debris += [SOCKET]
        return True

    monkeypatch.setattr(Output, "can_ask", True)
    monkeypatch.setattr(Output, "ask", yes)
    assert program("clean", "--debris") == ExitCode.DONE
    assert removed(node) == {str(GROUP.key)}


def test_a_threshold_holds_for_debris_as_well(node: FakeNode, program: Program) -> None:
    node.cleaner.debris += [GROUP]
    assert program("clean", "--debris", "--yes", "--threshold", "60d") == ExitCode.DONE
    assert not node.cleaner.batches


def test_thousands_go_with_one_call(node: FakeNode, program: Program) -> None:
    node.cleaner.debris += places(1000)
    assert program("clean", "--debris", "--yes") == ExitCode.DONE
    assert not node.cleaner.debris


def test_scan_shows_phases_and_says_by_its_exit_code_that_debris_is_left(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("scan", "--exit-code") == ExitCode.DONE
    node.cleaner.debris += [GROUP]
    capsys.readouterr()
    assert program("-o", "json", "scan", "--exit-code") == ExitCode.LEFTOVERS
    (one,) = json.loads(capsys.readouterr().out)["debris"]
    assert (one["kind"], one["phase"], one["verdict"]) == ("cgroup", "waiting", "debris")
    assert one["due_in_seconds"] == pytest.approx(600.0, abs=1.0)
    assert program("scan") == ExitCode.DONE
    assert "waiting" in capsys.readouterr().out


def test_explain_shows_every_answer_and_what_follows(
    node: FakeNode, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    node.cleaner.debris += [GROUP, place(DebrisKind.CGROUP, "/ns/y", owned=Answer.NONE)]
    assert program("explain", "cgroup:/ns/x") == ExitCode.DONE
    assert "it may only be observed" in capsys.readouterr().out
    says = "mode = 'enforce'\n[debris]\naction = 'clean'"
    assert program("-o", "json", "explain", "cgroup:/ns/x", says=says) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert not list(strict().iter_errors(told))
    assert told["kind"] == "DebrisExplanation"
    assert told["next"] == "removed in 10m, if another inventory finds it debris then"
    answers = {one["evidence"]: one["value"] for one in told["evidence"]}
    assert {answers[name] for name in ("somebody in it", "an owner", "containerd's task")} == {"no"}
    assert program("explain", "cgroup:/ns/y") == ExitCode.DONE
    assert "no waiting makes it so" in capsys.readouterr().out
    assert program("explain", "cgroup:/ns/z") == ExitCode.ERROR
    assert "did you mean cgroup:/ns/" in capsys.readouterr().err
