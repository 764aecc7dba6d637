"""A test that must run cannot be skipped in silence, and what it needs is asked for by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
MUST_RUN = ("containerd", "kernel")
SKIPPED = "import pytest\n\n\n" + "".join(
    f"@pytest.mark.{marker}\ndef test_{marker}():\n    pytest.skip('no luck')\n\n\n"
    for marker in MUST_RUN
)
WORKS = "import pytest\n\n\n@pytest.mark.containerd\ndef test_ok():\n    pass\n"


def run_pytest(
    top: Path, *, required: bool, source: str, uid: int = 0, programs: tuple[str, ...] = PROGRAMS
) -> tuple[int, str]:
    """Run a suite of one module, as this user, on a machine that has these programs."""
    (top / "tests").mkdir(exist_ok=True)
    for name in ("pyproject.toml", "tests/conftest.py"):
        (top / name).write_bytes((TOP / name).read_bytes())
    (top / "tests" / "test_it.py").write_text(source)
    (top / "somebody.py").write_text(f"import os\n\nos.geteuid = lambda: {uid}\n")
    (top / "bin").mkdir()
    for name in programs:
        (top / "bin" / name).touch(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "somebody"],
        cwd=top,
        env={
            **os.environ,
            "PATH": str(top / "bin"),
            "RECONCILER_REQUIRE_E2E": "1" if required else "0",
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_skip_is_a_skip_on_a_laptop(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, required=False, source=SKIPPED)
    assert code == 0, said
    assert "2 skipped" in said
    assert said.count("SKIPPED [1]") == len(MUST_RUN)


def test_a_skip_is_a_failure_where_it_must_run(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, required=True, source=SKIPPED + WORKS)
    assert code == 1
    assert "2 failed, 1 passed" in said
    for marker in MUST_RUN:
        assert f"FAILED tests/test_it.py::test_{marker} - RECONCILER_REQUIRE_E2E is set" in said
    assert "RECONCILER_REQUIRE_E2E is set, and this was skipped" in said


@pytest.mark.parametrize(
    ("uid", "programs", "why"),
    [
        (1000, PROGRAMS, "needs root to run a containerd of its own"),
        (0, PROGRAMS[1:], "not installed: containerd"),
    ],
)
def test_what_no_containerd_can_be_run_for_is_named_and_a_failure_where_it_must_run(
    tmp_path: Path, uid: int, programs: tuple[str, ...], why: str
) -> None:
    for required, expected, told in ((False, 0, "1 skipped"), (True, 1, "1 error")):
        top = tmp_path / str(expected)
        top.mkdir()
        code, said = run_pytest(top, required=required, source=WORKS, uid=uid, programs=programs)
        assert code == expected, said
        assert told in said
        assert why in said


def test_a_module_that_skips_itself_is_a_failure_where_it_must_run(tmp_path: Path) -> None:
    (tmp_path / "tests" / "more").mkdir(parents=True)
    (tmp_path / "tests" / "more" / "test_skips_itself.py").write_text(
        "import pytest\n\npytest.skip('no luck', allow_module_level=True)\n"
    )
    code, said = run_pytest(tmp_path, required=True, source=WORKS)
    assert code == pytest.ExitCode.INTERRUPTED, said
    assert "RECONCILER_REQUIRE_E2E is set, and this was skipped" in said


def test_a_run_without_end_to_end_tests_is_a_failure_where_they_must_run(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, required=True, source="def test_it():\n    pass\n")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no end-to-end test was found" in said


def packages(programs: Path, uid: int, *, required: bool = False) -> tuple[int, str]:
    """Ask for two packages on a machine that has one of them."""
    for name, body in {
        "dpkg-query": 'case "$*" in *" here") echo installed;; *) exit 1;; esac',
        "id": f"echo {uid}",
        "apt-get": 'echo "apt-get called" >&2; exit 1',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", TOP / ".ci" / "packages", "here", "absent"],
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "RECONCILER_REQUIRE_E2E": "1" if required else "",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_user_is_told_which_packages_are_missing(tmp_path: Path) -> None:
    code, said = packages(tmp_path, uid=1000)
    assert code == 0
    assert said.strip().endswith("(tests that need them are skipped): absent")


def test_a_missing_package_is_a_failure_where_it_must_be_there(tmp_path: Path) -> None:
    assert packages(tmp_path, uid=1000, required=True)[0] == 1
