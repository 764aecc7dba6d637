"""Configuration: `config show -o json`. Values flow in as a file has them, a document flows out."""

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
