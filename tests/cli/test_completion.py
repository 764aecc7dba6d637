"""What Tab offers, in real shells too: fitting names, else nothing, and never an error."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from reconciler.cli.app import COMMANDS, app
from reconciler.cli.commands.clean import unattended
from reconciler.cli.commands.completion import PROGRAMS
from reconciler.cli.completing import HELP, SHELLS, VARIABLE, answer
from reconciler.cli.globals import UNATTENDED
from reconciler.demo.node import DemoNode
from tests.cli.program import SECONDS, environment, program

STATE = "/nonexistent/containerd"
TAKES = {
    r"FILE|PATH|SOCKET|OUT\.html": "file",
    r"DIR": "dir",
}


class Typing:
    """Somebody who types, and the shell that asks what may come next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._set = monkeypatch.setenv
        self._capsys = capsys

    def offered(self, line: str, command: click.Command = app) -> list[str]:
        """Give what may stand at the end of a line, without the word for plain text."""
        words = line.split(" ")
        self._set("COMP_WORDS", line)
        self._set("COMP_CWORD", str(len(words) - 1))
        answer(command, words[0], "bash_complete")
        out, err = self._capsys.readouterr()
        assert err == ""
        return [one.removeprefix("plain,") for one in out.splitlines() if one]


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typing:
    """Nobody has typed yet, and there is no configuration."""
    return Typing(monkeypatch, capsys)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with bundles, and names that nobody should put into a command line."""
    tasks = tmp_path / "state" / "io.containerd.runtime.v2.task"
    for name in ("demo/web", "demo/worker", "k8s.io/web", "k8s.io/0123", "k8s.io/.hidden"):
        (tasks / name).mkdir(parents=True)
    for name in ("k8s.io/w$(reboot)", "k8s.io/w;x", "k8s.io/w\nx", "-n/web", "w w/x"):
        (tasks / name).mkdir(parents=True)
    return tasks.parent


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("containerd-reconciler sc", ["scan"]),
        ("containerd-reconciler nonsense", []),
        ("containerd-reconciler rnu ", []),
        ("containerd-reconciler scan --no-h", ["--no-headers"]),
        ("containerd-reconciler -o j", ["json", "journal"]),
        ("containerd-reconciler scan -o w", ["wide"]),
        ("containerd-reconciler config s", ["schema", "show"]),
        ("containerd-reconciler help ex", ["explain"]),
        ("containerd-reconciler scan --verdict running,unl", []),
        ("containerd-reconciler scan --verdict running,or", ["running,orphaned"]),
        ("containerd-reconciler completion ", list(SHELLS)),
        ("containerd-reconciler run --backend in", ["inotify"]),
        ("containerd-reconciler --state /r", ["dir,/r"]),
        ("containerd-reconciler config check x", ["file,x"]),
        ("containerd-reconciler replay x", ["file,x"]),
    ],
)
def test_words_that_fit_are_offered(typing: Typing, line: str, offered: list[str]) -> None:
    assert typing.offered(line) == offered


def test_every_command_is_offered_with_none_of_them_read(typing: Typing) -> None:
    offered = typing.offered("containerd-reconciler ")
    assert offered == list(COMMANDS)
    code = (
        "import sys; from reconciler.cli import main\n"
        "try: main()\n"
        "finally: print(*(m for m in sys.modules if m.startswith('reconciler.cli.commands')))"
    )
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": "containerd-reconciler ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [*(f"plain,{name}" for name in COMMANDS), ""], done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("explain ", ["demo/web", "demo/worker", "k8s.io/0123", "k8s.io/web"]),
        ("explain k8s.io/", ["k8s.io/0123", "k8s.io/web"]),
        ("scan 01", ["0123"]),
        ("clean -n demo w", ["web", "worker"]),
        ("-n demo clean w", ["web", "worker"]),
        ("config test demo/wo", ["demo/worker"]),
        ("status --clean demo/we", ["demo/web"]),
        ("status --clean web", []),
        ("scan -n ", ["demo", "k8s.io"]),
        ("explain nothing", []),
    ],
)
def test_bundles_are_offered_by_name(
    typing: Typing, state: Path, line: str, offered: list[str]
) -> None:
    assert typing.offered(f"containerd-reconciler --state {state} {line}") == offered


def test_the_unattended_command_is_completed_too(typing: Typing, state: Path) -> None:
    line = f"{UNATTENDED} --state {state} "
    assert typing.offered(f"{line}--thr", unattended()) == ["--threshold"]
    assert typing.offered(f"{line}demo/wo", unattended()) == ["demo/worker"]


@pytest.mark.parametrize("where", [STATE, "/", "/proc/self/mem"])
def test_nothing_is_offered_and_nothing_said_where_nothing_can_be_listed(
    typing: Typing, where: str
) -> None:
    assert typing.offered(f"containerd-reconciler --state {where} explain w") == []


def test_nothing_is_said_of_a_configuration_that_is_wrong(typing: Typing, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("mode = 'sometimes'\n")
    assert typing.offered(f"containerd-reconciler --config {wrong} explain ") == []


@pytest.mark.parametrize("asked", ["", "bash", "bash_sing", "tcsh_complete", "fish_complete"])
def test_a_variable_that_no_script_has_set_is_answered_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    monkeypatch.delenv("COMP_WORDS", raising=False)
    assert answer(app, PROGRAMS[0], asked) == 1
    assert capsys.readouterr() == ("", "")


def parameters(command: click.Command) -> Iterator[click.Parameter]:
    """Give all that a command takes, and its subcommands."""
    context = click.Context(command, help_option_names=HELP)  # it is kept with the command
    yield from command.get_params(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from parameters(inner)


def test_whatever_takes_a_name_of_something_completes_it(typing: Typing, state: Path) -> None:
    """So that an option which is added does, too."""
    context = click.Context(app, info_name="containerd-reconciler", help_option_names=HELP)
    context.set_parameter_source("state", click.core.ParameterSource.COMMANDLINE)
    seen = set()
    for param in parameters(app):
        asked = param.metavar or ""
        kinds = {kind for words, kind in TAKES.items() if re.search(words, asked)}
        context.params = {"state": str(state)}
        offered = param.shell_complete(context, "demo/we" if "ID" in asked else "")
        if "ID" in asked:
            assert [one.value for one in offered] == ["demo/web"], param
        elif kinds:
            assert {one.type for one in offered} == kinds, param
        seen.add(asked)
    assert {"FILE", "DIR", "NS/ID"} <= seen


# -------------------------------------------------------------------------------- real shells


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A path on which the programs are those of this environment."""
    for name in PROGRAMS:
        (tmp_path / name).symlink_to(Path(sys.prefix, "bin", name))
    return f"{tmp_path}:{os.environ['PATH']}"


STARTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}
READY = {
    "bash": "bind 'set enable-bracketed-paste off'; PS1=; source <({} completion bash)",
    "zsh": "PS1=; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D;"
    " source <({} completion zsh)",
}


class Shell:
    """A shell on a terminal."""

    def __init__(self, name: str, path: str) -> None:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            env = {**environment(), "PATH": path, "TERM": "dumb", "HOME": "/nonexistent"}
            os.execvpe(name, [name, *STARTS[name]], env)  # noqa: S606 - it is a shell
        self._said = b""

    def close(self) -> None:
        """Hang up."""
        os.close(self._fd)
        os.waitpid(self._pid, 0)

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> str:
        """Wait until it shows this, and give all that it has shown since the last time."""
        deadline = time.monotonic() + SECONDS
        while text.encode() not in self._said:
            left = deadline - time.monotonic()
            assert left > 0, self._said
            assert select.select([self._fd], [], [], left)[0], self._said
            self._said += os.read(self._fd, 4096)
        shown, self._said = self._said, b""
        return shown.decode(errors="replace")


@pytest.mark.parametrize("name", STARTS)
def test_a_shell_completes_command_option_and_bundle(name: str, path: str, state: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"not installed: {name}")
    shell = Shell(name, path)
    try:
        shell.type(f"{READY[name].format(PROGRAMS[0])}; echo rea''dy\n")
        shell.wait_for("ready")
        shell.type(f"containerd-reconciler --sta\t{state} expl\t")
        shell.wait_for("explain ")
        shell.type("demo/wo\t")
        shell.wait_for("demo/worker")
        shell.type("\x15echo do''ne\n")
        shown = shell.wait_for("done")
        assert "Traceback" not in shown
    finally:
        shell.close()


def test_fish_completes_command_option_and_bundle(path: str, state: Path, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("not installed: fish")
    script = "; ".join(
        [
            "containerd-reconciler completion fish | source",
            "complete -C 'containerd-reconciler expl'",
            f"complete -C 'containerd-reconciler --state {state} explain demo/wo'",
            f"complete -C 'containerd-reconciler --state {STATE} explain '",
        ]
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env={**environment(), "PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == (["explain", "demo/worker"], "")


def test_a_running_node_s_bundles_are_offered(demo: DemoNode) -> None:
    """A promise kept by the program itself, not by its parts."""
    name = str(demo.fixtures[0].key)
    done = subprocess.run(
        [sys.executable, "-m", "reconciler"],
        env={
            **environment(demo),
            VARIABLE: "bash_complete",
            "COMP_WORDS": f"x --state {os.fsdecode(demo.layout.state)} explain {name}",
            "COMP_CWORD": "4",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"plain,{name}\n", "")


def test_the_script_is_of_the_program_that_is_asked_for() -> None:
    for program_ in PROGRAMS:
        done = program(None, "completion", "bash", program_)
        assert f"-F _{program_.replace('-', '_')}_completion {program_}\n" in done.stdout
        assert done.stderr == ""
