"""`status`: asks the running daemon over its unix socket."""

import sys
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import Command, Form, Globals
from reconciler.cli.output import Output
from reconciler.errors import ExitCode, NoDaemonError, UsageError

if TYPE_CHECKING:
    from reconciler.cli.asking import Daemon

_INTERVAL = 1.0


@click.command(cls=Command, name="status")
@click.option(
    "--watch", is_flag=True, help="Show it live until Ctrl-C; -o json: a line each second."
)
@click.option("--reload", is_flag=True, help="Let it load its configuration anew, and wait.")
@click.option("--socket", metavar="PATH", help="The daemon's socket.  [http.socket]")
@click.pass_obj
def status(said: Globals, *, watch: bool, reload: bool, socket: str | None) -> int:
    """Show what the running daemon sees and does. Exits with 3 where none runs."""
    from reconciler.cli.asking import Daemon

    output = Output(quiet=said.quiet)
    if watch and reload:
        raise UsageError("--watch and --reload do not go together", "use one of them")
    is_stream = watch and said.form is Form.JSON
    if watch and not output.on_terminal and not is_stream:
        raise UsageError("--watch needs a terminal", "add -o json, or leave it out")
    daemon = Daemon(_socket(said, output) if socket is None else socket)
    if reload:
        return _reload(daemon, output)
    if is_stream:
        return _stream(daemon, output)
    if watch:
        return _watch(daemon, output)
    return _show(daemon, said.form, output)


def _socket(said: Globals, output: Output) -> str:
    """Find the daemon's socket: a configuration that is wrong must not hide a running daemon."""
    from reconciler.cli.setup import load_layers
    from reconciler.settings.problems import SettingsError
    from reconciler.settings.schema import Http

    try:
        path = load_layers(said).settings.http.socket
    except SettingsError as error:
        usual = Http().socket
        output.complain(f"{error}; the daemon is looked for at {usual}")
        return usual
    if not path:
        raise NoDaemonError("http.socket is empty, so no daemon can be asked", "set it")
    return path


def _reload(daemon: "Daemon", output: Output) -> int:
    refused = daemon.reload()
    if refused:
        output.complain(f"refused, the old configuration stays in force: {refused}")
        return ExitCode.CONFIG
    output.say("the configuration was loaded")
    return ExitCode.DONE


def _show(daemon: "Daemon", form: Form, output: Output) -> int:
    from reconciler.present import rows, status_text

    shown, raw = daemon.status()
    match form:
        case Form.JSON:
            import msgspec

            output.json(msgspec.json.format(raw, indent=2).decode() + "\n")
        case Form.NAME:
            output.data(rows.names(shown.bundles))
        case Form.TABLE | Form.WIDE:
            output.data("".join(f"{line}\n" for line in status_text.lines(shown)))
            for table in status_text.tables(shown, wide=form is Form.WIDE):
                output.data("\n")
                output.table(table)
    return ExitCode.DONE


def _stream(daemon: "Daemon", output: Output) -> int:
    """Print the status each second, one line each; says once that the daemon is gone."""
    from threading import Event

    pause = Event()
    _, raw = daemon.status()
    missed = ""
    try:
        while True:
            if raw:
                output.json(f"{raw.decode()}\n")
                sys.stdout.flush()
            pause.wait(_INTERVAL)
            try:
                raw, missed = daemon.status()[1], ""
            except NoDaemonError as error:
                if not missed:
                    output.complain(str(error))
                raw, missed = b"", str(error)
    except KeyboardInterrupt:
        return ExitCode.DONE


def _watch(daemon: "Daemon", output: Output) -> int:
    from threading import Event

    from rich.live import Live

    from reconciler.cli.live import draw_status

    pause = Event()
    shown, _ = daemon.status()
    try:
        with Live(draw_status(shown), console=output.console(), auto_refresh=False) as live:
            while not pause.wait(_INTERVAL):
                try:
                    shown, _ = daemon.status()
                    live.update(draw_status(shown), refresh=True)
                except NoDaemonError as error:
                    live.update(draw_status(shown, str(error)), refresh=True)
    except KeyboardInterrupt:
        pass
    return ExitCode.DONE
