"""Where output goes: data to standard output, messages to standard error, and in which dress.

Colour, fitting to the window and progress are for terminals only; ``NO_COLOR`` is honoured (by
rich). A pipe gets plain text with nothing cut off. Much of what is written was read on the node, so
whatever passes here is made printable: nothing that a process or a file is called moves a cursor.
"""

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from reconciler.telemetry import sink

if TYPE_CHECKING:
    from rich.console import Console

    from reconciler.present.envelope import Envelope
    from reconciler.present.table import Table


class Heading(NamedTuple):
    """What does not change while a foreground run is shown.

    Attributes:
        title: The program's name or what is being shown.
        tree: The state directory.
        enforce: Whether leftovers are removed.
        hint: The last line: how to end it.
    """

    title: str
    tree: str
    enforce: bool
    hint: str = "Ctrl-C ends"


def envelope(wall: float | None = None, node: str = "") -> "Envelope":
    """Give the envelope of a document.

    Args:
        wall: When it was made; None for now.
        node: What it is about, if not this node.
    """
    from reconciler.clock import SystemClock
    from reconciler.present.envelope import envelope as made
    from reconciler.settings.environment import node_name

    return made(node or node_name(os.environ), SystemClock().wall() if wall is None else wall)


def printable_lines(text: str) -> str:
    """Make text printable that has lines of its own."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join(_printable(line) for line in text.split("\n"))


def _printable(line: str) -> str:
    from reconciler.model.ids import printable  # `--version` starts without the model

    return printable(line)


def folded(text: str) -> str:
    """Break a line between words where the terminal would break it inside of one."""
    import shutil
    import textwrap

    width = shutil.get_terminal_size().columns
    if len(text) <= width:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


class Output:
    """The two streams of a command; ``whole``: a terminal gets tables as a pipe does."""

    def __init__(self, *, quiet: bool = False, whole: bool = False) -> None:
        self.quiet = quiet
        self._whole = whole

    @property
    def on_terminal(self) -> bool:
        """Whether data is read by a person now."""
        return sys.stdout.isatty()

    @property
    def messages_on_terminal(self) -> bool:
        """Whether messages are read by a person now."""
        return sys.stderr.isatty()

    @property
    def shares_terminal(self) -> bool:
        """Whether messages would be written into a view drawn on standard output."""
        return self.on_terminal and self.messages_on_terminal

    @property
    def colour(self) -> bool:
        """Whether the operator has nothing against colour."""
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown, on standard error."""
        return self.messages_on_terminal and not self.quiet

    def data(self, text: str) -> None:
        """Write data, a line each."""
        sys.stdout.write(printable_lines(text))

    def prose(self, line: str) -> None:
        """Write a sentence as data."""
        line = _printable(line)
        sys.stdout.write(f"{folded(line) if self.on_terminal else line}\n")

    def json(self, text: str) -> None:
        """Write JSON; what cannot be printed is written as JSON has it, so nothing is lost."""
        from reconciler.present import formatting

        sys.stdout.write(formatting.printable_json(text))

    def table(self, table: "Table", *, to_messages: bool = False) -> None:
        """Write a table: fitted to a terminal, and in full elsewhere or if it is wanted whole."""
        terminal = self.messages_on_terminal if to_messages else self.on_terminal
        if terminal and not self._whole:
            from reconciler.cli.console import fitted

            self.console(to_messages=to_messages).print(fitted(table))
            return
        (sys.stderr if to_messages else sys.stdout).write(table.plain())

    def flush(self) -> None:
        """Let whoever reads data have it now: more comes later."""
        sys.stdout.flush()

    def say(self, line: str) -> None:
        """Write a message, unless told to be quiet."""
        if not self.quiet:
            self._message(sink.INFO, line)

    def complain(self, line: str) -> None:
        """Write what is wrong, also if told to be quiet."""
        self._message(sink.ERROR, f"containerd-reconciler: {line}")

    def _message(self, level: int, line: str) -> None:
        line = _printable(line)
        text = folded(line) if self.messages_on_terminal else line
        click.echo(sink.prefix(level) + text, err=True)

    def ask(self, question: str) -> bool:
        """Ask for a yes; anything else is a no."""
        return click.confirm(question, default=False, err=True)

    def console(self, *, to_messages: bool = False) -> "Console":
        """Make a rich console on one of the streams."""
        from reconciler.cli.console import PlainConsole

        return PlainConsole(stderr=to_messages, highlight=False, emoji=False, markup=False)
