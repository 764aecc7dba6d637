"""`daemon`: the run that a service manager starts: configuration, endpoints, reload, checkpoint."""

import os

import click
from msgspec.structs import replace

from reconciler.cli.globals import Globals
from reconciler.cli.options import Logging
from reconciler.cli.output import Output
from reconciler.errors import ExitCode


@click.command(cls=Logging, name="daemon")
@click.pass_obj
def daemon(said: Globals) -> int:
    """Watch, decide and act as the configuration says, until SIGTERM. SIGHUP loads it anew."""
    from reconciler.cli.checks import check_namespaces, check_state
    from reconciler.cli.option_types import name
    from reconciler.cli.setup import check_instance, load_layers, start_fork_server
    from reconciler.daemon.config_files import ConfigFiles
    from reconciler.settings.instances import places_of
    from reconciler.settings.problems import SettingsError
    from reconciler.setup import setup_from

    output = Output(quiet=said.quiet)
    if said.config is not None:
        said = said._replace(config=os.path.abspath(said.config))  # log and status tell which
    files = ConfigFiles(said.config, places_of(check_instance(said.instance)))
    try:
        loaded = load_layers(said)
    except SettingsError as error:
        for problem in error.problems:
            output.complain(str(problem))
        return ExitCode.CONFIG
    check_state(loaded.layout, output, may_be_missing=True)
    namespaces = frozenset(map(name, said.namespace))
    check_namespaces(loaded.layout, namespaces, output, may_come=True)
    setup = replace(setup_from(loaded), namespaces=namespaces)
    server = start_fork_server(setup)
    import anyio

    from reconciler.cli.display import make_log
    from reconciler.cli.garbage import collect_from_now_on
    from reconciler.daemon.service import Start, serve
    from reconciler.present.records import Level
    from reconciler.telemetry.logs import Threshold

    log = loaded.settings.log
    threshold = Threshold(Level(log.level.value))
    start = Start(
        load=lambda: load_layers(said),
        loaded=loaded,
        setup=setup,
        server=server,
        files=files,
        environ=os.environ,
        logger=make_log(output, said.verbose, log, threshold),
        threshold=threshold,
    )
    collect_from_now_on()
    anyio.run(serve, start)
    return ExitCode.DONE
