"""Options by which bundles are chosen, and how their table is written. Words to values."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec
from msgspec.structs import replace

from reconciler.cli.completing import bundles, words
from reconciler.cli.labels import parse
from reconciler.cli.option_types import name
from reconciler.cli.output import Output
from reconciler.cli.selection import SORTS, Selection, parse_name
from reconciler.model.decisions import Phase, Verdict

if TYPE_CHECKING:
    from reconciler.present.shapes import Bundle
    from reconciler.present.status import Status
    from reconciler.present.table import Table

_KEPT: Final = "reconciler.list."

_Word = TypeVar("_Word", Verdict, Phase)


class Listing(msgspec.Struct, frozen=True):
    """How bundles are listed.

    Attributes:
        verdicts, phases: Only these; empty for all.
        sort_by: See :data:`.selection.SORTS`; None for their order by name.
        headers: Whether the columns are named.
        whole: Whether a terminal gets all of it, too.
    """

    verdicts: frozenset[Verdict] = frozenset()
    phases: frozenset[Phase] = frozenset()
    sort_by: str | None = None
    headers: bool = True
    whole: bool = False

    def write(self, table: "Table", output: Output, *, goes_on: bool = False) -> None:
        """Write a table as it is wanted; ``goes_on``: below one with its headings."""
        table.headings = self.headers and not goes_on
        output.table(table)

    def of_status(self, shown: "Status", namespaces: Sequence[str]) -> "Status":
        """Narrow what a daemon tells of single bundles; its counts are of all."""
        if not (namespaces or self.verdicts or self.phases or self.sort_by):
            return shown
        spaces = set(map(name, namespaces))
        verdicts = {one.value for one in self.verdicts}
        phases = {one.value for one in self.phases}
        bundles = [
            one
            for one in shown.bundles
            if (not spaces or one.namespace in spaces)
            and (not verdicts or one.verdict in verdicts)
            and (not phases or one.phase in phases)
        ]
        debris = [
            one
            for one in shown.debris
            if (not spaces or one.namespace in spaces)
            and (not verdicts or one.verdict in verdicts)
            and (not phases or one.phase in phases)
        ]
        if self.sort_by is not None:
            bundles.sort(key=_SORTS[self.sort_by])
        recent = [one for one in shown.recent if not spaces or one.result.namespace in spaces]
        return replace(shown, bundles=bundles, debris=debris, recent=recent)


_SORTS: "Final[dict[str, Callable[[Bundle], tuple[object, ...]]]]" = {
    "age": lambda one: (-one.age_seconds, one.namespace, one.id),
    "size": lambda one: (-one.size_bytes, one.namespace, one.id),
    "id": lambda one: (one.id, one.namespace),
}
ALL: Final = Listing()


def selection(names: Sequence[str], selector: Sequence[str], listing: Listing = ALL) -> Selection:
    """Put together what is meant.

    Raises:
        click.BadParameter, UsageError: It cannot be meant.
    """
    return Selection(
        names=tuple(map(parse_name, names)),
        labels=tuple(one for text in selector for one in parse(text)),
        verdicts=listing.verdicts,
        phases=listing.phases,
    )


def _words(of: type[_Word], option: str, value: object) -> frozenset[_Word]:
    """Read words that are separated by commas."""
    known = {one.value: one for one in of if one.value}
    said = value if isinstance(value, tuple) else ()
    words = [word.strip().lower() for text in said for word in str(text).split(",")]
    for word in words:
        if word not in known:
            from difflib import get_close_matches  # only who made a mistake pays for it

            near = get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use some of {', '.join(known)}"
            raise click.BadParameter(f"{word!r} is none; {hint}", param_hint=option)
    return frozenset(known[word] for word in words)


no_trunc: Final = click.option(
    "--no-trunc", is_flag=True, help="Whole ids, and every row in full, on a terminal too."
)
by_label: Final = click.option(
    "-l",
    "--selector",
    multiple=True,
    metavar="SELECTOR",
    help="Only with these annotations or pod labels: key=value, key!=value, key, !key.",
)
names: Final = click.argument(
    "names", metavar="[NAMESPACE/ID|ID-PREFIX]...", nargs=-1, shell_complete=bundles
)


def list_options() -> list[click.Parameter]:
    """Make the options of a list anew; what is said of them is had by :func:`said_of_list`."""
    return [
        _option("--verdict", "Only with one of these verdicts.", Verdict, metavar="VERDICT,..."),
        _option("--phase", "Only in one of these phases.", Phase, metavar="PHASE,..."),
        click.Option(
            ["--sort-by"],
            type=click.Choice(list(SORTS)),
            expose_value=False,
            callback=_keep,
            help="The oldest or the largest first, or by id.",
        ),
        _flag("--no-headers", "Do not name the columns."),
        _flag("--no-trunc", "Whole ids, and every row in full, on a terminal too."),
    ]


def said_of_list() -> Listing:
    """Give what was said of the list by the options of the command that runs.

    Raises:
        click.BadParameter: A word that is none.
    """
    said: dict[str, object] = click.get_current_context().meta
    return Listing(
        verdicts=_words(Verdict, "--verdict", said.get(_KEPT + "verdict")),
        phases=_words(Phase, "--phase", said.get(_KEPT + "phase")),
        sort_by=None if (by := said.get(_KEPT + "sort_by")) is None else str(by),
        headers=not said.get(_KEPT + "no_headers"),
        whole=bool(said.get(_KEPT + "no_trunc")),
    )


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    ctx.meta[f"{_KEPT}{param.name}"] = value


def _option(option: str, help_: str, of: type[_Word], *, metavar: str) -> click.Option:
    return click.Option(
        [option],
        multiple=True,
        expose_value=False,
        callback=_keep,
        metavar=metavar,
        help=help_,
        shell_complete=words([one.value for one in of if one.value]),
    )


def _flag(option: str, help_: str) -> click.Option:
    return click.Option([option], is_flag=True, expose_value=False, callback=_keep, help=help_)
