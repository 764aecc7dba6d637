"""What all values are made of: frozen, compared and hashed by content, one wire form. Pure.

The journal's lines and the messages between processes are these values as msgspec writes them: a
field at its default is left out, an enumeration stands for its value. So a default here means
"nothing was learnt" and never changes; a field whose name changes keeps its written one.
"""

from enum import Enum
from typing import Final, Never

import msgspec

KIND: Final = "kind"
"""The field that distinguishes an observation or a decision from the others of its union."""

EMPTY: Final[frozenset[Never]] = frozenset()
"""The default of every set: what is left out is this very object, for there are several empty."""


class Word(Enum):
    """An enumeration whose members are found in sets and dictionaries at the speed of objects.

    ``Enum`` hashes a member by its name, in Python. Members are single objects that compare by
    identity, so identity may as well be their hash; a verdict asks for a dozen of them.
    """

    __hash__ = object.__hash__


class Value(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A part of an observation or decision."""


class Tagged(Value, frozen=True, tag_field=KIND):
    """An observation or a decision; its ``kind`` is written with it."""
