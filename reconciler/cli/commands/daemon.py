"""`daemon`: the run that a service manager starts: configuration, endpoints, reload, ledger."""

import os
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import Command, Globals
from reconciler.cli.output import Output
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from reconciler.settings.schema import Log
    from reconciler.telemetry.lean import FilteringBoundLogger


@click.command(cls=Command, name="daemon")
@click.pass_obj
def daemon(said: Globals) -> int:
    """Watch, decide and act as the configuration says, until SIGTERM. SIGHUP loads it anew."""
    import anyio

    from reconciler.cli.preflight import check_state
    from reconciler.cli.setup import load_layers
    from reconciler.cli.values import name
    from reconciler.daemon.files import ConfigFiles
    from reconciler.daemon.service import Start, serve
    from reconciler.settings.problems import SettingsError

    output = Output(quiet=said.quiet)
    files = ConfigFiles(None if said.config is None else os.path.abspath(said.config))
    try:
        loaded = load_layers(said)
    except SettingsError as error:
        for problem in error.problems:
            output.complain(str(problem))
        return ExitCode.CONFIG
    check_state(loaded.layout, may_be_missing=True)
    start = Start(
        load=lambda: load_layers(said),
        loaded=loaded,
        files=files,
        environ=os.environ,
        logger=_logger(loaded.settings.log, said, output),
        namespaces=frozenset(map(name, said.namespace)),
    )
    anyio.run(serve, start)
    return ExitCode.DONE


def _logger(log: "Log", said: Globals, output: Output) -> "FilteringBoundLogger":
    """Make the log; what is said on the command line wins over the configured level."""
    from reconciler.present.records import Level
    from reconciler.settings.schema import LogFormat
    from reconciler.telemetry.logs import make_logger, stderr_sink

    people = output.messages_on_terminal
    if log.format is not LogFormat.AUTO:
        people = log.format is LogFormat.CONSOLE
    level = Level.WARNING if said.quiet else Level.DEBUG if said.verbose else Level(log.level.value)
    return make_logger(
        as_json=not people,
        colour=output.messages_on_terminal and output.colour,
        level=level.number,
        sink=stderr_sink(),
    )
