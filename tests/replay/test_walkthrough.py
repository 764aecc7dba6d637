"""What contrib/commands shows of `replay` is what `replay` says."""

import re
from pathlib import Path

import pytest

from reconciler.cli.app import app, run
from tests.replay.make import JOURNALS

SHOWN = (Path(__file__).resolve().parents[2] / "contrib/commands/README.md").read_text()
SEED = JOURNALS / "seed.jsonl"
POLICY = """
mode = "enforce"
cleanup.grace = "5m"
rule = [{ name = "ask me first", match = { id = "no-pid" }, protect = true }]
"""


def shown(command: str) -> str:
    found = re.search(
        rf"^# containerd-reconciler {re.escape(command)}\n(.*?)^```",
        SHOWN,
        re.MULTILINE | re.DOTALL,
    )
    assert found, command
    return found[1]


def said(capfd: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = run(app, ["replay", str(SEED), *map(str, words)], "containerd-reconciler")
    out, err = capfd.readouterr()
    return code, out + err


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def test_a_plain_replay_says_what_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd) == (0, shown("replay seed.jsonl"))


def test_another_policy_says_what_is_shown(capfd: pytest.CaptureFixture[str], policy: Path) -> None:
    assert said(capfd, "--config", policy) == (0, shown("replay seed.jsonl --config policy.toml"))


def test_the_expectations_shown_are_met_by_the_policy_and_not_by_what_was_recorded(
    capfd: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    texts = re.findall(r"```toml\n(.*?)```", SHOWN, re.DOTALL)
    expected = tmp_path / "expect.toml"
    expected.write_text(next(text for text in texts if "[[expect]]" in text))
    assert said(capfd, "--expect", expected, "--config", policy)[0] == 0
    code, told = said(capfd, "--expect", expected)
    assert code == 1
    assert "default/no-pid: expected never to be cleaned, was after 2m00.0s" in told
    assert "default/no-runtime: expected to be cleaned within 5m..7m, was after 2m00.0s" in told
