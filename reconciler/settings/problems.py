"""Problems: what is wrong with a configuration, where, and what was probably meant."""

import re
from collections.abc import Collection, Iterable
from typing import Final

import msgspec
from typing_extensions import override

from reconciler.errors import ConfigError
from reconciler.model.ids import escape

_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SLIP: Final = 0.9  # so much alike are a name and the same with a slip of the finger
LONGEST: Final = 64
"""Characters of what somebody wrote that are shown of it."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        where: The file, ``environment``, or ``command line``.
        key: The key in dotted form, or the option or variable; empty for the whole.
        reason: What is wrong, in a sentence without its subject.
        hint: What to do about it; may be empty.
    """

    where: str
    key: str
    reason: str
    hint: str = ""

    @property
    def what(self) -> str:
        """The problem without the hint, on one line."""
        return ": ".join(part for part in (self.where, self.key, self.reason) if part)

    @override
    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class SettingsError(ConfigError):
    """A configuration that cannot be used.

    Attributes:
        problems: All that is wrong with it; the first one is the message.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, more = self.problems[0], len(self.problems) - 1
        others = f" (and {more} more)" if more else ""
        super().__init__(first.what + others, first.hint)


def short(text: str) -> str:
    """Give as much of what somebody wrote as is shown of it."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def below(key: str, name: str) -> str:
    """Give the dotted key of a name in a table, quoted where TOML needs quotes."""
    part = name
    if not _BARE.fullmatch(name):
        part = f'"{escape(short(name).encode("utf-8", "surrogateescape"))}"'
    return f"{key}.{part}" if key else part


def nearest(name: str, known: Collection[str]) -> str:
    """Find the known name most like one; empty if none is like it.

    What a name begins with is nearer than what merely looks like it: ``pod_name`` means ``pod``.
    """
    from difflib import get_close_matches  # only who made a mistake pays for it

    name = name[:LONGEST]
    close = get_close_matches(name, known, 1, _SLIP)
    begun = sorted((one for one in known if name.startswith(f"{one}_")), key=len, reverse=True)
    return next(iter([*close, *begun, *get_close_matches(name, known, 1)]), "")


def meant(name: str, known: Collection[str]) -> str:
    """Ask for the known name that was probably meant, as a hint; empty if none is like it."""
    close = nearest(name, known)
    return f'did you mean "{close}"?' if close else ""
