"""`scan`: one look at everything. Read only."""

import sys

import click

from reconciler.assembly import Setup
from reconciler.cli.beside import as_believed, ask_daemon, say_whose
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
from reconciler.cli.setup import make_setup
from reconciler.cli.work import Found
from reconciler.errors import ExitCode, UsageError
from reconciler.model.decisions import Verdict
from reconciler.present import debris, rows, shapes
from reconciler.present.beliefs import Beliefs
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import encode


@click.command(cls=Command, name="scan")
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 10 if there are leftovers, 11 if nothing could be proven.",
)
@click.option("--redact", is_flag=True, help="With -o journal: replace all names consistently.")
@without_containerd
@click.pass_obj
def scan(said: Globals, *, exit_code: bool, redact: bool, without_containerd: bool) -> int:
    """Look once: every bundle with its verdict and the reason. Removes nothing.

    With -o journal the evidence itself is printed, for `replay`: a report of a problem in one file.
    """
    from reconciler.cli.session import Journalled, look

    setup = make_setup(said, without_containerd=without_containerd)
    check_state(setup.layout)
    output = Output(quiet=said.quiet)
    check_namespaces(setup.layout, setup.namespaces, output)
    if redact and not said.wants_journal:
        raise UsageError("--redact is for -o journal", "add -o journal")
    found = look(
        setup, output, Journalled(sys.stdout.buffer, redact) if said.wants_journal else None
    )
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    told = None if said.wants_journal else ask_daemon(setup, output)
    report = shape(as_believed(found, told), setup, told)
    if not said.wants_journal:
        show(report, said.form, output)
        say_whose(told, output)
        complain_of_silence(found, output)
        complain_of_absence(setup.namespaces, found, output)
    return ending(found) if exit_code else ExitCode.DONE


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


def show(report: shapes.Scan, form: Form, output: Output) -> None:
    """Print a scan."""
    match form:
        case Form.JSON:
            output.json(encode(report))
        case Form.NAME:
            output.data(rows.names(report.bundles))
        case Form.TABLE | Form.WIDE:
            if report.bundles:
                output.table(rows.bundles(report.bundles, wide=form is Form.WIDE))
            if report.debris:
                output.data("\n" if report.bundles else "")
                output.table(rows.debris(report.debris))
    output.say(rows.scan_summary(report))
