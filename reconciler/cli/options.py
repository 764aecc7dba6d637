"""The options of every command, accepted before or after its name.

Words flow in, :class:`~reconciler.cli.globals.Globals` flows out to the command.
"""

from typing import Final

import click
from typing_extensions import override

from reconciler.cli.completing import directories, files, instances, namespaces
from reconciler.cli.globals import JOURNAL, Form, Globals, merge
from reconciler.errors import UsageError


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    if value and not ctx.resilient_parsing:
        show_version(ctx)
        ctx.exit()


def show_version(ctx: click.Context) -> None:
    """Write the program's name and version."""
    from reconciler import __version__

    click.echo(f"{ctx.find_root().info_name} {__version__}")


def global_options() -> list[click.Parameter]:
    """Make the options anew; a click parameter belongs to one command."""
    return [
        click.Option(
            ["--config"], metavar="FILE", shell_complete=files, help="Configuration file (TOML)."
        ),
        click.Option(
            ["--instance"],
            metavar="NAME",
            shell_complete=instances,
            help="Which containerd, where there are several: k3s, rke2, k0s, microk8s, docker, "
            "or a name of your own.",
        ),
        click.Option(
            ["--state"],
            metavar="DIR",
            shell_complete=directories,
            help="containerd's state directory.  [/run/containerd]",
        ),
        click.Option(
            ["--root"],
            metavar="DIR",
            shell_complete=directories,
            help="containerd's root directory.  [/var/lib/containerd]",
        ),
        click.Option(
            ["--address"],
            metavar="SOCKET",
            shell_complete=files,
            help="containerd's socket.  [env CONTAINERD_ADDRESS; /run/containerd/containerd.sock]",
        ),
        click.Option(
            ["-n", "--namespace"],
            multiple=True,
            shell_complete=namespaces,
            help="Only this namespace; may be repeated.",
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Choice([*(form.value for form in Form), JOURNAL]),
            help="Form; journal for `scan` alone.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="No messages but errors."),
        click.Option(["-v", "--verbose"], count=True, help="More messages; may be repeated."),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        ),
    ]


class Command(click.Command):
    """A command that takes the options of every command too, and hands on all that was said."""

    @override
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        if not any(param.name == "state" for param in self.params):
            self.params = [*self.params, *global_options()]
            own = super().get_params(ctx)
        return own

    @override
    def invoke(self, ctx: click.Context) -> object:
        ctx.obj = merge(ctx)
        self.accept(ctx.obj)
        return super().invoke(ctx)

    def accept(self, said: Globals) -> None:
        """Refuse what this command cannot do with what was said for all."""


class Logging(Command):
    """A command that prints no data: what it has to say is its log, or a view of its own."""

    @override
    def accept(self, said: Globals) -> None:
        if said.output is not None:
            raise UsageError(
                f"-o {said.output} is not for `{self.name}`",
                "its log is one JSON object a line where standard error is no terminal",
            )


replaces_journal: Final = click.option(
    "--force", is_flag=True, help="Begin anew where FILE is a journal of an earlier run."
)
without_containerd: Final = click.option(
    "--without-containerd",
    is_flag=True,
    help="There is no containerd: do not wait for its word. Only if that is true.",
)
