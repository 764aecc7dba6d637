"""The tree keeps its shape, and the check that says so can say otherwise."""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def check(top: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, TOP / ".ci" / "tree.py", top],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_this_tree_has_no_finding() -> None:
    assert check(TOP) == (0, [])


@pytest.mark.parametrize(
    ("lines", "findings"), [(400, []), (401, ["long.py: 401 lines, the limit is 400"])]
)
def test_a_module_has_at_most_400_lines(tmp_path: Path, lines: int, findings: list[str]) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * lines)
    assert check(tmp_path) == (len(findings), findings)


def test_generated_modules_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "tasks_pb2.py").write_text("x = 1\n" * 500)
    assert check(tmp_path) == (0, [])


# In pieces, as this file is part of the tree that is checked.
@pytest.mark.parametrize(
    "words",
    [
        ("https://py", "pi.org/simple"),
        ("https://files.python", "hosted.org/packages"),
        ("registry.npm", "js.org"),
        ("/wo", "rk/main/reconciler"),
        ("/tm", "p/v/bin/python"),
        ("#!/roo", "t/.pyenv/shims/python3"),
    ],
    ids="".join,
)
def test_a_word_out_of_place_is_found_with_its_line(tmp_path: Path, words: tuple[str, str]) -> None:
    (tmp_path / "setup.cfg").write_bytes(b"\xff\n" + "".join(words).encode() + b"\n")
    code, (finding,) = check(tmp_path)
    assert code == 1
    assert finding.startswith("setup.cfg:2: ")


@pytest.mark.parametrize(
    "text", ["/tmp/vault", "a/work/mainly", "/var/lib/work/main", "happy.pip.org"]
)
def test_ordinary_words_are_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.md").write_text(text)
    assert check(tmp_path) == (0, [])
