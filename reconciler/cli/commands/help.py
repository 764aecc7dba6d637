"""`help`: what a command does and takes."""

import click

from reconciler.cli.completing import commands
from reconciler.cli.options import Command


@click.command(cls=Command, name="help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=commands)
@click.pass_context
def help(context: click.Context, *, words: tuple[str, ...]) -> None:
    """Show what a command does and takes, as its --help does."""
    found = context.find_root()
    for word in words:
        group = found.command
        command = group.get_command(found, word) if isinstance(group, click.Group) else None
        if command is None:
            found.fail(f"No such command {word!r}.")
        found = click.Context(command, info_name=word, parent=found)
    click.echo(found.get_help())
