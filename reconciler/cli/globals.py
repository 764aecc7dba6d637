"""What was said for all commands: options that every command takes, before or after its name.

Nothing is looked up here; what was not said stays None, so that configuration and defaults can fill
it. The options themselves are in :mod:`reconciler.cli.options`.
"""

from enum import Enum
from typing import Final, NamedTuple

import click
from click.core import ParameterSource

from reconciler.errors import UsageError

UNATTENDED: Final = "containerd-cleanup"
"""The name under which `clean` asks nothing: existing units use it."""


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


NAMES: Final = frozenset(Globals._fields)


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
