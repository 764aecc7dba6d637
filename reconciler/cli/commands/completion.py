"""`completion`: the script by which a shell completes command lines of this program."""

from typing import Final

import click

from reconciler.cli.completing import SHELLS, script
from reconciler.cli.options import Command

PROGRAMS: Final = ("containerd-reconciler", "containerd-cleanup")


@click.command(cls=Command, name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.argument("program", type=click.Choice(PROGRAMS), default=PROGRAMS[0])
def completion(*, shell: str, program: str) -> None:
    """Print what makes a shell complete command lines, names of bundles too.

    In bash and zsh `source <(containerd-reconciler completion bash)`, or zsh, turns it on for a
    session; in fish `containerd-reconciler completion fish | source` does.
    """
    click.echo(script(shell, program), nl=False)
