"""`scan`: one look at everything. Read only."""

import dataclasses
import sys
from collections.abc import Collection

import click

from reconciler.assembly import Setup
from reconciler.cli.beside import as_believed, ask_daemon, say_whose
from reconciler.cli.choosing import (
    ALL,
    Listing,
    by_label,
    list_options,
    names,
    said_of_list,
    selection,
)
from reconciler.cli.options import Command, Form, Globals, without_containerd
from reconciler.cli.output import Output, envelope
from reconciler.cli.preflight import (
    check_listing,
    check_namespaces,
    check_state,
    complain_of_absence,
    complain_of_silence,
    warn_of_place,
)
from reconciler.cli.selection import Selection, narrowed, ordered
from reconciler.cli.setup import make_setup
from reconciler.cli.work import Found
from reconciler.errors import ExitCode, UsageError
from reconciler.model.decisions import Verdict
from reconciler.present import debris, rows, shapes
from reconciler.present.beliefs import Beliefs
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import encode


@click.command(cls=Command, name="scan", params=list_options())
@names
@by_label
@click.option(
    "-w", "--watch", is_flag=True, help="Go on, with a row for each change, until Ctrl-C."
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 10 if there are leftovers, 11 if nothing could be proven.",
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
    listing = said_of_list()
    chosen = selection(names, selector, listing)
    _check_together(said, chosen, watch=watch, redact=redact)
    setup = make_setup(said, without_containerd=without_containerd)
    setup = dataclasses.replace(setup, annotation_keys=chosen.annotations)
    check_state(setup.layout)
    output = Output(quiet=said.quiet, whole=listing.whole)
    check_namespaces(setup.layout, setup.namespaces, output)
    if watch:
        from reconciler.cli.following import follow

        return follow(setup, said.form, chosen, listing, output)
    if said.wants_journal:
        return _journal(setup, output, redact=redact, exit_code=exit_code)
    return _scan(said, setup, chosen, listing, output, exit_code=exit_code)


def _check_together(said: Globals, chosen: Selection, *, watch: bool, redact: bool) -> None:
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


def _journal(setup: Setup, output: Output, *, redact: bool, exit_code: bool) -> int:
    from reconciler.cli.session import Journalled, look

    found = look(setup, output, Journalled(sys.stdout.buffer, redact))
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    return ending(found) if exit_code else ExitCode.DONE


def _scan(  # noqa: PLR0913 - what was said
    said: Globals,
    setup: Setup,
    chosen: Selection,
    listing: Listing,
    output: Output,
    *,
    exit_code: bool,
) -> int:
    from reconciler.cli.session import look

    found = look(setup, output)
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    told = ask_daemon(setup, output)
    everything = as_believed(found, told)
    selected = chosen.of(everything.views)
    meant = everything if chosen.is_all else narrowed(everything, selected.keys)
    meant = dataclasses.replace(meant, views=ordered(meant.views, listing.sort_by))
    report = shape(meant, setup, told)
    show(report, said.form, output, listing, [view.key.id for view in found.views])
    say_whose(told, output)
    complain_of_silence(meant, output)
    complain_of_absence(setup.namespaces, found, output)
    selected.complain(output)
    if selected.absent:
        return ExitCode.ERROR
    return ending(meant) if exit_code else ExitCode.DONE


def ending(found: Found) -> ExitCode:
    """Say by one number what was found: 0 only where it was looked at, and nothing is left over."""
    if any(view.judgement.verdict is Verdict.LEFTOVER for view in found.views):
        return ExitCode.LEFTOVERS
    return ExitCode.UNPROVEN if found.unproven else ExitCode.DONE


def shape(found: Found, setup: Setup, told: Beliefs | None = None) -> shapes.Scan:
    """Give what was found its promised shape."""
    return shapes.scan(
        [shapes.bundle(view, setup.layout) for view in found.views],
        _debris(found, setup),
        envelope=envelope(found.stamp.wall),
        containerd=found.node.containerd.state.value,
        refused=found.refused,
        seconds=found.seconds,
        daemon=None if told is None else shapes.Daemon(told.pid, told.mode, told.hold),
    )


def _debris(found: Found, setup: Setup) -> list[DebrisShape]:
    """Shape what lies outside of bundles; with ``-n`` only what is certainly of that namespace."""
    asked, wall = setup.namespaces, found.stamp.wall
    ours = [debris.unfinished(one, setup.layout, wall) for one in found.hidden if one.ours]
    left = [*ours, *map(debris.debris, found.debris)]
    return [one for one in left if not asked or one.namespace in asked]


def show(
    report: shapes.Scan,
    form: Form,
    output: Output,
    listing: Listing = ALL,
    ids: Collection[str] = (),
) -> None:
    """Print a scan; ``ids``: those of all bundles there are."""
    match form:
        case Form.JSON:
            output.json(encode(report))
        case Form.NAME:
            output.data(rows.names(report.bundles))
        case Form.TABLE | Form.WIDE:
            if report.bundles:
                table = rows.bundles(report.bundles, wide=form is Form.WIDE, ids=ids)
                listing.write(table, output)
            if report.debris:
                output.data("\n" if report.bundles else "")
                listing.write(rows.debris(report.debris), output)
    output.say(rows.scan_summary(report))
