"""Run the tests: all of them, or with arguments those that pytest is given them for.

    python -m tests                    everything but soaks and benchmarks
    python -m tests tests/decide -x    as pytest takes it

Tests that need nothing of the machine but a processor run beside the others, in a process of their
own and of a low priority, so that nobody who measures time notices: half of the rest waits for a
containerd, a daemon, a period. What that one printed comes last. Tests that start a shim, or what
passes for one, stay in one process: to whoever cleans, a shim of somebody else's that is just
ending is a shim that may need what is cleaned.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

_ASIDE: Final = (
    *("contrib", "decide", "loop", "model", "present", "replay", "settings"),
    *("telemetry", "tooling"),
    *("journal/test_counting.py", "journal/test_lines.py", "journal/test_reader.py"),
    *("safety/test_bounded.py", "safety/test_histories.py", "safety/test_owners.py"),
)
ASIDE: Final = tuple(f"tests/{name}" for name in _ASIDE)
"""Tests that start no shim, mount nothing and measure no time but that of a processor."""

LATER: Final = ("tests/packages",)
"""Tests of what `make pyz deb` makes; `.ci/run` runs them once that is there."""

PYTEST: Final = (sys.executable, "-m", "pytest", "--durations=25", "--durations-min=5")


def main(arguments: Sequence[str]) -> int:
    """Run the tests and give an exit code, not 0 if anything failed."""
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(["nice", "-n", "10", *PYTEST, *ASIDE], stdout=said, stderr=said) as aside,
    ):
        try:
            code = subprocess.run(
                [*PYTEST, *(f"--ignore={folder}" for folder in (*ASIDE, *LATER))], check=False
            ).returncode
            code = aside.wait() or code
        finally:
            aside.terminate()
        said.seek(0)
        sys.stdout.write(f"\naside ({', '.join(ASIDE)}):\n{said.read().decode(errors='replace')}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
