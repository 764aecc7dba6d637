"""Every document that a command prints is one of the schema file, and says what it is."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.cli.app import COMMANDS, app, run
from reconciler.demo.node import DemoNode
from reconciler.testing.journals import JournalBuilder
from tests.cli.program import acts, program, tree
from tests.replay.stories import ENFORCE
from tests.support.schema import KINDS, Node, strict

DOCUMENTS = {"scan": "Scan", "explain": "Explanation", "clean": "Clean", "replay": "ReplayDiff"}
ELSEWHERE = {"status": "tests/daemon/test_status.py", "config": "the same, and test_config.py"}
ELSE = {"Status", "Configuration", "ConfigCheck", "PolicyTest", "DebrisExplanation"}
LOGGING = {"run", "record", "daemon", "demo"}
WORDS = {"version", "help", "completion"}


def document(done_out: str) -> Node:
    """Read the one document of a command, and hold it against the schema."""
    told: Node = json.loads(done_out)
    found = [f"{error.json_path}: {error.message}" for error in strict().iter_errors(told)]
    assert not found, found
    assert told["node"] == os.uname().nodename
    made = datetime.fromisoformat(str(told["time"]))
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=5)
    return told


def test_every_command_is_looked_at() -> None:
    assert DOCUMENTS.keys() | ELSEWHERE.keys() | LOGGING | WORDS == COMMANDS.keys()
    assert set(DOCUMENTS.values()) | ELSE == KINDS


@pytest.mark.parametrize("name", sorted(LOGGING))
def test_what_has_no_data_does_not_promise_any(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["/nowhere/file"] if name == "record" else []
    for words in ([name, *file, "-o", "json"], ["-o", "wide", name, *file]):
        assert run(app, words, "containerd-reconciler") == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert f"is not for `{name}`; its log is one JSON object a line" in err


@pytest.mark.kernel
def test_what_looks_at_a_tree_prints_documents(demo: DemoNode) -> None:
    one = str(next(fixture.key for fixture in demo.fixtures))
    for words in (("scan",), ("explain", one), ("clean", "--dry-run")):
        done = program(demo, *words, "-o", "json", *tree(demo))
        assert done.returncode == 0, done.stderr
        assert document(done.stdout)["kind"] == DOCUMENTS[words[0]]


@acts
@pytest.mark.kernel
def test_what_was_cleaned_is_a_document(demo: DemoNode) -> None:
    done = program(demo, "clean", "--yes", "--grace", "0s", "-o", "json", *tree(demo))
    told = document(done.stdout)
    assert told["kind"] == "Clean"
    results = told["results"]
    assert isinstance(results, list)
    assert {one["result"] for one in results} == {"cleaned", "blocked"}


def test_a_replay_is_a_document_also_where_it_differs(tmp_path: Path) -> None:
    journal, other = tmp_path / "run.jsonl", tmp_path / "other.toml"
    other.write_text('mode = "enforce"\n[cleanup]\ngrace = "5m"\n')
    with JournalBuilder(journal, ENFORCE) as node:
        node.start("default/web")
        node.crash("default/web")
        node.wait("10m")
    told = document(program(None, "replay", str(journal), "-o", "json").stdout)
    assert (told["kind"], told["differences"]) == ("ReplayDiff", [])
    what_if = ("--config", str(other))
    told = document(program(None, "replay", str(journal), *what_if, "-o", "json").stdout)
    assert told["policies"] == str(other)
    assert told["differences"]
    changed = journal.read_bytes().replace(b'"grace":60', b'"grace":90', 1)
    journal.write_bytes(changed)
    told = document(program(None, "replay", str(journal), "-o", "json").stdout)
    assert told["differences"]


def test_a_node_is_called_as_kubernetes_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.settings.environment import node_name

    assert node_name({"NODE_NAME": "worker-3"}) == "worker-3"
    assert node_name({"NODE_NAME": "bad\x1b[2J"}) == "bad\\x1b[2J"
    assert node_name({}) == os.uname().nodename
