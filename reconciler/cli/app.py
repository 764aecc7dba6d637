"""The commands by name. Each is imported only when it is called."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from reconciler.cli.globals import merge
from reconciler.cli.options import global_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final = {
    "run": "Watch, decide, show; remove what is due with --enforce.",
    "daemon": "The same as a service: configuration, endpoints, metrics, reload.",
    "scan": "Look once: every bundle with its verdict and the reason.",
    "explain": "Show all evidence about one bundle and what follows from it.",
    "clean": "Remove what is due, once.",
    "record": "Watch and write a journal of all that was seen and decided.",
    "replay": "Decide again what a journal recorded, by the same policy or another.",
    "config": "Check, show and describe the configuration.",
    "status": "Ask the running daemon what it sees and does.",
    "demo": "Show all of it on a throw-away tree; no containerd, no root needed.",
    "completion": "Print what makes bash, zsh or fish complete command lines.",
    "version": "Show the version.",
    "help": "Show what a command does and takes.",
}


class App(click.Group):
    """Finds the commands lazily, so that `--help` and `--version` need none of them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(cmd_name, COMMANDS, n=1)
            if near:
                ctx.fail(f"no such command {cmd_name!r}; did you mean {near[0]!r}?")
            return None
        command = getattr(import_module(f"reconciler.cli.commands.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        from click.shell_completion import CompletionItem

        # click would import every command to read what it does.
        named = [
            CompletionItem(name, help=does)
            for name, does in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    @override
    def invoke(self, ctx: click.Context) -> object:
        ctx.obj = merge(ctx)
        return super().invoke(ctx)


app = App(
    name="containerd-reconciler",
    params=global_options(),
    help="Finds what containerd leaves behind, proves it dead, and removes it completely.",
    epilog="Options may stand before or after the command. Nothing is removed unless you say so.",
    no_args_is_help=True,
)
