"""Bad input, no permission, terminals and pipes: how the program as a process meets them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.demo.node import DemoNode
from reconciler.demo.promises import picture
from tests.cli.program import (
    SECONDS,
    acts,
    environment,
    on_terminal,
    program,
    running,
    timed,
    tree,
    wait_for,
)


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda top: top / "nothing", 69, "does not exist"),
        (lambda top: made(top / "etc"), 69, "is not a containerd state directory"),
        (lambda top: written(top / "file"), 69, "is not a directory"),
        (lambda _: Path("/"), 2, "--state: '/' is not containerd's alone"),
    ],
)
@pytest.mark.parametrize("command", ["scan", "clean", "run --once", "explain a/b"])
def test_a_wrong_state_directory_is_one_line_and_a_hint(
    tmp_path: Path, make: Callable[[Path], Path], code: int, said: str, command: str
) -> None:
    done = program(None, *command.split(), "--state", str(make(tmp_path)))
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "; " in done.stderr


@acts
@pytest.mark.parametrize("there", [False, True])
def test_a_rescue_before_containerds_first_start_has_nothing_to_do(
    tmp_path: Path, there: bool
) -> None:
    state = tmp_path / "state"
    if there:
        state.mkdir()
    done = program(None, "clean", "--rescue", "--state", str(state), "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr


def test_a_rescue_without_proof_that_containerd_is_down_removes_nothing(demo: DemoNode) -> None:
    before = picture(Path(os.fsdecode(demo.layout.tasks)))
    args = [arg for arg in tree(demo) if arg != "--without-containerd"]
    done = program(demo, "clean", "--rescue", *args)
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert "is --root right?" in done.stderr
    assert picture(Path(os.fsdecode(demo.layout.tasks))) == before


def test_no_permission_is_77_and_says_run_as_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    state = made(tmp_path / "run")
    (state / "io.containerd.runtime.v2.task").mkdir(mode=0o700)
    code = (  # imports first: the interpreter may lie where nobody may read
        "import os, sys, reconciler.cli.commands.scan\n"
        "import reconciler.cli.scanning, reconciler.cli.setup\n"
        "from reconciler.cli.app import app\n"
        "from reconciler.cli.app import run\n"
        "os.chdir(sys.argv[1]), os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "sys.exit(run(app, ['scan', '--state', sys.argv[2]], 'containerd-reconciler'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(state)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    assert done.stderr.count("\n") == 1
    assert "run as root" in done.stderr


@acts
def test_a_clean_without_any_proof_about_containerd_is_69_and_removes_nothing(
    demo: DemoNode,
) -> None:
    before = picture(Path(os.fsdecode(demo.layout.tasks)))
    args = [arg for arg in tree(demo) if arg != "--without-containerd"]
    done = program(demo, "clean", "--yes", "--grace", "0s", *args)
    assert done.returncode == 69
    assert "containerd" in done.stderr
    assert picture(Path(os.fsdecode(demo.layout.tasks))) == before


@acts
def test_on_a_terminal_clean_shows_the_plan_and_takes_no_for_an_answer(demo: DemoNode) -> None:
    before = picture(Path(os.fsdecode(demo.layout.tasks)))
    code, said = on_terminal(demo, ["clean", "--grace", "0s", *tree(demo)], b"n\n")
    assert code == 0
    assert b"no-runtime" in said
    assert b"Remove 5 bundles?" in said
    assert b"nothing was touched" in said
    assert picture(Path(os.fsdecode(demo.layout.tasks))) == before


@acts
def test_where_nothing_is_due_nothing_is_asked_and_nothing_begun(demo: DemoNode) -> None:
    """What fell due between the plan and the act would be removed without a yes."""
    words = ["clean", "--grace", "0s", "--threshold", "24h", *tree(demo)]
    with running(demo, "run", "-v", "--enforce", "--grace", "1h", *tree(demo)) as holder:
        wait_for(holder, '"event":"bundle.judged"')  # it holds the lock: beginning would be refused
        code, said = on_terminal(demo, words, b"")
    assert code == 0
    assert b"nothing to do; 5 leftovers not due yet" in said
    assert b"Remove" not in said


def test_the_version_answers_at_once() -> None:
    best = min(timed("--version") for _ in range(5))
    assert best < 0.5  # the figure is a benchmark's; this only notices an import of everything


def test_the_version_imports_neither_the_loop_nor_the_renderer() -> None:
    code = (
        "import sys\n"
        "from reconciler.cli.app import app\n"
        "from reconciler.cli.app import run\n"
        "assert run(app, ['--version'], 'prog') == 0\n"
        "heavy = {'anyio', 'rich', 'structlog', 'msgspec', 'grpclib', 'asyncio'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_color_is_honoured(demo: DemoNode) -> None:
    args = ["scan", *tree(demo)]
    assert b"\x1b[3" in on_terminal(demo, args, b"")[1]
    assert b"\x1b[3" not in on_terminal(demo, args, b"", NO_COLOR="1")[1]


def made(path: Path) -> Path:
    path.mkdir()
    return path


def written(path: Path) -> Path:
    path.write_text("")
    return path
