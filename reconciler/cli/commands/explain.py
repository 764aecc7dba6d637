"""`explain`: every piece of evidence about one bundle or piece of debris, and what follows."""

import click

from reconciler.cli.completing import bundles
from reconciler.cli.globals import Globals
from reconciler.cli.list_options import no_trunc
from reconciler.cli.options import Command, without_containerd
from reconciler.cli.output import Output


@click.command(cls=Command, name="explain")
@click.argument("bundle", metavar="[NAMESPACE/]ID|KIND:PATH", shell_complete=bundles)
@click.option("--ask-shim", is_flag=True, help="Also ask its shim for an answer: is it wedged?")
@no_trunc
@without_containerd
@click.pass_obj
def explain(
    said: Globals, *, bundle: str, ask_shim: bool, no_trunc: bool, without_containerd: bool
) -> int:
    """Show all evidence about one bundle and what follows from it.

    An ID, or the beginning of one, will do where only one bundle has it. KIND:PATH is a piece of
    debris, as `scan` names it.
    """
    from reconciler.cli.checks import check_namespaces, check_state
    from reconciler.cli.option_types import parse_place
    from reconciler.cli.selection import parse_name
    from reconciler.cli.setup import make_setup, start_fork_server

    setup = make_setup(said, without_containerd=without_containerd)
    place = parse_place(bundle)
    asked = parse_name(bundle if place is None else "-")
    check_state(setup.layout)
    output, form = Output(quiet=said.quiet, whole=no_trunc), said.form
    check_namespaces(setup.layout, setup.namespaces, output)
    server = start_fork_server(setup)
    if place is not None:
        from reconciler.cli.explaining import explain_place

        return explain_place(setup, place, form, output, server)
    from reconciler.cli.explaining import explain as explain_it

    return explain_it(setup, asked, form, output, server, ask_shim=ask_shim)
