"""No run of the tests turns red by luck: examples are the same each time, unless one explores."""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SOURCE = """
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

@given(number=st.integers(0, 1 << 30))
def test_it(number: int) -> None:
    with Path("drawn").open("a") as drawn:
        drawn.write(f"{number}\\n")
"""


def drawn(top: Path, *options: str) -> list[str]:
    """Run a property under the suite's own settings; give its examples."""
    (top / "drawn").unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=top,
        env={name: value for name, value in os.environ.items() if name != "RECONCILER_REQUIRE_E2E"},
        check=True,
        capture_output=True,
        timeout=50,
    )
    return (top / "drawn").read_text().splitlines()


def test_examples_are_the_same_in_each_run_and_others_where_one_explores(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py"):
        (tmp_path / name).write_bytes((TOP / name).read_bytes())
    (tmp_path / "tests" / "test_it.py").write_text(SOURCE)
    usual = drawn(tmp_path)
    assert drawn(tmp_path) == usual
    explored = drawn(tmp_path, "--hypothesis-profile=explore")
    assert not set(usual) >= set(explored)
    assert len(explored) == 10 * len(usual)
