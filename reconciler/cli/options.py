"""The options of every command, accepted before or after its name, and the types of their values.

Words flow in, :class:`Globals` flows out to the command. Nothing is looked up here; what was not
said stays None, so that configuration and defaults can fill it.
"""

from enum import Enum
from typing import Final, NamedTuple

import click
from click.core import ParameterSource
from typing_extensions import override

from reconciler.cli.completing import directories, files, instances, namespaces
from reconciler.errors import UsageError


class Form(Enum):
    """Form of the output."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    NAME = "name"


JOURNAL: Final = "journal"


class Globals(NamedTuple):
    """What was said for all commands; None and empty mean not said."""

    config: str | None = None
    instance: str | None = None
    state: str | None = None
    root: str | None = None
    address: str | None = None
    namespace: tuple[str, ...] = ()
    output: str | None = None
    quiet: bool = False
    verbose: int = 0

    @property
    def form(self) -> Form:
        """The form of the output."""
        if self.output == JOURNAL:
            raise UsageError(f"-o {JOURNAL} is for `scan`", "use -o json")
        return Form.TABLE if self.output is None else Form(self.output)

    @property
    def wants_journal(self) -> bool:
        """Whether the evidence itself is wanted, to be decided on elsewhere."""
        return self.output == JOURNAL


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


NAMES: Final = frozenset(Globals._fields)


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


def merge(ctx: click.Context) -> Globals:
    """Take the global options out of the parameters; what is said last, after the command, wins."""
    known = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
    said = {
        name: ctx.params.pop(name)
        for name in NAMES
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    for name in NAMES - said.keys():
        ctx.params.pop(name, None)
    return known._replace(**said)


replaces_journal: Final = click.option(
    "--force", is_flag=True, help="Begin anew where FILE is a journal of an earlier run."
)
without_containerd: Final = click.option(
    "--without-containerd",
    is_flag=True,
    help="There is no containerd: do not wait for its word. Only if that is true.",
)
