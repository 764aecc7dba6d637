"""How many examples a property gets: few in a run of the tests, more where `make explore` looks."""

from typing import Final

from hypothesis import settings

_USUAL: Final = 100


def several(count: int) -> int:
    """Give ``count``, or as many times more as the profile in force has more than the usual."""
    return count * settings().max_examples // _USUAL
