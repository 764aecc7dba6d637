"""Nobody removes by surprise: a file, a habit or a script alone never makes a command remove."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.demo.node import DemoNode
from tests.cli.program import acts, environment, program, tree

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
    command = [sys.executable, "-c", "from reconciler.cli import cleanup_main; cleanup_main()"]
    done = subprocess.run(
        [*command, "--grace", "0s", *tree(demo)],
        env=environment(demo),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
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
