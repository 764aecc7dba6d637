"""The exit code of a command: one line and the right code for every fault that is not our own.

An exception that is our own fault passes through with its traceback: it is to be reported.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence

import click

from reconciler.cli.completing import HELP
from reconciler.errors import ExitCode, ReconcilerError

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
