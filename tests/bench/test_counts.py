"""What a bundle costs, as counts: system calls of a scan and of a clean, memory of the engine.

Times differ with the machine and with who else works on it. A count that exceeds its bound tells
of something that is done anew for each bundle.
"""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from reconciler.model.evidence import InitState, Look, ProcessScan
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Looked
from reconciler.probe.commands import CommandLines
from reconciler.probe.pids import Moment, given_out
from reconciler.probe.processes import scan
from reconciler.probe.tree import TreeInspector
from reconciler.worker import context
from tests.bench.figure import environment
from tests.bench.pile import Pile, with_pile
from tests.decide.world import World, dead
from tests.support.inline import inline_worker
from tests.support.mountns import private_mounts

FEW, MANY = 20, 220
ASKING = frozenset(
    {
        "connect",
        "faccessat2",
        "getdents64",
        "newfstatat",
        "openat",
        "openat2",
        "pidfd_open",
        "readlinkat",
        "statx",
    }
)
"""Calls by which something is found out; others come with these, or with the event loop."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_scan_asks_the_kernel_little_for_each_bundle(tmp_path: Path) -> None:
    each = with_pile(lambda pile: _calls_each(pile, tmp_path))
    assert each < 56, "it was 46 to 50: 32 of the look, one readlink and open of two in each pass"


def _calls_each(pile: Pile, record: Path) -> float:
    pile.heap(FEW)
    few = _calls(pile, record / "few", FEW)
    for number in range(FEW, MANY):
        pile.bundle(f"c{number}", mounted=False, cgroups=False)
    return (_calls(pile, record / "many", MANY) - few) / (MANY - FEW)


def _calls(pile: Pile, record: Path, count: int) -> int:
    """Count the calls of a scan and of all its processes."""
    words = ["strace", "-f", "-c", "-o", record, *pile.words("scan", "-q", "-o", "json")]
    said = subprocess.run(words, env=environment(), stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(said)["summary"]["leftovers"] == count
    rows = [line.split() for line in record.read_text().splitlines()]
    return sum(int(row[3]) for row in rows if len(row) > 4 and row[-1] in ASKING)


def test_a_look_runs_little_code() -> None:
    """Four fifths of its time pass in the interpreter, so a call more for each bundle shows."""
    assert with_pile(_functions_each) < 400, "it was 378, and 443 with each value made anew"


def _functions_each(pile: Pile) -> float:
    """Count the calls of functions, ours and built in, of one look among many."""
    made = pile.heap(FEW)
    inspector = TreeInspector(pile.layout)
    count = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    with inspector.moment():
        inspector.look(made[0].key)  # opens what all of them share
        sys.setprofile(note)
        try:
            looks = [inspector.look(one.key) for one in made[1:]]
        finally:
            sys.setprofile(None)
    inspector.close()
    assert all(isinstance(one, Look) and one.init.state is InitState.DEAD for one in looks)
    return count / len(looks)


@private_mounts
def test_a_clean_runs_little_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of its time pass in the interpreter; nobody comes, and no pass gets old."""
    monkeypatch.setattr(context, "FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(context, "given_out", lambda *_: range(0))
    count = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    with inline_worker(tmp_path) as (made, worker):
        bundles = [made.bundle(f"c{number}") for number in range(FEW)]
        groups = len(bundles[0].cgroups)
        worker.clean(bundles[0])  # what all of them share
        sys.setprofile(note)
        try:
            for bundle in bundles[1:]:
                worker.clean(bundle)
        finally:
            sys.setprofile(None)
        assert not [path for bundle in bundles for path in bundle.left()]
    each = count / (FEW - 1)
    assert each < 1_800 + 160 * groups, "with 10 it was 3,181, and 3,705 with each opened by path"


@private_mounts
def test_a_clean_passes_over_proc_once_in_a_while_and_not_for_each_thing_it_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody gives out pids all the time, as on any node."""
    passes = 0

    def counted(
        *,
        users: frozenset[int],
        commands: CommandLines,
        tree: bytes | None = None,
        cgroups: bool = True,
    ) -> ProcessScan:
        nonlocal passes
        passes += 1
        return scan(users=users, commands=commands, tree=tree, cgroups=cgroups)

    def since(then: Moment, now: Moment) -> range | None:
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        return given_out(then._replace(earliest=now.latest), now)

    with inline_worker(tmp_path) as (made, worker):
        bundles = [made.bundle(f"c{number}") for number in range(6)]
        monkeypatch.setattr(context, "scan", counted)
        monkeypatch.setattr(context, "given_out", since)
        monkeypatch.setattr(context, "FEW_PIDS", 1 << 15)
        for bundle in bundles:
            worker.clean(bundle)
            assert not bundle.left()
        assert passes <= 2 * len(bundles), "it was 2 a second"


def test_a_bundle_that_is_known_takes_little_memory() -> None:
    world, count = World(nothing_outside=True), 2_000
    _read(dead())  # msgspec keeps what it has learnt of a type, once for all
    tracemalloc.start()
    try:
        world.listed(**{f"b{number}": number for number in range(count)})
        for number in range(count):
            look = _read(dead(number))
            world.engine.observe(world.stamp, Looked(BundleKey("ns", f"b{number}"), look))
        world.node()
        world.said.clear()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert each < 1_270, "it was 1,256, and 1,284 with numbers of its own"


def _read(look: Look) -> Look:
    """Give a look whose parts are its own, as they come from a worker or a journal."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(look), type=Look)
