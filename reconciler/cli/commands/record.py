"""`record`: watches and writes a journal; removes nothing."""

from pathlib import Path
from typing import get_args

import click
from msgspec.structs import replace

from reconciler.cli.checks import check_namespaces, check_state
from reconciler.cli.globals import Globals
from reconciler.cli.option_types import size
from reconciler.cli.options import Logging, replaces_journal, without_containerd
from reconciler.cli.output import Output
from reconciler.cli.recording import journal_options
from reconciler.cli.setup import Changes, make_setup, start_fork_server
from reconciler.errors import ExitCode
from reconciler.setup import Backend


@click.command(cls=Logging, name="record")
@click.argument("journal", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--redact", is_flag=True, help="Replace all names, each consistently.")
@click.option(
    "--max-size",
    callback=size,
    metavar="SIZE",
    help="Begin a new file after so much; earlier ones become FILE.1.gz ...  [no limit]",
)
@click.option("--keep", type=click.IntRange(0, 1000), default=4, help="Earlier files kept.  [4]")
@click.option("--once", is_flag=True, help="End when waiting would change nothing more.")
@click.option("--backend", type=click.Choice(get_args(Backend)), help="How to watch.  [auto]")
@replaces_journal
@without_containerd
@click.pass_obj
def record(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    journal: Path,
    redact: bool,
    max_size: int | None,
    keep: int,
    once: bool,
    backend: str | None,
    force: bool,
    without_containerd: bool,
) -> int:
    """Watch, and write what is seen and decided to FILE, until Ctrl-C. Removes nothing."""
    changes = Changes(enforce=False, backend=backend, once=once, logs=True)
    setup = make_setup(said, changes, without_containerd=without_containerd)
    output = Output(quiet=said.quiet)
    check_state(setup.layout, output, may_be_missing=not once)
    check_namespaces(setup.layout, setup.namespaces, output, may_come=not once)
    options = journal_options(journal, redact=redact, max_size=max_size, keep=keep, force=force)
    server = start_fork_server(setup)
    from reconciler.cli.passes import observing
    from reconciler.cli.session import Foreground, watch

    setup = replace(setup, policies=observing(setup.policies))
    how = Foreground("recording", once=once, verbose=said.verbose, record=options)
    code = watch(setup, output, how, server)
    is_the_way_to_end = not once and code == ExitCode.INTERRUPTED
    return ExitCode.DONE if is_the_way_to_end else code
