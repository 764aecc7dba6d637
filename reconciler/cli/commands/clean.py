"""`clean`, and `containerd-cleanup`: removes what is due, once."""

from copy import copy
from typing import Final

import click
from msgspec.structs import replace

from reconciler.cli.completing import bundles
from reconciler.cli.globals import UNATTENDED, Globals
from reconciler.cli.list_options import by_label, no_trunc, selection
from reconciler.cli.option_types import EVERYTHING, debris_kinds, duration
from reconciler.cli.options import Command, without_containerd
from reconciler.cli.output import Output
from reconciler.errors import UsageError
from reconciler.model.debris import DebrisKind

_UNATTENDED_HELP: Final = """Remove what is due, once, without asking; for timers and scripts.

A bundle is due if it is a leftover on two looks, --grace apart, and for longer than --threshold;
no rule and no budget shortens what is typed here. --dry-run shows what would be removed.
"""

_GRACE: Final = "5s"


@click.command(cls=Command, name="clean")
@click.argument("names", metavar="[NAMESPACE/ID]...", nargs=-1, shell_complete=bundles)
@by_label
@click.option(
    "--threshold", callback=duration, metavar="DURATION", help="Only what is dead for longer."
)
@click.option(
    "--grace",
    callback=duration,
    metavar="DURATION",
    help="Time between the two looks.  [5s; 0s with --rescue]",
)
@click.option(
    "--settle", callback=duration, metavar="DURATION", help="Younger ones may be in creation."
)
@click.option(
    "--debris",
    is_flag=False,
    flag_value=EVERYTHING,
    metavar="[KIND,...]",
    callback=debris_kinds,
    help="Also what is left outside of bundles, of all kinds or of these.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed; touch nothing.")
@click.option(
    "--rescue",
    is_flag=True,
    help="Before containerd starts: refuse if it runs, and name shims that never answer.",
)
@click.option(
    "--kill-wedged", is_flag=True, help="With --rescue: end such a shim if its init is dead."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@no_trunc
@without_containerd
@click.pass_context
def clean(  # noqa: PLR0913 - the options
    context: click.Context,
    *,
    names: tuple[str, ...],
    selector: tuple[str, ...],
    threshold: str | None,
    grace: str | None,
    settle: str | None,
    debris: frozenset[DebrisKind],
    dry_run: bool,
    rescue: bool,
    kill_wedged: bool,
    yes: bool,
    no_trunc: bool,
    without_containerd: bool,
) -> int:
    """Remove what is due, once.

    A bundle is due if it is a leftover on two looks, --grace apart, and for longer than
    --threshold; no rule and no budget shortens what is typed here. The plan is shown first, and
    nothing is removed without a yes: one that is typed at a terminal, or --yes.

    With names only those of them that are due are removed, and nothing if one of them is not there.

    With --debris what is left outside of bundles goes as well: what two inventories, --grace apart,
    find to be debris. Kinds: hidden-bundle, shim-socket, fifo-dir, runc-state, cgroup, work-dir,
    mount, shim. A shim that lives is ended only where the configuration says shims = "kill".
    """
    from reconciler.cli.checks import check_namespaces, check_state
    from reconciler.cli.setup import Changes, make_setup, start_fork_server

    said: Globals = context.obj
    chosen = selection(names, selector)
    if debris and not chosen.is_all:
        raise UsageError("--debris has no names and no labels", "leave them out, or --debris")
    if kill_wedged and not rescue:
        raise UsageError("--kill-wedged is for a rescue", "say --rescue, too")
    grace = ("0s" if rescue else _GRACE) if grace is None else grace
    changes = Changes(enforce=True, grace=grace, threshold=threshold, settle=settle, once=True)
    setup = make_setup(said, changes, without_containerd=without_containerd)
    setup = replace(setup, policies=setup.policies.cleaning_debris(debris))
    check_state(setup.layout, may_be_missing=rescue)
    output = Output(quiet=said.quiet, whole=no_trunc)
    check_namespaces(setup.layout, setup.namespaces, output, may_come=rescue)
    asks, form = not yes and context.find_root().info_name != UNATTENDED, said.form
    servers = iter([start_fork_server(setup)])
    from reconciler.cli.cleaning import Way, run

    way = Way(form, asks=asks, dry_run=dry_run, rescue=rescue, kill_wedged=kill_wedged)
    return run(setup, chosen, way, output, servers)


def unattended() -> click.Command:
    """Make `clean` as units call it: it asks nothing, and its help speaks of no question."""
    command = copy(clean)
    command.help = _UNATTENDED_HELP
    command.params = [_hidden(one) if one.name == "yes" else one for one in clean.params]
    return command


def _hidden(param: click.Parameter) -> click.Parameter:
    option = copy(param)  # still taken: units of earlier days say it
    if isinstance(option, click.Option):
        option.hidden = True
    return option
