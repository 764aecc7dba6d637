"""Words: enumerations whose members are found in sets and dictionaries at the speed of objects.

``Enum`` hashes a member by its name, in Python. Members are single objects that compare by
identity, so identity may as well be their hash; a verdict asks for a dozen of them.
"""

from enum import Enum


class Word(Enum):
    """An enumeration with members hashed by identity."""

    __hash__ = object.__hash__
