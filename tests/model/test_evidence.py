"""The values of evidence, as they travel."""

import msgspec
import pytest

from reconciler.model.evidence import Entries


@pytest.mark.parametrize("number", [0, 1, 3, (1 << 13) - 1, 1 << 20, -1])
def test_a_decoded_set_of_entries_is_the_one_that_is_made_here(number: int) -> None:
    """Also one with bits that we do not know; a value that is decoded twice is the same object."""
    decoded = msgspec.json.decode(str(number), type=Entries)
    assert decoded == Entries(number)
    assert decoded is msgspec.json.decode(str(number), type=Entries)
