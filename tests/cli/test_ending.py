"""How a command ends: one line and the right code for every fault that is not our own."""

import errno
import os
import subprocess
import sys

import click
import pytest

from reconciler.cli.app import app, run
from reconciler.cli.globals import Globals
from reconciler.cli.options import Command
from reconciler.errors import (
    ConfigError,
    ExitCode,
    NoContainerdError,
    ReconcilerError,
    RefusedError,
    UsageError,
)


def raising(error: BaseException) -> click.Command:
    @click.command(cls=Command)
    @click.pass_obj
    def command(said: Globals) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ReconcilerError("it broke", "mend it"), 1, "it broke; mend it"),
        (ReconcilerError("it broke"), 1, "it broke"),
        (UsageError("--state is empty", "name one"), 2, "--state is empty; name one"),
        (NoContainerdError("no containerd"), 69, "no containerd"),
        (RefusedError("a guard refused"), 77, "a guard refused"),
        (ConfigError("x.toml: bad"), 78, "x.toml: bad"),
        (OSError(errno.ENOSPC, "No space left on device", "/run/x"), 1,
         "'/run/x': No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", b"/run/\xff"), 77,
         "'/run/\\udcff': Permission denied; run as root"),
        (PermissionError(errno.EPERM, "Operation not permitted"), 77,
         "Operation not permitted; run as root"),
        (click.UsageError("No such thing."), 2, "no such thing; try `prog --help`"),
        (click.ClickException("Bad\nthing"), 1, "bad thing"),
    ],
)  # fmt: skip
def test_a_fault_of_theirs_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), [], "prog") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"containerd-reconciler: {line}\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130_without_a_word(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), [], "prog") == 130
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()), [], "prog")
    with pytest.raises(ExceptionGroup):
        run(raising(ExceptionGroup("tasks", [ZeroDivisionError()])), [], "prog")
    with pytest.raises(ExceptionGroup):
        run(raising(ExceptionGroup("tasks", [OSError(), ZeroDivisionError()])), [], "prog")


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.ENOSPC, "full"), 1), (RefusedError("no"), 77), (BrokenPipeError(), 141)],
)
def test_a_fault_of_theirs_is_the_same_out_of_a_group_of_tasks(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.cli.app._give_up_stdout", lambda: None)
    inner = ExceptionGroup("inner", [error])
    assert run(raising(ExceptionGroup("outer", [inner])), [], "prog") == code


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, [], "prog") == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) > 20


@pytest.mark.parametrize(("typed", "meant"), [("scna", "'scan'"), ("expalin", "'explain'")])
def test_a_command_nobody_knows_gets_a_hint(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [typed], "prog") == ExitCode.USAGE
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_nothing_to_stumble_over(closed: str) -> None:
    """And nothing that is opened later must get its number: what is said would be written there."""
    code = (
        "import os, sys, click\n"
        "from reconciler.cli.app import run\n"
        "from reconciler.cli.options import Command\n"
        "@click.command(cls=Command)\n"
        "@click.pass_obj\n"
        "def command(said):\n"
        "    print('data', sys.stdout.isatty())\n"
        "    click.echo('message', err=True)\n"
        "    sys.stdin.read()\n"
        "    return 10 if os.open('/dev/null', os.O_RDONLY) > 2 else 1\n"
        "sys.exit(run(command, [], 'prog'))\n"
    )
    shell = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(
        shell, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    assert done.returncode == 10, done.stderr


@pytest.mark.parametrize("code", list(ExitCode))
def test_the_code_a_command_returns_is_the_code_it_ends_with(code: ExitCode) -> None:
    @click.command(cls=Command)
    @click.pass_obj
    def command(said: Globals) -> int:
        return code

    assert run(command, [], "prog") == code
    assert code.meaning


def test_a_reader_that_went_away_is_not_an_error_of_ours() -> None:
    code = (
        "import sys, click\n"
        "from reconciler.cli.app import run\n"
        "from reconciler.cli.options import Command\n"
        "@click.command(cls=Command)\n"
        "@click.pass_obj\n"
        "def much(said):\n"
        "    for _ in range(100000): sys.stdout.write('x' * 80 + chr(10))\n"
        "sys.exit(run(much, [], 'prog'))\n"
    )
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            os.close(writer)
            os.read(reader, 10)
            os.close(reader)
            _, err = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == 141
    assert err == ""
