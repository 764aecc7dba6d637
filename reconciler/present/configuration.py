"""Configuration: `config show` and `config check` with -o json. Values flow in, documents out."""

from collections.abc import Iterable
from typing import Protocol

from reconciler.present.envelope import Document, Envelope, Shape


class InForce(Protocol):
    """A value in force, as :mod:`reconciler.settings.show` lists it."""

    @property
    def key(self) -> str:
        """Its dotted key."""

    @property
    def value(self) -> object:
        """What a configuration file says for it; None if nothing is said."""

    @property
    def origin(self) -> str:
        """The file, variable or option it comes from, or ``default``."""


class Wrong(Protocol):
    """Something that is wrong, as :mod:`reconciler.settings.problems` has it."""

    @property
    def where(self) -> str:
        """The file, ``environment`` or ``command line``."""

    @property
    def key(self) -> str:
        """The dotted key, the option or variable; empty for the whole."""

    @property
    def reason(self) -> str:
        """What is wrong, a sentence without its subject."""

    @property
    def hint(self) -> str:
        """What to do about it; may be empty."""


class ConfigProblem(Shape, frozen=True, kw_only=True):
    """One thing that is wrong; no key where it is of the whole file."""

    where: str
    key: str = ""
    reason: str
    hint: str = ""


class ConfigCheck(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `config check -o json`.

    Attributes:
        ok: Whether it can be used.
        files: The files that were read; none where one of them cannot be used.
        problems: What is wrong, all of it.
        notes: What can be meant, and is probably not.
    """

    ok: bool
    files: list[str]
    problems: list[ConfigProblem]
    notes: list[str]


class ConfigValue(Shape, frozen=True, kw_only=True):
    """One value of `config show -o json`; none where nothing is set and nothing is the default."""

    key: str
    value: object = None
    origin: str


class Configuration(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `config show -o json`; ``files`` in the order in which they were read."""

    files: list[str]
    values: list[ConfigValue]


def configuration(
    values: Iterable[InForce], files: Iterable[str], envelope: Envelope
) -> Configuration:
    """Shape all values in force."""
    return Configuration(
        **envelope,
        files=list(files),
        values=[ConfigValue(key=one.key, value=one.value, origin=one.origin) for one in values],
    )


def checked(
    wrong: Iterable[Wrong], notes: Iterable[str], files: Iterable[str], envelope: Envelope
) -> ConfigCheck:
    """Shape what a check has found."""
    problems = [
        ConfigProblem(where=one.where, key=one.key, reason=one.reason, hint=one.hint)
        for one in wrong
    ]
    return ConfigCheck(
        **envelope, ok=not problems, files=list(files), problems=problems, notes=list(notes)
    )
