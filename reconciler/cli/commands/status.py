"""`status`: asks the running daemon over its unix socket."""

import sys
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import Command, Form, Globals
from reconciler.cli.output import Output
from reconciler.cli.values import bundle_key, name
from reconciler.errors import ExitCode, NoDaemonError, UsageError
from reconciler.model.observations import SPOILS_LOOKING
from reconciler.present.words import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.cli.asking import Daemon
    from reconciler.model.ids import BundleKey
    from reconciler.present.status import Status

_INTERVAL = 1.0
_SPOILS_LOOKING = frozenset(guard.value for guard in SPOILS_LOOKING)


@click.command(cls=Command, name="status")
@click.option(
    "--watch", is_flag=True, help="Show it live until Ctrl-C; -o json: a line each second."
)
@click.option("--reload", is_flag=True, help="Let it load its configuration anew, and wait.")
@click.argument("bundles", metavar="[NAMESPACE/ID]...", nargs=-1)
@click.option("--clean", is_flag=True, help="Let it clean these bundles now, if they are due.")
@click.option("--release", is_flag=True, help="Let it release the brake that holds everything.")
@click.option("--socket", metavar="PATH", help="The daemon's socket.  [http.socket]")
@click.pass_obj
def status(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    bundles: tuple[str, ...],
    watch: bool,
    reload: bool,
    clean: bool,
    release: bool,
    socket: str | None,
) -> int:
    """Show what the running daemon sees and does. Exits with 3 where none runs.

    --clean has it remove the leftovers that are named without waiting any longer. It looks twice
    all the same, and keeps to its guards, policies and brakes.
    """
    from reconciler.cli.asking import Daemon

    output = Output(quiet=said.quiet)
    orders = {"--watch": watch, "--reload": reload, "--clean": clean, "--release": release}
    given = [name for name, is_given in orders.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together", "use one of them")
    if clean is not bool(bundles):
        raise UsageError("--clean is for bundles", "name them as NAMESPACE/ID, after --clean")
    is_stream = watch and said.form is Form.JSON
    if watch and not output.on_terminal and not is_stream:
        raise UsageError("--watch needs a terminal", "add -o json, or leave it out")
    daemon = Daemon(_socket(said, output) if socket is None else socket)
    if reload:
        return _reload(daemon, output)
    if clean:
        return _clean(daemon, [bundle_key(one, said.namespace) for one in bundles], output)
    if release:
        return _release(daemon, output)
    if is_stream:
        return _stream(daemon, output)
    if watch:
        return _watch(daemon, output)
    return _show(daemon, said, output)


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
    refused, lines = daemon.reload()
    if refused:
        output.complain(f"refused, the old configuration stays in force: {refused}")
        return ExitCode.CONFIG
    for line in lines:
        output.say(line)
    output.say("the configuration was loaded")
    return ExitCode.DONE


def _clean(daemon: "Daemon", keys: "Sequence[BundleKey]", output: Output) -> int:
    reply = daemon.clean(keys)
    for one in reply.bundles:
        if one.refused:
            output.complain(f"{one.namespace}/{one.id} is not cleaned: {one.refused}")
        else:
            output.say(f"{one.namespace}/{one.id} is due now for the daemon (pid {reply.pid})")
    if reply.hold:
        output.complain(f"the daemon is held: {reply.hold}")
        return ExitCode.BLOCKED
    return ExitCode.ERROR if any(one.refused for one in reply.bundles) else ExitCode.DONE


def _release(daemon: "Daemon", output: Output) -> int:
    reply = daemon.release()
    if reply.hold:
        output.complain(f"the daemon (pid {reply.pid}) is still held: {reply.hold}")
        return ExitCode.BLOCKED
    output.say(f"nothing holds the daemon (pid {reply.pid}) now")
    return ExitCode.DONE


def _show(daemon: "Daemon", said: Globals, output: Output) -> int:
    from reconciler.present import rows, status_text

    shown, raw = daemon.status()
    for one in shown.refused:
        if one.guard in _SPOILS_LOOKING:
            output.complain(f"warning: the daemon cannot see everything: {one.reason}")
    if said.namespace:
        shown = _only(shown, said, output)
        raw = to_json(shown)
    match said.form:
        case Form.JSON:
            import msgspec

            output.json(msgspec.json.format(raw, indent=2).decode() + "\n")
        case Form.NAME:
            output.data(rows.names(shown.bundles))
        case Form.TABLE | Form.WIDE:
            output.data("".join(f"{line}\n" for line in status_text.lines(shown)))
            for table in status_text.tables(shown, wide=said.form is Form.WIDE):
                output.data("\n")
                output.table(table)
    return ExitCode.DONE


def _stream(daemon: "Daemon", output: Output) -> int:
    """Print the status each second, one line each; says once that the daemon is gone."""
    from threading import Event

    from reconciler.cli.garbage import collect_from_now_on

    collect_from_now_on()
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


def _only(shown: "Status", said: Globals, output: Output) -> "Status":
    """Leave out the bundles of other namespaces.

    Raises:
        UsageError: A namespace does not exist.
    """
    from msgspec.structs import replace

    from reconciler.cli.preflight import check_namespaces
    from reconciler.model.ids import unescape
    from reconciler.model.layout import Layout

    names = frozenset(map(name, said.namespace))
    check_namespaces(Layout(state=unescape(shown.state)), names, output)
    return replace(
        shown,
        bundles=[one for one in shown.bundles if one.namespace in names],
        recent=[one for one in shown.recent if one.result.namespace in names],
    )


def _watch(daemon: "Daemon", output: Output) -> int:
    from threading import Event

    from rich.live import Live

    from reconciler.cli.garbage import collect_from_now_on
    from reconciler.cli.live import draw_status

    collect_from_now_on()
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
