"""`replay`: runs the engine over a journal again. Touches nothing but the files it is given."""

from pathlib import Path

import click

from reconciler.cli.completing import full_names
from reconciler.cli.globals import Form, Globals
from reconciler.cli.option_types import bundle_key, duration
from reconciler.cli.options import Command
from reconciler.cli.output import Output
from reconciler.errors import ExitCode
from reconciler.model.policy import Policies


@click.command(cls=Command, name="replay")
@click.argument("journal", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--expect",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What must come true (TOML); exit 1 if it does not.",
)
@click.option(
    "--report", metavar="OUT.html", type=click.Path(path_type=Path), help="Draw it as a page."
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="So many times faster than it was, line by line.  [as fast as possible]",
)
@click.option(
    "--until",
    callback=duration,
    metavar="DURATION",
    help="End so long after the begin; with --config also beyond the end of the journal.",
)
@click.option(
    "--only", metavar="NS/ID", shell_complete=full_names, help="Tell about this bundle alone."
)
@click.pass_obj
def replay(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    journal: Path,
    expect: Path | None,
    report: Path | None,
    speed: float | None,
    until: str | None,
    only: str | None,
) -> int:
    """Decide again what a journal recorded; exit 1 if anything is decided otherwise.

    With --config OTHER another policy decides: shows what it would clean, when, and what changes.
    """
    from reconciler.cli.replaying import Replaying, Request
    from reconciler.journal import expect as expectations
    from reconciler.journal.reader import Journal
    from reconciler.journal.recorder import check_target
    from reconciler.present import report as report_page
    from reconciler.settings.units import parse_duration

    output = Output(quiet=said.quiet)
    if report is not None:
        check_target(report, report_page.BEGIN, "report")
    request = Request(
        policies=None if said.config is None else _policies(said.config),
        config=said.config or "",
        expectations=() if expect is None else expectations.load(expect),
        report=report,
        speed=speed,
        until=None if until is None else parse_duration(until),
        only=None if only is None else bundle_key(only, said.namespace),
        as_json=said.form is Form.JSON,
        names=said.form is Form.NAME,
    )
    recorded = Journal(journal, output.say)
    return ExitCode.DONE if Replaying(recorded, request, output).run() else ExitCode.ERROR


def _policies(config: str) -> Policies:
    from reconciler.settings.load import load

    return load(config).policies()
