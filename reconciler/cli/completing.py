"""Completion: what a shell offers where Tab is pressed. Reads names at most, and says no word.

A shell's script (`completion`) runs the program with what was typed so far in its environment;
click finds out which option or argument is meant and asks one of the functions below. Whatever goes
wrong offers nothing: an error would be printed into the line that somebody types.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from reconciler.cli.globals import Globals
    from reconciler.model.ids import BundleKey
    from reconciler.model.layout import Layout

VARIABLE: Final = "_CONTAINERD_RECONCILER_COMPLETE"
"""Says which shell asks. The same for both programs."""

SHELLS: Final = ("bash", "fish", "zsh")
HELP: Final = ["-h", "--help"]


def answer(command: click.Command, program: str, instruction: str) -> int:
    """Print what may stand where somebody types; give an exit code."""
    from click.shell_completion import shell_complete

    from reconciler.errors import ReconcilerError

    try:
        return shell_complete(command, {"help_option_names": HELP}, program, VARIABLE, instruction)
    except (click.ClickException, ReconcilerError, OSError, KeyError, ValueError):
        return 1  # KeyError, ValueError: click's, where its script did not ask


def script(shell: str, program: str) -> str:
    """Give what a shell must read so that it completes a program's command line."""
    from click import shell_completion as known

    kinds = {"bash": known.BashComplete, "fish": known.FishComplete, "zsh": known.ZshComplete}
    kind = kinds[shell](click.Command(program), {}, program, VARIABLE)
    # Not the override of its bash, which runs the bash that is here to learn how old it is.
    return known.ShellComplete.source(kind)


def files(_ctx: click.Context, _param: click.Parameter, typed: str) -> "list[CompletionItem[str]]":
    """Let the shell offer files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


def directories(
    _ctx: click.Context, _param: click.Parameter, typed: str
) -> "list[CompletionItem[str]]":
    """Let the shell offer directories."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="dir")]


def words(known: Collection[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Offer words that are separated by commas, none of them twice."""

    def offer(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
        said, comma, last = typed.rpartition(",")
        left = set(known) - set(said.split(","))
        return [f"{said}{comma}{word}" for word in known if word in left and word.startswith(last)]

    return offer


def instances(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """Offer the products whose containerd is here, else all that are known."""
    from reconciler.settings.instances import KNOWN, instances_here

    return [name for name in instances_here() or KNOWN if name.startswith(typed)]


def commands(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """Offer the names of commands."""
    root = ctx.find_root().command
    known = root.list_commands(ctx) if isinstance(root, click.Group) else []
    return [name for name in known if name.startswith(typed)]


def namespaces(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """Offer the namespaces that have bundles now."""
    found = {key.namespace for key in _bundles(_said(ctx))}
    return sorted(name for name in found if name.startswith(typed))


def bundles(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """Offer bundles as ``NS/ID``, or by the id alone where it begins like what is typed."""
    said = _said(ctx)
    found = sorted(one for one in _bundles(said) if said.namespace in ((), (one.namespace,)))
    return list(_fitting(found, typed))


def full_names(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """Offer bundles as ``NS/ID`` alone."""
    return [name for name in map(str, sorted(_bundles(_said(ctx)))) if name.startswith(typed)]


def _fitting(found: "Iterable[BundleKey]", typed: str) -> Iterator[str]:
    for key in found:
        if str(key).startswith(typed):
            yield str(key)
        elif key.id.startswith(typed):
            yield key.id


def _bundles(said: "Globals") -> "set[BundleKey]":
    """List the tree; names that containerd cannot have made are never put into a command line."""
    from reconciler.cli.setup import load_layers

    return {key for key in _listed(load_layers(said).layout) if key.is_identifier}


def _listed(layout: "Layout") -> "Iterator[BundleKey]":
    from reconciler.probe.checks import check_tree
    from reconciler.probe.tree import TreeInspector

    if check_tree(layout) is None:
        for seen in TreeInspector(layout).list().bundles:
            yield seen.key


def _said(ctx: click.Context) -> "Globals":
    """Give what was said so far for all commands, before and after the command's name."""
    from reconciler.cli.globals import merge

    if ctx.parent is not None:
        ctx.obj = _said(ctx.parent)
    return merge(ctx)
