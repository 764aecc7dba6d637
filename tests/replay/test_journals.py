"""The regressions: each journal decides again what it decided, and what was expected of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.testing.plugin import BuildJournal, ReplayJournal
from tests.replay.make import JOURNALS, STORIES, make
from tests.replay.stories import ENFORCE

NAMES = sorted(path.stem for path in JOURNALS.glob("*.jsonl"))


def test_every_regression_is_here() -> None:
    recorded = {"seed", "moby-50040", "shared-shim", "mass-death", "sandboxes"}
    assert set(NAMES) == STORIES.keys() | {f"containerd-{name}" for name in recorded}
    assert all((JOURNALS / f"{name}.expect.toml").exists() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_regression_decides_as_it_did_and_as_is_expected(
    replay_journal: ReplayJournal, name: str
) -> None:
    result = replay_journal(f"journals/{name}.jsonl", expect=f"journals/{name}.expect.toml")
    assert result.differences == []
    assert result.warnings == []


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_told_today_as_it_was_then(name: str, tmp_path: Path) -> None:
    """The writer is part of the format: what it writes must not change by accident."""
    made = tmp_path / "made.jsonl"
    make(name, made)
    stored = (JOURNALS / f"{name}.jsonl").read_bytes().splitlines()[1:]
    assert made.read_bytes().splitlines()[1:] == stored


def test_the_fixtures_build_and_replay(
    build_journal: BuildJournal, replay_journal: ReplayJournal, tmp_path: Path
) -> None:
    with build_journal(ENFORCE) as node:
        node.start("default/web")
        node.crash("default/web")
        node.wait("5m")
    assert replay_journal(node.path).cleaned["default/web"] == [pytest.approx(60, abs=2)]
    config = tmp_path / "config.toml"
    config.write_text('[cleanup]\ngrace = "2m"\n')
    changed = replay_journal(node.path, config=config)
    assert changed.cleaned["default/web"] == [pytest.approx(120, abs=2)]
    expected = tmp_path / "expect.toml"
    expected.write_text('[[expect]]\nbundle = "default/web"\ncleaned = "never"\n')
    with pytest.raises(pytest.fail.Exception, match="expected never to be cleaned"):
        replay_journal(node.path, expect=expected)


_USERS_TEST = """
def test_web(build_journal, replay_journal):
    with build_journal() as node:
        node.start("default/web")
        node.wait("1m")
    result = replay_journal(node.path)
    assert result.verdicts["default/web"].value == "running"
    assert result.cleaned == {}
"""


def test_the_plugin_works_in_a_test_suite_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(_USERS_TEST)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "reconciler.testing.plugin", "-p"]
    done = subprocess.run(
        [*words, "no:cacheprovider", "-W", "error", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
