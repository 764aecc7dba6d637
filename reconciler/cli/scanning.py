"""What `scan` does: looks once, gives it its promised shape, and prints that.

A setup and the fork server flow in, words or JSON flow out. Nothing is removed.
"""

import sys
from collections.abc import Collection

from msgspec.structs import replace

from reconciler.cli.checks import (
    check_listing,
    complain_of_absence,
    complain_of_silence,
    warn_of_place,
)
from reconciler.cli.daemon_beliefs import as_believed, ask_daemon, say_whose
from reconciler.cli.globals import Form
from reconciler.cli.list_options import ALL, Listing
from reconciler.cli.output import Output, envelope
from reconciler.cli.passes import Found
from reconciler.cli.selection import Selection, narrowed, ordered
from reconciler.cli.session import Journalled, look
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.verdicts import is_alien_and_dead
from reconciler.errors import ExitCode
from reconciler.model.decisions import Verdict
from reconciler.present import debris, rows, shapes
from reconciler.present.beliefs import Beliefs
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import encode
from reconciler.probe.checks import out_of_sight
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient


def journal(
    setup: Setup, output: Output, server: ForkServerClient, *, redact: bool, exit_code: bool
) -> int:
    """Look once, write the evidence itself to standard output, and give the exit code."""
    found = look(setup, output, server, Journalled(sys.stdout.buffer, redact))
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    return _code(found, setup) if exit_code else ExitCode.DONE


def scan(  # noqa: PLR0913 - what was said
    setup: Setup,
    chosen: Selection,
    listing: Listing,
    output: Output,
    server: ForkServerClient,
    *,
    form: Form,
    exit_code: bool,
) -> int:
    """Look once, print what is meant of what was found, and give the exit code."""
    found = look(setup, output, server)
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    told = ask_daemon(setup, output)
    everything = as_believed(found, told)
    selected = chosen.of(everything.views)
    meant = everything if chosen.is_all else narrowed(everything, selected.keys)
    meant = replace(meant, views=ordered(meant.views, listing.sort_by))
    report = shape(meant, setup, told)
    show(report, form, output, listing, [view.key.id for view in found.views])
    say_whose(told, output, setup)
    complain_of_silence(meant, output)
    complain_of_absence(setup.namespaces, found, output)
    selected.complain(output)
    if selected.absent:
        return ExitCode.ERROR
    return _code(meant, setup) if exit_code else ExitCode.DONE


def _code(found: Found, setup: Setup) -> ExitCode:
    """Say by one number what was found; nothing is proven of what mounts hide."""
    code = ending(found)
    hidden = code is ExitCode.DONE and out_of_sight(setup.layout, setup.namespaces)
    return ExitCode.UNPROVEN if hidden else code


def ending(found: Found) -> ExitCode:
    """Say by one number what was found: 0 only where it was looked at, and nothing is left over."""
    left = any(
        view.judgement.verdict is Verdict.LEFTOVER or is_alien_and_dead(view.facts)
        for view in found.views
    )
    if left or any(one.verdict is DebrisVerdict.DEBRIS for one in found.debris):
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
