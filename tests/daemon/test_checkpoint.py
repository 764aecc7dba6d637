"""The checkpoint: what it keeps, and everything it must not believe."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.daemon import checkpoint
from reconciler.decide.track import Track
from reconciler.model.cgroups import CgroupSource
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import NOWHERE, BundleKey, Identity
from reconciler.model.observations import Remembered, Stamp
from tests.decide.world import running

BOOT = "b" * 32


def track(name: str = "a", *, alive: float | None = None, since: float | None = None) -> Track:
    made = Track(BundleKey("ns", name), Identity(1, 2, 3), first_seen=0.0)
    made.last_alive, made.leftover_since = alive, since
    return made


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint.json")


def test_what_was_written_is_read_back(path: str) -> None:
    checkpoint.write(
        path,
        BOOT,
        Stamp(100.0, 7000.0),
        [track("a\\xff\\x0a", alive=50.0), track(since=90.0), track("c")],
    )
    assert checkpoint.read(path, BOOT, 110.0) == [
        Remembered(BundleKey("ns", "a\\xff\\x0a"), Identity(1, 2, 3), last_alive=50.0),
        Remembered(BundleKey("ns", "a"), Identity(1, 2, 3), leftover_since=90.0),
    ]
    assert os.listdir(os.path.dirname(path)) == ["checkpoint.json"]


def test_the_usual_cgroup_of_what_is_there_and_of_what_has_gone_is_kept(path: str) -> None:
    seen = track(alive=50.0)
    seen.looked_at = 90.0
    seen.look = replace(
        running(), cgroup=CgroupState.EMPTY, cgroup_source=CgroupSource.CONFIG, cgroup_paths=()
    )
    gone = BundleKey("ns", "gone")
    checkpoint.write(
        path, BOOT, Stamp(100.0, 7000.0), [seen, track("b", alive=60.0)], {gone: 5000.0}
    )
    told = checkpoint.read(path, BOOT, 10_000.0)
    assert [(one.key.id, one.cgroup_until) for one in told] == [
        ("a", 6990.0),
        ("b", None),
        ("gone", 5000.0),
    ]
    assert told[2] == Remembered(gone, NOWHERE, cgroup_until=5000.0)
    assert checkpoint.read(path, "another", 110.0) == []


def test_an_old_ledger_keeps_signs_of_life_but_no_grace(path: str) -> None:
    checkpoint.write(path, BOOT, Stamp(100.0, 7000.0), [track(alive=50.0, since=90.0)])
    (memory,) = checkpoint.read(path, BOOT, 100.0 + checkpoint.FRESH + 1)
    assert (memory.last_alive, memory.leftover_since) == (50.0, None)


def test_another_boot_is_forgotten(path: str) -> None:
    checkpoint.write(path, BOOT, Stamp(100.0, 7000.0), [track(alive=50.0)])
    assert checkpoint.read(path, "another", 110.0) == []


def test_a_ledger_from_the_future_is_not_believed(path: str) -> None:
    checkpoint.write(path, BOOT, Stamp(1000.0, 7000.0), [track(alive=50.0)])
    assert checkpoint.read(path, BOOT, 110.0) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'{"version": 99}', b"\xff" * 100, b'{"version":1,"entries":[[]]}'],
    ids=["empty", "torn", "null", "list", "newer", "bytes", "short entry"],
)
def test_a_damaged_ledger_is_an_empty_one(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    assert checkpoint.read(path, BOOT, 1e9) == []


def test_a_ledger_that_is_a_symlink_a_fifo_or_missing_is_an_empty_one(
    path: str, tmp_path: Path
) -> None:
    assert checkpoint.read(path, BOOT, 1e9) == []
    target = str(tmp_path / "target")
    checkpoint.write(target, BOOT, Stamp(100.0, 7000.0), [track(alive=50.0)])
    os.symlink(target, path)
    assert checkpoint.read(path, BOOT, 110.0) == []
    os.unlink(path)
    os.mkfifo(path)
    assert checkpoint.read(path, BOOT, 110.0) == []


def test_every_cut_of_the_file_is_survived(path: str) -> None:
    checkpoint.write(path, BOOT, Stamp(100.0, 7000.0), [track(alive=50.0)])
    with open(path, "rb") as file:
        whole = file.read()
    for length in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:length])
        assert checkpoint.read(path, BOOT, 110.0) == []
