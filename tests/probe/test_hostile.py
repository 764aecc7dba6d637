"""Bundles that mean harm, or were damaged: odd kinds, odd names, any content."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.model.evidence import Entries, InitState, Kind, ShimState
from reconciler.model.ids import BundleKey, escape
from reconciler.probe.bundle import examine
from tests.probe.world import FILES, KEY, World
from tests.support.examples import several

HOSTILE = [
    b"",
    b"\0",
    b"{",
    b"[[[[" * 20_000,
    b"\xff\xfe",
    b'{"a":' * 5000,
    b"null",
    b"[]",
    b"1e999",
]


# ---------------------------------------------------------------------- what is no directory


def test_a_symlink_is_seen_and_not_followed(world: World) -> None:
    world.bundle()
    link = world.path("link")
    link.symlink_to(world.path())
    look = world.look(BundleKey("default", "link"))
    assert look.kind is Kind.SYMLINK
    assert look.identity.ino == link.lstat().st_ino
    assert look.entries == Entries(0)
    assert look.init.state is InitState.NONE


@pytest.mark.fault("id or namespace replaced by a symlink")
def test_a_namespace_that_is_a_symlink_holds_no_bundles(world: World) -> None:
    world.bundle()
    (world.tree / "alias").symlink_to(world.tree / "default")
    assert world.inspector().look(BundleKey("alias", "c1")) is None


def test_a_file_in_place_of_a_bundle_is_other(world: World) -> None:
    world.bundle()
    world.path("file").touch()
    os.mkfifo(world.path("fifo"))
    assert world.look(BundleKey("default", "file")).kind is Kind.OTHER
    assert world.look(BundleKey("default", "fifo")).kind is Kind.OTHER


@pytest.mark.fault("I23")
@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"tab\t\\", b"n" * 255])
def test_any_name_is_looked_at(world: World, name: bytes) -> None:
    here = os.fsencode(world.tree) + b"/default/" + name
    os.makedirs(here)
    with open(here + b"/init.pid", "w") as file:
        file.write(str(world.dead()))
    look = world.look(BundleKey("default", escape(name)))
    assert look.identity.ino == os.stat(here).st_ino
    assert look.init.state is InitState.DEAD


# ---------------------------------------------------------------------- hostile content


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:8]))
@pytest.mark.parametrize("name", FILES)
def test_hostile_content_is_evidence(world: World, name: str, content: bytes) -> None:
    path = world.bundle() / name
    path.unlink()
    path.write_bytes(content)
    look = world.look(KEY, "team")
    assert look.init.state in {InitState.DEAD, InitState.ABSENT}
    assert look.shim.state in {ShimState.DEAD, ShimState.UNNAMED}


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:8]))
def test_hostile_runc_state_is_evidence(world: World, content: bytes) -> None:
    world.bundle()
    (world.state_dir() / "state.json").write_bytes(content)
    assert world.look().init.state is InitState.DEAD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
json_texts = json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "annotations": st.dictionaries(
            st.sampled_from(["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group", "x"]),
            st.text() | json_values,
        ),
        "linux": st.fixed_dictionaries({}, optional={"cgroupsPath": st.text() | json_values}),
    },
).map(lambda value: json.dumps(value).encode())
STATES = st.fixed_dictionaries(
    {},
    optional={
        "init_process_pid": st.integers() | json_values,
        "init_process_start": st.integers() | json_values,
        "cgroup_paths": st.dictionaries(st.text(max_size=5), st.text()) | json_values,
        "config": st.fixed_dictionaries({}, optional={"Hooks": json_values}) | json_values,
    },
).map(lambda value: json.dumps(value).encode())
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "root": st.text() | st.just("/proc/self/root"),
        "binary_name": st.text() | json_values,
        "type_url": st.text(),
        "value": st.text() | st.just("OgEvOgEv"),
    },
).map(lambda value: json.dumps(value).encode())
ADDRESSES = st.binary(max_size=200) | st.text(max_size=80).map(lambda t: b"unix://" + t.encode())


NAMED = ADDRESSES.map(lambda said: json.dumps({"address": said.decode("latin1")}).encode())
CONTENTS = st.fixed_dictionaries(
    {
        "config.json": SPECS | json_texts,
        "options.json": OPTIONS | json_texts,
        "address": ADDRESSES,
        "bootstrap.json": NAMED | json_texts,
        "init.pid": st.binary(max_size=40) | st.integers().map(lambda n: str(n).encode()),
        "sandbox": ADDRESSES,
        "shim-binary-path": ADDRESSES,
    }
)


@settings(
    max_examples=several(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(contents=CONTENTS, state=STATES | json_texts)
def test_no_content_raises(world: World, contents: dict[str, bytes], state: bytes) -> None:
    if not world.path().exists():
        world.bundle()
        world.inspector()
    for name, content in contents.items():
        (world.path() / name).write_bytes(content)
    (world.state_dir() / "state.json").write_bytes(state)
    found = examine(world._inspector[0]._around, KEY)
    assert found is not None
    assert found.look.kind is Kind.DIRECTORY
