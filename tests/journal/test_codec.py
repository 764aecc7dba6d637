"""Every value goes into the journal and comes back as it was."""

import types
import typing
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.journal import wire
from reconciler.journal.decode import (
    BadLineError,
    Decoder,
    Gap,
    Given,
    NewerSchemaError,
    NoJournalError,
    read_header,
)
from reconciler.journal.encode import Encoder
from reconciler.journal.values import policies_out
from reconciler.journal.writer import GAP
from reconciler.model.decisions import Decision, Judged
from reconciler.model.evidence import Entries, Look
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hint, Listed, Looked, NodeLooked, Observation, Seen, Stamp
from reconciler.model.policy import Policies
from tests.decide.world import dead, key, running

START = Stamp(1000.5, 1_700_000_000.25)
HEADER = wire.Header(
    journal=wire.MAGIC,
    schema=wire.SCHEMA,
    program="0",
    host="h",
    boot="b",
    mono=START.mono,
    wall=START.wall,
    run="r",
    part=0,
    config="",
    policies=policies_out(Policies()),
)

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text("aé/\\\n", max_size=3)
few_names = st.sampled_from(["a", "b", "\\xff\\x0a", "a/b", "\\x5cx41", "é"])
SIMPLE: dict[object, st.SearchStrategy[object]] = {
    float: finite,
    str: text,
    int: st.integers(0, 2**63 - 1),
    bool: st.booleans(),
    type(None): st.none(),
    Entries: st.integers(0, 2**13 - 1).map(Entries),
    BundleKey: st.builds(BundleKey, few_names, few_names),
}


def any_of(kind: object) -> st.SearchStrategy[object]:  # noqa: PLR0911 - one case each
    """Build values of a type, every field drawn: a field the journal forgets is found here."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*[any_of(part) for part in parts])
    if origin is tuple and parts[-1] is ...:
        return st.lists(any_of(parts[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[any_of(part) for part in parts])
    if origin is frozenset:
        return st.frozensets(any_of(parts[0]), max_size=2)
    assert isinstance(kind, type), kind
    fields = typing.get_type_hints(kind)
    return st.builds(kind, **{name: any_of(field) for name, field in fields.items()})


observations = st.one_of(*[any_of(kind) for kind in typing.get_args(Observation)])
decisions = st.one_of(*[any_of(kind) for kind in typing.get_args(Decision)])
stamps = st.builds(Stamp, finite, finite) | st.builds(
    lambda mono, drift: Stamp(mono, mono + (START.wall - START.mono) + drift),
    st.floats(0, 1e7),
    st.floats(-1, 1),
)
given_things = st.builds(
    Given,
    stamps,
    observations | st.none(),
    st.just(None) | any_of(Policies),
    st.lists(decisions, max_size=5).map(tuple),
)


def there_and_back(*things: Given) -> list[Given | Gap]:
    encoder, decoder = Encoder(), Decoder(read_header(Encoder().header(HEADER)))
    encoder.header(HEADER)
    out = []
    for thing in things:
        line = encoder.step(thing.stamp, thing.observation, thing.policies, thing.decisions)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        out.append(decoder.record(line))
    return out


def order_of_shims_forgotten(thing: Given) -> Given:
    """Shims are a set in all but type: their order carries nothing and is not kept."""
    said = thing.observation
    if not isinstance(said, NodeLooked) or said.sweep is None:
        return thing
    shims = tuple(sorted(set(said.sweep.shims), key=repr))
    return thing._replace(observation=replace(said, sweep=replace(said.sweep, shims=shims)))


@given(st.lists(given_things, max_size=6))
def test_every_value_comes_back_as_it_was(things: list[Given]) -> None:
    back = there_and_back(*things)
    assert [order_of_shims_forgotten(b) for b in back if isinstance(b, Given)] == [
        order_of_shims_forgotten(t) for t in things
    ]


@given(st.lists(observations, min_size=1, max_size=5))
def test_a_gap_begins_all_numbering_anew(seen: list[Observation]) -> None:
    encoder, decoder = Encoder(), Decoder(HEADER)
    encoder.header(HEADER)
    for observation in seen:
        decoder.record(encoder.step(START, observation, None, ()))
    gap = Gap(7, "disk full", Policies(settle=3.0))
    assert Encoder().gap(7, "disk full", Policies()).startswith(GAP)
    assert decoder.record(encoder.gap(gap.lost, gap.why, Policies(settle=3.0))) == gap
    fresh = Decoder(HEADER)
    for observation in seen:
        line = encoder.step(START, observation, None, ())
        assert fresh.record(line) == decoder.record(line)


def test_an_unchanged_look_is_short() -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    first = encoder.step(START, Looked(key(), dead()), None, ())
    again = encoder.step(START, Looked(key(), dead()), None, ())
    other = encoder.step(START, Looked(key(), running()), None, ())
    assert len(again) < 50 < len(first)
    assert len(other) > 100


def test_a_listing_is_told_as_a_difference() -> None:
    names = [BundleKey("ns", str(n)) for n in range(1000)]
    listing = Listed(True, True, tuple(seen(name) for name in names))
    fewer = replace(listing, bundles=listing.bundles[:500] + listing.bundles[501:])
    encoder, decoder = Encoder(), Decoder(HEADER)
    encoder.header(HEADER)
    whole = encoder.step(START, listing, None, ())
    less = encoder.step(START, fewer, None, ())
    more = encoder.step(START, listing, None, ())
    turned = encoder.step(START, replace(listing, bundles=listing.bundles[::-1]), None, ())
    assert len(less) < 80 > len(more)
    back = [listing_of(decoder.record(line)) for line in (whole, less, more, turned)]
    assert [len(listed.bundles) for listed in back] == [1000, 999, 1000, 1000]
    assert back[2] == listing


def listing_of(thing: Given | Gap) -> Listed:
    assert isinstance(thing, Given), thing
    assert isinstance(thing.observation, Listed), thing
    return thing.observation


def seen(name: BundleKey) -> Seen:
    return Seen(name, Identity(1, int(name.id) + 1, 1))


def test_tables_keep_only_what_lives() -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    for n in range(1000):
        name = BundleKey("ns", str(n))
        encoder.step(START, Hint(name), None, ())
        encoder.step(START, Looked(name, dead(n)), None, ())
        encoder.step(START, Looked(name, None), None, ())
    assert len(encoder._tables.by_number) == len(encoder._tables.by_key) == 0


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", NoJournalError),
        (b"{}", NoJournalError),
        (b"\xff\xfe\x00", NoJournalError),
        (b"[" * 100_000, NoJournalError),
        (b'{"journal":"other","schema":1}', NoJournalError),
        (b'{"journal":"containerd-reconciler","schema":1}', NoJournalError),
        (b'{"journal":"containerd-reconciler","schema":2,"new":{"x":[]}}', NewerSchemaError),
    ],
)
def test_a_bad_first_line_is_refused_with_its_reason(
    line: bytes, error: type[BadLineError]
) -> None:
    with pytest.raises(error):
        read_header(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"t":"x"}',
        b'{"t":1,"o":{"k":"hint","b":0}}',
        b'{"t":1,"o":{"k":"hint","b":-1}}',
        b'{"t":1,"n":[["a","b"]],"o":{"k":"same","b":0}}',
        b'{"t":1,"n":[["a","b"]],"o":{"k":"list","add":[[0,0]]}}',
        b'{"t":1,"n":[["a","b"]],"o":{"k":"hint","b":0,"y":"?"}}',
        b'{"t":1,"o":{"k":"unheard of"}}',
        b'{"t":1,"d":[{"k":"look-at"}]}',
        b'{"t":1,"d":[{"k":"judged","b":0,"j":3}]}',
        b'{"t":1,"x":' + b"[" * 100_000,
    ],
)
def test_a_bad_record_is_a_bad_line_and_nothing_else(line: bytes) -> None:
    with pytest.raises(BadLineError):
        Decoder(HEADER).record(line)


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    encoder = Encoder()
    encoder.header(HEADER)
    line = encoder.step(START, Hint(key()), None, ())
    grown = line.replace(b'"o":{', b'"new":[1,{"a":2}],"o":{"newer":3,')
    assert Decoder(HEADER).record(grown) == Decoder(HEADER).record(line)
    header = msgspec.json.encode(HEADER).replace(b'{"journal"', b'{"later":[],"journal"')
    assert read_header(header) == HEADER


def test_the_schema_names_every_field_of_a_look() -> None:
    """A field that the model gains must not be lost in silence: bump or extend the format."""
    assert {f.name for f in msgspec.structs.fields(wire.Look)} == {
        *("i", "k", "e", "m", "z", "created", "runtime", "init"),
        *("shim", "cgroup", "mounts", "shown", "labels", "cut", "cgroup_source", "cgroup_paths"),
    }
    assert len(Look.__struct_fields__) == 15
    assert len(Judged.__struct_fields__) == 7
