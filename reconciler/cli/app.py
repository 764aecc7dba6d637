"""The program: its commands by name, each imported only when it is called, and how they end.

Every fault that is not our own ends in one line and the right exit code. An exception that is our
own fault passes through with its traceback: it is to be reported.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from reconciler.cli.completing import HELP
from reconciler.cli.globals import merge
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode, ReconcilerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


COMMANDS: Final = {
    "run": "Watch, decide, show; remove what is due with --enforce.",
    "daemon": "The same as a service: configuration, endpoints, metrics, reload.",
    "scan": "Look once: every bundle with its verdict and the reason.",
    "explain": "Show all evidence about one bundle and what follows from it.",
    "clean": "Remove what is due, once.",
    "record": "Watch and write a journal of all that was seen and decided.",
    "replay": "Decide again what a journal recorded, by the same policy or another.",
    "config": "Check, show and describe the configuration.",
    "status": "Ask the running daemon what it sees and does.",
    "demo": "Show all of it on a throw-away tree; no containerd, no root needed.",
    "completion": "Print what makes bash, zsh or fish complete command lines.",
    "version": "Show the version.",
    "help": "Show what a command does and takes.",
}


class App(click.Group):
    """Finds the commands lazily, so that `--help` and `--version` need none of them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(cmd_name, COMMANDS, n=1)
            if near:
                ctx.fail(f"no such command {cmd_name!r}; did you mean {near[0]!r}?")
            return None
        command = getattr(import_module(f"reconciler.cli.commands.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        from click.shell_completion import CompletionItem

        # click would import every command to read what it does.
        named = [
            CompletionItem(name, help=does)
            for name, does in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    @override
    def invoke(self, ctx: click.Context) -> object:
        ctx.obj = merge(ctx)
        return super().invoke(ctx)


app = App(
    name="containerd-reconciler",
    params=global_options(),
    help="Finds what containerd leaves behind, proves it dead, and removes it completely.",
    epilog="Options may stand before or after the command. Nothing is removed unless you say so.",
    no_args_is_help=True,
)


_NO_PERMISSION = (errno.EACCES, errno.EPERM)
_PIPE_CLOSED = 141
"""As a shell reports a program that SIGPIPE ended; scripts with ``pipefail`` know it."""


def run(command: click.Command, args: Sequence[str], program: str) -> int:
    """Run a command and return its exit code.

    Args:
        command: What to run.
        args: The command line without the program's name.
        program: The program's name, for ``--help`` and ``--version``.
    """
    _open_standard_streams()
    try:
        # Not `command.main`: it ends the process itself where a pipe is closed.
        context = command.make_context(program, list(args), help_option_names=HELP)
        with _one_at_a_time(), context as ctx:
            code = command.invoke(ctx)
        sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit, click.Abort) as end:
        return _click(end, program)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except ReconcilerError as error:
        _complain(str(error))
        return error.code
    except BrokenPipeError:
        _give_up_stdout()
        return _PIPE_CLOSED
    except OSError as error:
        return _world(error)
    return code if isinstance(code, int) else ExitCode.DONE


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Take an error out of the groups in which task groups wrap it."""
    try:
        yield
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if isinstance(alone, (ReconcilerError, OSError)):
            raise alone from None
        raise


def _open_standard_streams() -> None:
    """Let nothing that is opened later take the place of a stream that was closed (``>&-``)."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for as long as we live
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above


def _click(end: click.ClickException | click.exceptions.Exit | click.Abort, program: str) -> int:
    match end:
        case click.exceptions.Exit():
            return end.exit_code
        case click.Abort():
            return ExitCode.INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            click.echo(end.format_message(), err=True)
            return ExitCode.USAGE
        case click.UsageError():
            where = program if end.ctx is None else end.ctx.command_path
            _complain(f"{_one_line(end.format_message())}; try `{where} --help`")
            return ExitCode.USAGE
        case _:
            _complain(_one_line(end.format_message()))
            return ExitCode.ERROR


def _world(error: OSError) -> int:
    what = os.strerror(error.errno) if error.errno is not None else str(error)
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)!r}: "
    if error.errno in _NO_PERMISSION:
        _complain(f"{where}{what}; run as root")
        return ExitCode.REFUSED
    _complain(f"{where}{what}")
    return ExitCode.ERROR


def _complain(line: str) -> None:
    from reconciler.cli.output import Output  # not for those who have nothing to complain of

    with contextlib.suppress(OSError):
        Output().complain(line)


def _one_line(text: str) -> str:
    joined = " ".join(text.split()).removesuffix(".").replace(". Did you mean", "; did you mean")
    return joined[:1].lower() + joined[1:]


def _give_up_stdout() -> None:
    """Keep the interpreter from complaining at exit that it cannot flush what nobody reads."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
