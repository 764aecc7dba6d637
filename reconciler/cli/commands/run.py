"""`run`: watches in the foreground; shows a live view on a terminal, log lines elsewhere."""

from pathlib import Path
from typing import get_args

import click
from msgspec.structs import replace

from reconciler.cli.checks import check_namespaces, check_state
from reconciler.cli.globals import Globals
from reconciler.cli.option_types import duration
from reconciler.cli.options import Logging, replaces_journal, without_containerd
from reconciler.cli.output import Output
from reconciler.cli.recording import journal_options
from reconciler.cli.setup import Changes, make_setup, start_fork_server
from reconciler.setup import Backend


@click.command(cls=Logging, name="run")
@click.option("--enforce", is_flag=True, help="Remove what is due.  [observe only]")
@click.option("--once", is_flag=True, help="End when waiting would change nothing more.")
@click.option(
    "--grace", callback=duration, metavar="DURATION", help="How long it must stay a leftover."
)
@click.option(
    "--threshold", callback=duration, metavar="DURATION", help="Only what is dead for longer."
)
@click.option(
    "--settle", callback=duration, metavar="DURATION", help="Younger ones may be in creation."
)
@click.option(
    "--backend",
    type=click.Choice(get_args(Backend)),
    help="How to watch.  [auto]",
)
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a journal of it, for `replay`.",
)
@replaces_journal
@without_containerd
@click.pass_obj
def run(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    enforce: bool,
    once: bool,
    grace: str | None,
    threshold: str | None,
    settle: str | None,
    backend: str | None,
    record: Path | None,
    force: bool,
    without_containerd: bool,
) -> int:
    """Watch, decide and show; remove what is due with --enforce, whatever a file says."""
    changes = Changes(
        enforce=enforce or None,
        grace=grace,
        threshold=threshold,
        settle=settle,
        backend=backend,
        once=once,
        logs=True,
    )
    setup = make_setup(said, changes, without_containerd=without_containerd)
    output = Output(quiet=said.quiet)
    check_state(setup.layout, output, may_be_missing=not once)
    check_namespaces(setup.layout, setup.namespaces, output, may_come=not once)
    options = journal_options(record, force=force)
    server = start_fork_server(setup)
    from reconciler.cli.passes import observing
    from reconciler.cli.session import Foreground, watch

    if not enforce:
        # `mode`, of a file or of a rule, is the daemon's: nobody removes by surprise.
        setup = replace(setup, policies=observing(setup.policies))
    how = Foreground(once=once, verbose=said.verbose, record=options)
    return watch(setup, output, how, server)
