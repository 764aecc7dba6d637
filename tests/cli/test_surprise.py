"""Nobody removes by surprise: a file, a habit or a script alone never makes a command remove."""

import os
import sys
from pathlib import Path

import pytest

from reconciler.demo.node import DemoNode
from reconciler.journal.recorder import is_being_written
from tests.cli.program import acts, program, running, tree, until, wait_for

CLEANUP = [sys.executable, "-c", "from reconciler.cli import cleanup_main; cleanup_main()"]

ENFORCING = """
mode = "enforce"
cleanup = { grace = "0s", threshold = "0s", settle = "0s" }

[[rule]]
name = "a rule that removes"
match = { namespace = "*" }
mode = "enforce"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.toml"
    path.write_text(ENFORCING)
    return str(path)


def picture(demo: DemoNode) -> list[str]:
    return sorted(str(path) for path in Path(os.fsdecode(demo.layout.tasks)).rglob("*"))


@acts
@pytest.mark.safety
def test_run_removes_only_if_told_so_on_its_command_line(demo: DemoNode, config: str) -> None:
    before = picture(demo)
    done = program(demo, "run", "--once", "--config", config, *tree(demo))
    assert done.returncode == 0, done.stderr
    assert picture(demo) == before
    done = program(demo, "run", "--once", "--enforce", "--config", config, *tree(demo))
    assert picture(demo) != before, done.stderr


@acts
@pytest.mark.safety
def test_clean_without_a_yes_and_a_terminal_shows_the_plan_and_refuses(demo: DemoNode) -> None:
    before = picture(demo)
    done = program(demo, "clean", "--grace", "0s", *tree(demo))
    assert done.returncode == 2
    assert "no-runtime" in done.stderr, "the plan"
    assert "--yes" in done.stderr
    assert "containerd-cleanup" in done.stderr
    assert picture(demo) == before


@acts
def test_nothing_is_refused_where_nothing_would_be_removed(demo: DemoNode) -> None:
    done = program(demo, "clean", "--grace", "0s", "--threshold", "24h", *tree(demo))
    assert done.returncode == 0, done.stderr


@acts
def test_the_name_that_units_use_is_the_yes(demo: DemoNode) -> None:
    before = picture(demo)
    done = program(demo, "--grace", "0s", *tree(demo), command=CLEANUP)
    assert picture(demo) != before, done.stderr


@pytest.mark.parametrize("command", ["scan", "clean --dry-run", "explain demo/web"])
def test_a_command_tells_which_files_it_read_if_asked(
    demo: DemoNode, config: str, command: str
) -> None:
    quiet = program(demo, *command.split(), "--config", config, *tree(demo))
    told = program(demo, *command.split(), "-v", "--config", config, *tree(demo))
    assert f"configuration: {config}" in told.stderr
    assert f"configuration: {config}" not in quiet.stderr


def test_a_journal_of_another_run_is_not_replaced(demo: DemoNode, tmp_path: Path) -> None:
    journal = tmp_path / "week.jsonl"
    words = ("record", str(journal), "--once", *tree(demo))
    assert program(demo, *words).returncode == 0
    before = journal.read_bytes()
    refused = program(demo, *words)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert journal.read_bytes() == before
    assert program(demo, *words, "--force").returncode == 0
    assert journal.read_bytes() != before


@pytest.mark.safety
def test_a_journal_that_is_being_written_is_not_replaced_whatever_is_said(
    demo: DemoNode, tmp_path: Path
) -> None:
    journal = tmp_path / "week.jsonl"
    with running(demo, "record", str(journal), *tree(demo)) as first:
        wait_for(first, "no-runtime")
        until(lambda: is_being_written(journal))
        inode = journal.stat().st_ino
        refused = program(demo, "record", str(journal), "--once", "--force", *tree(demo))
        assert refused.returncode == 2
        assert "another process writes" in refused.stderr
        assert journal.stat().st_ino == inode
        assert list(tmp_path.iterdir()) == [journal]


def test_a_report_replaces_a_report_alone(demo: DemoNode, tmp_path: Path) -> None:
    journal, page = tmp_path / "week.jsonl", tmp_path / "week.html"
    assert program(demo, "record", str(journal), "--once", *tree(demo)).returncode == 0
    before = journal.read_bytes()
    refused = program(demo, "replay", str(journal), "--report", str(journal))
    assert refused.returncode == 2
    assert journal.read_bytes() == before
    for _ in range(2):
        done = program(demo, "replay", str(journal), "--report", str(page))
        assert done.returncode == 0, done.stderr


def test_the_help_of_the_unattended_command_speaks_of_no_question(demo: DemoNode) -> None:
    done = program(demo, "--help", command=CLEANUP)
    assert done.returncode == 0
    for word in ("yes", "ask", "plan is shown"):
        assert word not in done.stdout.replace("without asking", "")


@acts
@pytest.mark.safety
@pytest.mark.parametrize("command", ["clean --yes", "run --once --enforce"])
def test_what_is_typed_is_not_shortened_by_a_file(
    demo: DemoNode, tmp_path: Path, command: str
) -> None:
    """The demo's dead are three hours old; budgets and a rule would have them go at once."""
    config = tmp_path / "config.toml"
    config.write_text(
        'cleanup = { max_runtime_dir_age = "1m", max_runtime_dir_size = "1B", settle = "0s" }\n'
        '[[rule]]\nname = "hasty"\nmatch = { id = "no-*" }\nthreshold = "0s"\ngrace = "0s"\n'
    )
    before = picture(demo)
    words = (*command.split(), "--config", str(config), "--grace", "0s", *tree(demo))
    done = program(demo, *words, "--threshold", "24h")
    assert picture(demo) == before, done.stderr
    done = program(demo, *words, "--threshold", "1h")
    assert picture(demo) != before, done.stderr
