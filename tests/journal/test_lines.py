"""Every value goes into the journal and comes back as it was, one line for itself."""

import json
import types
import typing
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.journal.differences import Difference, Gone, Restored
from reconciler.journal.lines import (
    MAGIC,
    SCHEMA,
    BadLineError,
    Decoder,
    Encoder,
    Given,
    Header,
    Lost,
    OtherSchemaError,
    read_header,
)
from reconciler.model.decisions import Decision, LookAt
from reconciler.model.evidence import Containerd, ContainerdState, Entries, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hint, Listed, Looked, NodeLooked, Observation, Seen
from reconciler.model.policy import Policies
from tests.decide.world import dead, key

MONO, WALL = 1000.5, 1_700_000_000.25
HEADER = Header(
    journal=MAGIC,
    schema=SCHEMA,
    program="0.2.0",
    host="h",
    boot="b",
    mono=MONO,
    wall=WALL,
    run="r",
    part=0,
    config="",
    policies=Policies(),
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
given_things = st.builds(
    Given,
    finite,
    finite,
    observations | st.none(),
    st.none() | any_of(Policies),
    st.lists(decisions, max_size=5).map(tuple),
)
names = st.frozensets(st.builds(BundleKey, few_names, few_names), max_size=6)
nodes = st.builds(
    NodeLooked,
    finite,
    st.none()
    | st.builds(
        ProcessScan,
        st.booleans(),
        names,
        st.lists(any_of(ShimProcess), unique=True, max_size=6).map(tuple),
        st.frozensets(few_names),
        st.just(()),
        st.frozensets(few_names),
    ),
    st.none() | st.builds(Containerd, st.sampled_from(ContainerdState), names),
)


def told(*observations: Observation) -> list[Given]:
    return [Given(MONO + n, WALL + n, observation) for n, observation in enumerate(observations)]


def lines_of(*things: Given) -> list[bytes]:
    encoder = Encoder()
    encoder.header(HEADER)
    return [encoder.record(thing) for thing in things]


def read(lines: list[bytes]) -> list[Given | Lost | None]:
    """Read each line, None for what is damaged."""
    decoder, out = Decoder(), list[Given | Lost | None]()
    for line in lines:
        try:
            out.append(decoder.record(line))
        except BadLineError:
            out.append(None)
    return out


def plain(thing: Given | Lost | None) -> Given:
    """What was given, without the number of its line.

    Shims are a set in all but type: their order carries nothing and is not kept.
    """
    assert isinstance(thing, Given), thing
    said = thing.observation
    if isinstance(said, NodeLooked) and said.processes is not None:
        shims = tuple(sorted(set(said.processes.shims), key=repr))
        said = replace(said, processes=replace(said.processes, shims=shims))
    return replace(thing, observation=said, full=0)


@given(st.lists(given_things, max_size=6))
def test_every_value_comes_back_as_it_was(things: list[Given]) -> None:
    lines = lines_of(*things)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert [plain(one) for one in read(lines)] == [plain(thing) for thing in things]


@given(st.lists(nodes, max_size=12))
def test_what_a_node_says_comes_back_from_its_differences(said: list[NodeLooked]) -> None:
    things = told(*said)
    assert [plain(one) for one in read(lines_of(*things))] == [plain(thing) for thing in things]


def leans_on(line: dict[str, object]) -> tuple[str, object] | None:
    """Give kind and number of the full line that one needs; each kind has numbers of its own."""
    for kind, name in (("node", "difference"), ("inventory", "same")):
        if isinstance(leaning := line.get(name), dict):
            return kind, leaning["full"]
    return None


@given(st.lists(given_things, min_size=2, max_size=8), st.data())
def test_a_line_that_is_lost_costs_that_line(things: list[Given], data: st.DataObject) -> None:
    """Only a difference leans on another line, and it is lost with that one, not mistaken."""
    lines, gone = lines_of(*things), data.draw(st.integers(0, len(things) - 1))
    lost = json.loads(lines[gone])
    full = (lost["seen"]["kind"], lost["full"]) if "full" in lost else None
    for place, one in enumerate(read([*lines[:gone], b"oops\n", *lines[gone + 1 :]])):
        if place == gone or (full is not None and leans_on(json.loads(lines[place])) == full):
            assert one is None
        else:
            assert plain(one) == plain(things[place])


def node(*ids: int) -> NodeLooked:
    keys = [BundleKey("k8s.io", f"{id_:064}") for id_ in ids]
    shims = tuple(ShimProcess(name, pid) for pid, name in zip(ids, keys, strict=True))
    paths = frozenset(f"/k8s.io/{name.id}" for name in keys)
    scan = ProcessScan(answered=True, shims=shims, cgroup_paths=paths)
    return NodeLooked(MONO, scan, Containerd(ContainerdState.UP, frozenset(keys)))


def test_a_node_that_hardly_changes_is_a_difference_to_the_last_full_one() -> None:
    said = [node(*range(30)), node(*range(1, 30)), node(*range(2, 31)), node(*range(2, 31))]
    lines = lines_of(*told(*said))
    assert len(lines[0]) > 7000
    assert max(map(len, lines[1:])) < 700
    assert [json.loads(line)["difference"]["full"] for line in lines[1:]] == [1, 1, 1]
    assert json.loads(lines[3])["difference"]["gone"]["tasks"] == [0, 1]
    without_those_between = read([lines[0], lines[3]])
    assert [one and plain(one).observation for one in without_those_between] == [said[0], said[3]]


def test_a_full_one_comes_again_when_the_differences_have_grown_to_twice_its_size() -> None:
    lines = lines_of(*told(*(node(*range(n, n + 30)) for n in range(60))))
    whole = [place for place, line in enumerate(lines) if b'"full":' in line and b'"seen"' in line]
    assert 3 < len(whole) < 10
    assert sum(map(len, lines)) < 60 * len(lines[0]) / 3
    other = lines_of(*told(node(*range(30)), node(*range(100, 130))))
    assert b'"difference"' not in other[1], "nothing of it is as it was"


def test_a_full_one_is_at_the_head_of_a_file_and_after_each_loss() -> None:
    encoder = Encoder()
    thing = told(node(1, 2, 3))[0]
    for begin in (
        lambda: encoder.header(HEADER),
        lambda: encoder.lost(Lost(3, "disk full", Policies())),
        encoder.begin_anew,
    ):
        begin()
        first, then = encoder.record(thing), encoder.record(thing)
        assert b'"seen"' in first
        assert b'"difference"' in then
        assert [plain(one) for one in read([first, then])] == [plain(thing)] * 2


def test_a_loss_comes_back_with_the_policies_in_force() -> None:
    lost = Lost(7, "disk full", Policies(settle=3.0))
    assert Decoder().record(Encoder().lost(lost)) == lost
    assert Decoder().record(b'{"lost":2,"reason":"disk full"}\n') == Lost(2, "disk full")


def test_a_line_is_read_by_names() -> None:
    """What `jq` sees: names as in the model, enumerations by value, defaults left out."""
    thing = Given(MONO, WALL, Hint(key()), decisions=(LookAt(key()),))
    assert json.loads(lines_of(thing)[0]) == {
        "mono": MONO,
        "wall": WALL,
        "seen": {"kind": "hint", "key": [*key()]},
        "decided": [{"kind": "look-at", "key": [*key()]}],
    }
    look = json.loads(lines_of(*told(Looked(key(), dead())))[0])["seen"]["look"]
    assert look["identity"] == [dead().identity.dev, dead().identity.ino, dead().identity.mount_id]
    assert look["init"]["state"] == "dead"
    assert look["shim"]["state"] == "dead"
    listed = Listed(True, True, (Seen(key(), Identity(1, 2, 3)),))
    assert json.loads(lines_of(*told(listed))[0])["seen"]["bundles"] == [[[*key()], [1, 2, 3]]]


def test_policies_are_written_whole() -> None:
    """A later version with other defaults must not replay an older journal by those."""
    policies = json.loads(msgspec.json.encode(HEADER))["policies"]
    assert policies.keys() == set(Policies.__struct_fields__)
    assert policies["default"].keys() == set(type(Policies().default).__struct_fields__)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"journal":"other","schema":2}',
        b'{"journal":"containerd-reconciler","schema":2}',
    ],
)
def test_a_bad_first_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadLineError) as caught:
        read_header(line)
    assert not isinstance(caught.value, OtherSchemaError)


@pytest.mark.parametrize(("schema", "why"), [(3, "newer"), (1, "older")])
def test_another_schema_is_refused_with_the_version_that_reads_it(schema: int, why: str) -> None:
    line = b'{"journal":"containerd-reconciler","schema":%d,"program":"9.8","x":[]}' % schema
    with pytest.raises(OtherSchemaError, match=f"schema {schema} is {why} than 2"):
        read_header(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"mono":"x","wall":1}',
        b'{"mono":1,"wall":1,"seen":{"kind":"hint"}}',
        b'{"mono":1,"wall":1,"seen":{"kind":"hint","key":["a"]}}',
        b'{"mono":1,"wall":1,"seen":{"kind":"hint","key":["a","b"],"why":"?"}}',
        b'{"mono":1,"wall":1,"seen":{"kind":"unheard of"}}',
        b'{"mono":1,"wall":1,"decided":[{"kind":"look-at"}]}',
        b'{"mono":1,"wall":1,"difference":{"full":1,"since":1}}',
        b'{"lost":"many"}',
        b'{"mono":1,"wall":1,"x":' + b"[" * 100_000,
    ],
)
def test_a_bad_record_is_a_bad_line_and_nothing_else(line: bytes) -> None:
    with pytest.raises(BadLineError):
        Decoder().record(line)


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    line = lines_of(*told(Hint(key())))[0]
    grown = line.replace(b'"seen":{', b'"new":[1,{"a":2}],"seen":{"newer":3,')
    assert Decoder().record(grown) == Decoder().record(line)
    header = msgspec.json.encode(HEADER).replace(b'{"journal"', b'{"later":[],"journal"')
    assert read_header(header) == HEADER


def test_a_place_that_the_full_one_has_not_takes_nothing_away() -> None:
    restored, scan = Restored(), ProcessScan(answered=True, helpers=frozenset({key()}))
    restored.keep(1, NodeLooked(1.0, scan))
    said = restored.apply(Difference(1, 2.0, ProcessScan(answered=True), gone=Gone((1, -1))))
    assert said == NodeLooked(2.0, scan)
