"""What a bundle's files say costs no more than in proportion to it, whatever they say.

Counted and not timed: the instructions of Python's and the most memory held. Twice the input may
cost twice as much.
"""

import base64
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import pytest

from reconciler.model import cgroups as names
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import BundleKey
from reconciler.probe import documents, metadata
from reconciler.probe.cgroups import CgroupMounts, Hierarchy, expand_slice, resolve
from reconciler.probe.folder import Folder
from reconciler.probe.sockets import parse_address

if TYPE_CHECKING:
    from _typeshed import TraceFunction

pytestmark = pytest.mark.safety

SIZE = 4 << 10
KEY = BundleKey("k8s.io", "pod1")
UNITS = ["a-", "-", "a", "/", "/a", "/./", "a:", ":", ".", "\\", " ", "9", "@", "é", "unix://"]
RAW = [b"[", b"{", b'{"a":', b'"', b" ", b"9", b"\x08\x01", b"\x3a\x00", b"\xff", b"\0", b"-"]


class Cost(NamedTuple):
    """What a call took."""

    instructions: int
    bytes: int


def cost(call: Callable[[], object]) -> Cost:
    counted = 0

    def trace(frame: FrameType, event: str, _: object) -> "TraceFunction":
        nonlocal counted
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Cost(counted, peak)


def grows_no_faster(call: Callable[[int], Callable[[], object]]) -> None:
    """Check that twice the size costs at most a little more than twice as much."""
    call(64)()  # what is made once is made
    half, whole = cost(call(SIZE)), cost(call(2 * SIZE))
    assert whole.instructions <= 2.5 * half.instructions + 1000, (half, whole)
    assert whole.bytes <= 2.5 * half.bytes + 100_000, (half, whole)


def of(unit: str, size: int) -> str:
    return unit * (size // len(unit))


def folder(**files: str | bytes) -> Folder:
    made = Folder()
    for name, text in files.items():
        data = text.encode() if isinstance(text, str) else text
        made.files[name.replace("_json", ".json").replace("_", "-")] = data
    return made


def spec(text: str) -> bytes:
    annotations = {
        "io.kubernetes.cri.sandbox-id": text,
        "io.kubernetes.cri.sandbox-name": text,
        "mine": text,
    }
    return json.dumps({"annotations": annotations, "linux": {"cgroupsPath": text}}).encode()


TEXTS: dict[str, Callable[[str], object]] = {
    "cgroupsPath": resolve,
    "a path": documents.to_path,
    "an absolute cgroupsPath": lambda text: resolve("/" + text),
    "a systemd cgroupsPath": lambda text: resolve(f"{text}b.slice:cri:id"),
    "its prefix": lambda text: resolve(f"a.slice:{text}:id"),
    "its name": lambda text: resolve(f"a.slice:cri:{text}.slice"),
    "a slice": lambda text: expand_slice(f"{text}b.slice"),
    "a cgroup's name": lambda text: names.names_in(f"{text}.scope"),
    "an address": lambda text: parse_address(text.encode()),
    "an address with a scheme": lambda text: parse_address(b"unix://" + text.encode()),
    "config.json": lambda text: documents.parse_spec(spec(text)),
    "annotations": lambda text: documents.parse_annotations(spec(text)),
    "labels": lambda text: metadata.labels_of(
        folder(config_json=spec(text)), documents.parse_spec(spec(text)), ["mine"]
    ),
    "group": lambda text: metadata.group_of(KEY, folder(), documents.parse_spec(spec(text))),
    "sandbox": lambda text: metadata.group_of(KEY, folder(sandbox=text), None),
    "shim-binary-path": lambda text: metadata.runtime_of(folder(shim_binary_path=text), None),
    "addresses": lambda text: metadata.addresses_of(folder(address=text, bootstrap_json=text)),
    "options.json": lambda text: documents.parse_options(json.dumps({"root": text}).encode()),
}

FILES: dict[str, Callable[[bytes], object]] = {
    "config.json": documents.parse_spec,
    "annotations": documents.parse_annotations,
    "options.json": documents.parse_options,
    "options.json's value": lambda data: documents.parse_options(
        json.dumps({"type_url": "x", "value": base64.b64encode(data).decode()}).encode()
    ),
    "bootstrap.json": documents.parse_bootstrap,
    "state.json": documents.parse_state,
    "a torn state.json": documents.salvage_state,
    "status": documents.parse_status,
    "init.pid": documents.parse_pid,
    "address": parse_address,
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("parser", TEXTS)
def test_a_text_costs_in_proportion(parser: str, unit: str) -> None:
    def call(size: int) -> Callable[[], object]:
        text = of(unit, size)
        return lambda: TEXTS[parser](text)

    grows_no_faster(call)


@pytest.mark.parametrize("unit", RAW)
@pytest.mark.parametrize("parser", FILES)
def test_a_file_costs_in_proportion(parser: str, unit: bytes) -> None:
    def call(size: int) -> Callable[[], object]:
        data = unit * (size // len(unit))
        return lambda: FILES[parser](data)

    grows_no_faster(call)


def test_a_slice_of_58_kib_is_none() -> None:
    assert resolve("a-" * 29_000 + "a.slice:cri:id") == ()
    assert resolve(f"{'a' * 300}.slice:cri:id") == ()
    assert resolve("/" + "a" * 5000) == ()
    assert resolve("a-b.slice:cri:id") == ("/a.slice/a-b.slice/cri-id.scope",)


def test_a_label_that_is_too_long_is_not_known() -> None:
    """Then a rule that protects takes it for a match."""
    data = spec("x" * 5000)
    made = metadata.labels_of(folder(config_json=data), documents.parse_spec(data), ["mine"])
    assert not made.known


@contextmanager
def mounted() -> Iterator[CgroupMounts]:
    found = CgroupMounts([Hierarchy(b"/nowhere", unified=True)])
    try:
        yield found
    finally:
        found.close()


def test_more_cgroups_than_a_container_has_are_not_all_asked() -> None:
    asked = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal asked
        asked += event == "open" and str(arguments[0]).startswith("c")

    sys.addaudithook(hook)
    with mounted() as found:
        named = [f"/nowhere/c{number}" for number in range(100_000)]
        assert found.look(KEY, named, ()).state is CgroupState.NONE
    assert asked < 1000
