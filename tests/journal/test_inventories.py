"""An inventory that found the same again is one short line, and is read as it was."""

import json

import pytest

from reconciler.journal.lines import BadLineError, Decoder, Encoder, Given, Lost
from reconciler.model.debris import DebrisKind, Inventory, Place
from tests.decide.debris_world import places
from tests.journal.test_lines import HEADER

MANY = places(200)


def given(since: float, *found: Place, troubles: tuple[str, ...] = ()) -> Given:
    taken = Inventory(since, tuple(DebrisKind), found, troubles, seconds=since / 1e6)
    return Given(since, 0.0, taken)


def test_what_is_the_same_is_written_once_and_read_each_time() -> None:
    told = [given(at, *MANY) for at in (1.0, 240.0, 480.0)] + [given(720.0, *MANY[1:])]
    encoder, decoder = Encoder(), Decoder()
    encoder.header(HEADER)
    lines = [encoder.record(one) for one in told]
    assert [len(line) > 1000 for line in lines] == [True, False, False, True]
    read = [decoder.record(line) for line in lines]
    seen = [one.observation for one in read if isinstance(one, Given)]
    assert seen == [one.observation for one in told]


@pytest.mark.parametrize("what", ["header", "loss"])
def test_after_a_header_or_a_loss_it_is_written_in_full(what: str) -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    encoder.record(given(1.0, *MANY))
    if what == "header":
        encoder.header(HEADER)
    else:
        encoder.lost(Lost(1, "why"))
    assert len(encoder.record(given(2.0, *MANY))) > 1000


def test_one_that_repeats_a_line_that_was_lost_is_refused() -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    encoder.record(given(1.0, *MANY))
    again = encoder.record(given(2.0, *MANY))
    with pytest.raises(BadLineError):
        Decoder().record(again)


def test_other_troubles_are_another_inventory() -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    encoder.record(given(1.0, *MANY))
    line = json.loads(encoder.record(given(2.0, *MANY, troubles=("mount: it hangs",))))
    assert line["seen"]["troubles"] == ["mount: it hangs"]
