"""`scan`: one look at everything. Read only."""

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from reconciler.cli.globals import Form, Globals
from reconciler.cli.list_options import by_label, list_options, names, said_of_list, selection
from reconciler.cli.options import Command, without_containerd
from reconciler.cli.output import Output
from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.cli.selection import Selection


@click.command(cls=Command, name="scan", params=list_options())
@names
@by_label
@click.option(
    "-w", "--watch", is_flag=True, help="Go on, with a row for each change, until Ctrl-C."
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 10 if there are leftovers (also of runtimes that are not known) or debris, "
    "11 if nothing could be proven.",
)
@click.option("--redact", is_flag=True, help="With -o journal: replace all names consistently.")
@without_containerd
@click.pass_obj
def scan(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    names: tuple[str, ...],
    selector: tuple[str, ...],
    watch: bool,
    exit_code: bool,
    redact: bool,
    without_containerd: bool,
) -> int:
    """Look once: every bundle with its verdict and the reason. Removes nothing.

    With names, or the beginnings of ids, only those. With -o journal the evidence itself is
    printed, for `replay`: a report of a problem in one file.
    """
    from reconciler.cli.checks import check_namespaces, check_state
    from reconciler.cli.setup import make_setup, start_fork_server

    listing = said_of_list()
    chosen = selection(names, selector, listing)
    _check_together(said, chosen, watch=watch, redact=redact)
    setup = make_setup(said, without_containerd=without_containerd)
    setup = replace(setup, annotation_keys=chosen.annotations)
    check_state(setup.layout)
    output = Output(quiet=said.quiet, whole=listing.whole)
    check_namespaces(setup.layout, setup.namespaces, output)
    server = start_fork_server(setup)
    from reconciler.cli import scanning

    if watch:
        return scanning.follow(setup, chosen, listing, output, server, form=said.form)
    if said.wants_journal:
        return scanning.journal(setup, output, server, redact=redact, exit_code=exit_code)
    return scanning.scan(
        setup, chosen, listing, output, server, form=said.form, exit_code=exit_code
    )


def _check_together(said: Globals, chosen: "Selection", *, watch: bool, redact: bool) -> None:
    if redact and not said.wants_journal:
        raise UsageError("--redact is for -o journal", "add -o journal")
    if said.wants_journal and (watch or not chosen.is_all):
        raise UsageError(
            "-o journal is of one look at everything", "leave the rest out, or `record`"
        )
    if watch and said.form is Form.JSON:
        raise UsageError(
            "--watch and -o json do not go together", "`record` writes a stream of JSON"
        )
