"""The program as a process, on a real tree of its own: data, messages, exit codes, clean ends."""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.demo.cast import CAST, Promise
from reconciler.demo.node import DemoNode
from reconciler.demo.promises import compare, picture, pictures

PROGRAM = [sys.executable, "-m", "reconciler"]
SECONDS = 50


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoNode]:
    # Not in /dev, which no configuration may name; and short, for the sockets' sake.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        with DemoNode(time.time()) as node:
            yield node


def environment(node: DemoNode | None = None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    locks = "/nonexistent" if node is None else os.fsdecode(node.top) + "/locks"
    disk = {"CONTAINERD_RECONCILER_CONTAINERD_ALLOW_DISK": "true"}  # where /tmp is one
    return {**kept, **disk, "RECONCILER_LOCK_DIR": locks, "LC_ALL": "C.UTF-8"}


def tree(node: DemoNode) -> list[str]:
    """Name the demo's tree, in which no containerd is asked."""
    layout = node.layout
    return [
        *("--state", os.fsdecode(layout.state), "--root", os.fsdecode(layout.root)),
        "--without-containerd",
    ]


def program(node: DemoNode | None, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        env=environment(node),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_scan_says_of_every_bundle_what_it_is(node: DemoNode) -> None:
    done = program(node, "scan", "-o", "json", *tree(node))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {(one["namespace"], one["id"]): one for one in told["bundles"]}
    for role in CAST:
        one = found.pop((role.key.namespace.decode(), role.key.id.decode()))
        assert one["verdict"] == role.verdict.value, one
        assert one["containerd"] == "containerd waived"
        if role.missing not in ((), (b"*",)):
            names = {name.decode() for name in role.missing} - {"state.json"}
            assert names <= set(one["missing"])
    assert found == {}
    assert told["summary"]["leftovers"] == sum(role.verdict.value == "leftover" for role in CAST)
    assert "bundles" in done.stderr


def test_scan_changes_nothing(node: DemoNode) -> None:
    before = picture(Path(os.fsdecode(node.top)))
    for form in ("table", "wide", "json", "name"):
        assert program(node, "scan", "-o", form, *tree(node)).returncode == 0
    assert picture(Path(os.fsdecode(node.top))) == before


def test_data_goes_to_stdout_and_messages_to_stderr(node: DemoNode) -> None:
    done = program(node, "scan", *tree(node))
    assert done.stdout.splitlines()[0].split() == [
        *("NAMESPACE", "ID", "VERDICT", "PHASE", "DUE", "AGE", "SIZE", "REASON"),
    ]
    assert len(done.stdout.splitlines()) == 1 + len(CAST)
    assert "\x1b" not in done.stdout + done.stderr
    quiet = program(node, "scan", "-q", *tree(node))
    assert quiet.stderr == ""


def test_names_are_what_explain_takes(node: DemoNode) -> None:
    names = program(node, "scan", "-o", "name", *tree(node)).stdout.splitlines()
    assert len(names) == len(CAST)
    done = program(node, "explain", names[0], *tree(node))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{names[0]}: ")


def test_scan_exits_10_where_there_are_leftovers_if_asked(node: DemoNode) -> None:
    assert program(node, "scan", "--exit-code", *tree(node)).returncode == 10
    only = ["-n", "demo-pods"]
    assert program(node, "scan", "--exit-code", *only, *tree(node)).returncode == 0


def test_scan_sees_only_the_namespace_it_is_asked_for(node: DemoNode) -> None:
    done = program(node, "-n", "demo-pods", "scan", "-o", "name", *tree(node))
    assert {name.split("/")[0] for name in done.stdout.splitlines()} == {"demo-pods"}


def test_explain_shows_the_evidence_and_what_happens_next(node: DemoNode) -> None:
    done = program(node, "explain", "demo-crashed/no-run", "-o", "json", *tree(node))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bundle"]["id"] == "no-runtime"
    assert told["bundle"]["missing"] == ["runtime"]
    assert "removed" in told["next"]
    pieces = {piece["evidence"]: piece["value"] for piece in told["evidence"]}
    assert pieces["shim"] == "dead"
    assert pieces["init"] == "dead"
    done = program(node, "explain", "demo/web", *tree(node))
    assert "demo/web: running, by rule 3" in done.stdout
    assert "nothing: only leftovers are ever removed" in done.stdout


def test_explain_of_nothing_is_an_error_with_a_hint(node: DemoNode) -> None:
    done = program(node, "explain", "demo/wbe", *tree(node))
    assert done.returncode == 1
    assert done.stderr == (
        "containerd-reconciler: there is no bundle demo/wbe; did you mean demo/web?\n"
    )


def test_a_dry_run_changes_nothing_and_says_what_would_go(node: DemoNode) -> None:
    before = picture(Path(os.fsdecode(node.top)))
    done = program(node, "clean", "--dry-run", "-o", "json", *tree(node))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["id"] for one in told["results"]} == {
        role.key.id.decode() for role in CAST if role.verdict.value == "leftover"
    }
    assert {one["result"] for one in told["results"]} == {"skipped"}
    assert picture(Path(os.fsdecode(node.top))) == before


def test_clean_removes_the_dead_and_nothing_else(node: DemoNode) -> None:
    before = pictures(node.layout)
    verdicts = {role.key: {role.verdict} for role in CAST}
    done = program(node, "clean", "--grace", "0s", "-o", "json", *tree(node))
    told = json.loads(done.stdout)
    results = {one["id"]: one for one in told["results"]}
    dead = [role for role in CAST if role.verdict.value == "leftover"]
    for role in dead:
        expected = "cleaned" if role.promise is Promise.CLEANED else "blocked"
        assert results[role.key.id.decode()]["result"] == expected, results
    assert len(results) == len(dead)
    assert done.returncode == 75
    assert "has-data blocked" in done.stderr
    for kept in compare(node, before, verdicts):
        # Nobody was killed here. Where options.json is gone nothing names our own runc root.
        if not kept.role.killed and kept.role.missing != (b"*",):
            assert not kept.broken, kept
    steps = results["complete"]["steps"]
    assert steps[-1]["step"] == "bundle"
    assert all(set(step) >= {"step", "result", "detail", "seconds"} for step in steps)

    (Path(os.fsdecode(node.layout.tasks)) / "demo-crashed/has-data/rootfs/data").unlink()
    assert program(node, "clean", "--grace", "0s", *tree(node)).returncode == 0
    again = program(node, "clean", "--grace", "0s", "-o", "json", *tree(node))
    assert again.returncode == 0
    assert json.loads(again.stdout)["results"] == []


def test_clean_leaves_what_is_not_old_enough(node: DemoNode) -> None:
    done = program(node, "clean", "--grace", "0s", "--threshold=24h", "-o", "json", *tree(node))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["results"] == []
    assert told["summary"]["waiting"] == sum(role.verdict.value == "leftover" for role in CAST)


def test_containerd_cleanup_is_clean(node: DemoNode) -> None:
    code = "from reconciler.cli import cleanup_main; cleanup_main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--threshold=24h", "--dry-run", *tree(node)],
        env=environment(node),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was touched" in done.stderr


def test_a_second_instance_is_refused(node: DemoNode) -> None:
    with running(node, "run", "--enforce", "--grace", "1h", *tree(node)) as first:
        wait_for(first, '"event":"verdict"')
        done = program(node, "clean", "--grace", "0s", *tree(node))
        assert done.returncode == 77
        assert str(first.pid) in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_run_in_order(node: DemoNode, number: int, code: int) -> None:
    with running(node, "run", *tree(node)) as child:
        wait_for(child, '"event":"verdict"')
        child.send_signal(number)
        assert child.stderr is not None
        rest = child.stderr.read()
        assert child.wait(timeout=10) == code
        assert "Traceback" not in rest


def test_a_run_enforcing_notices_a_death_and_cleans(node: DemoNode) -> None:
    with running(node, "run", "--enforce", "--grace", "1s", *tree(node)) as child:
        wait_for(child, '"id":"web","verdict":"running"')
        node.kill_victims()
        wait_for(child, '"event":"cleaned","namespace":"demo","id":"victim"')
    assert not os.path.lexists(node.layout.bundle(next(r.key for r in CAST if r.killed)))


def test_run_once_observing_looks_and_ends(node: DemoNode) -> None:
    before = picture(Path(os.fsdecode(node.top)))
    done = program(node, "run", "--once", *tree(node))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    records = [json.loads(line) for line in done.stderr.splitlines()]
    judged = {one["id"] for one in records if one["event"] == "verdict"}
    assert judged == {role.key.id.decode() for role in CAST}
    assert picture(Path(os.fsdecode(node.top))) == before


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda top: top / "nothing", 1, "does not exist"),
        (lambda top: made(top / "etc"), 1, "is not a containerd state directory"),
        (lambda top: written(top / "file"), 1, "is not a directory"),
        (lambda _: Path("/"), 2, "--state: '/' is not containerd's alone"),
    ],
)
@pytest.mark.parametrize("command", ["scan", "clean", "run --once", "explain a/b"])
def test_a_wrong_state_directory_is_one_line_and_a_hint(
    tmp_path: Path, make: object, code: int, said: str, command: str
) -> None:
    state = make(tmp_path)  # type: ignore[operator]
    done = program(None, *command.split(), "--state", str(state))
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "; " in done.stderr


def test_no_permission_is_77_and_says_run_as_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    state = made(tmp_path / "run")
    (state / "io.containerd.runtime.v2.task").mkdir(mode=0o700)
    code = (  # imports first: the interpreter may lie where nobody may read
        "import os, sys, reconciler.cli.session, reconciler.cli.commands.scan\n"
        "from reconciler.cli.app import app\n"
        "from reconciler.cli.ending import run\n"
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


def test_a_clean_without_any_proof_about_containerd_is_69_and_removes_nothing(
    node: DemoNode,
) -> None:
    before = picture(Path(os.fsdecode(node.layout.tasks)))
    args = [arg for arg in tree(node) if arg != "--without-containerd"]
    done = program(node, "clean", "--grace", "0s", *args)
    assert done.returncode == 69
    assert "containerd" in done.stderr
    assert picture(Path(os.fsdecode(node.layout.tasks))) == before


def test_on_a_terminal_clean_shows_the_plan_and_takes_no_for_an_answer(node: DemoNode) -> None:
    before = picture(Path(os.fsdecode(node.layout.tasks)))
    code, said = on_terminal(node, ["clean", "--grace", "0s", *tree(node)], b"n\n")
    assert code == 0
    assert b"no-runtime" in said
    assert b"Remove 5 bundles?" in said
    assert b"nothing was touched" in said
    assert picture(Path(os.fsdecode(node.layout.tasks))) == before


def test_the_version_answers_at_once() -> None:
    best = min(timed("--version") for _ in range(5))
    assert best < 0.5  # the figure is a benchmark's; this only notices an import of everything


def test_the_version_imports_neither_the_loop_nor_the_renderer() -> None:
    code = (
        "import sys\n"
        "from reconciler.cli.app import app\n"
        "from reconciler.cli.ending import run\n"
        "assert run(app, ['--version'], 'prog') == 0\n"
        "heavy = {'anyio', 'rich', 'structlog', 'msgspec', 'grpclib', 'asyncio'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_color_is_honoured(node: DemoNode) -> None:
    args = ["scan", *tree(node)]
    assert b"\x1b[3" in on_terminal(node, args, b"")[1]
    assert b"\x1b[3" not in on_terminal(node, args, b"", NO_COLOR="1")[1]


def timed(*args: str) -> float:
    begun = time.monotonic()
    assert program(None, *args).returncode == 0
    return time.monotonic() - begun


class running:  # noqa: N801 - reads like a function
    """A run of the program that is ended, whatever happens."""

    def __init__(self, node: DemoNode, *args: str) -> None:
        self._child = subprocess.Popen(
            [*PROGRAM, *args],
            env=environment(node),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._child

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._child.kill()
        if self._child.stderr is not None:
            self._child.stderr.close()


def wait_for(child: subprocess.Popen[str], text: str) -> None:
    assert child.stderr is not None
    seen: list[str] = []
    for line in child.stderr:  # pytest's timeout is the deadline
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"ended without {text!r}:\n{''.join(seen)}")


def on_terminal(
    node: DemoNode, args: list[str], typed: bytes, **variables: str
) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    os.set_inheritable(theirs, True)
    child = subprocess.Popen(
        [*PROGRAM, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(node), "TERM": "xterm", "COLUMNS": "200", **variables},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, typed)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # the other end is closed: EIO
        pass
    finally:
        os.close(ours)
    return child.wait(timeout=SECONDS), said


def made(path: Path) -> Path:
    path.mkdir()
    return path


def written(path: Path) -> Path:
    path.write_text("")
    return path
