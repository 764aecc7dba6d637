"""Run the tests: all of them, or with arguments those that pytest is given them for.

    python -m tests                    everything but soaks and benchmarks
    python -m tests tests/decide -x    as pytest takes it

Two processes run them beside each other, for half of the tests wait: for a containerd, a daemon, a
period. One has what waits, and whatever measures how long something takes. The other has what needs
a processor, at a lower priority, so that nobody who measures time notices; what it printed comes
last. Both clean, and both start shims, also such as nobody can say anything about, which rightly
keep a cgroup. So the other has a pid namespace of its own: neither counts the other's as shims. All
else they share, so what a test names must be its own. Names that are the same on each run are those
of the demo: whatever uses that is aside, and no bundle of an end-to-end test has such an id.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TESTS: Final = Path(__file__).parent

_CLI: Final = {one.name for one in (_TESTS / "cli").glob("test_*.py")} - {
    "test_bad_input.py",  # containerd is proven down by a lock that nobody has: only
    "test_rescue.py",  # the first pid namespace shows all locks
}

_ASIDE: Final = (
    *("contrib", "decide", "demo", "journal", "kernel", "loop", "model", "present", "replay"),
    *("settings", "telemetry", "tooling", "watch", "fleet", "worker/debris"),
    *(f"cli/{name}" for name in sorted(_CLI)),
    *(f"daemon/test_{name}.py" for name in ("beside", "browser", "garbage", "reload", "service")),
    *(
        f"safety/test_{name}.py"
        for name in (
            *("bounded", "debris_histories", "ending_the_wrong_one", "histories"),
            *("out_of_reach_neighbours", "owners", "race", "syscall_faults", "working"),
        )
    ),
)
ASIDE: Final = tuple(f"tests/{name}" for name in _ASIDE)
"""Tests that measure no time but that of a processor, and do not have containerd proven down."""

ALONE: Final = ("tests/safety/test_kill_matrix_strace.py",)
"""Tests that count what a look at all processes opens, so they come when the others have ended."""

LATER: Final = ("tests/packages", "tests/e2e/test_docker.py", "tests/e2e/test_sandboxes.py")
"""Tests of what `make pyz deb` makes; `.ci/run` runs them once that is there. And those that need
Docker or another containerd, which `make versions` runs."""

APART: Final = (
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    *("bash", "-c", '"$@"; exit $?', "init"),
)
"""Runs a program in a pid namespace, below an init that reaps whoever is left to it, and without
which all of them end."""

PYTEST: Final = (sys.executable, "-m", "pytest", "--durations=25", "--durations-min=5")


def main(arguments: Sequence[str]) -> int:
    """Run the tests and give an exit code, not 0 if anything failed."""
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            ["nice", "-n", "5", *(APART if os.geteuid() == 0 else ()), *PYTEST, *ASIDE],
            stdout=said,
            stderr=said,
        ) as aside,
    ):
        try:
            code = subprocess.run(
                [*PYTEST, *(f"--ignore={folder}" for folder in (*ASIDE, *ALONE, *LATER))],
                check=False,
            ).returncode
            code = aside.wait() or code
            code = subprocess.run([*PYTEST, *ALONE], check=False).returncode or code
        finally:
            aside.kill()
        said.seek(0)
        sys.stdout.write(f"\naside ({', '.join(ASIDE)}):\n{said.read().decode(errors='replace')}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
