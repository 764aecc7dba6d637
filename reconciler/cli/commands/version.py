"""`version`: which release this is."""

import click

from reconciler.cli.options import Command, show_version


@click.command(cls=Command, name="version")
@click.pass_context
def version(context: click.Context) -> None:
    """Show the version."""
    show_version(context)
