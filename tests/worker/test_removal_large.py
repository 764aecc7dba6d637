"""Removal of trees that are deep or wide: few handles, no recursion, an end."""

import inspect
import os
import sys
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason
from reconciler.worker import walk
from reconciler.worker.blocked import Blocked
from reconciler.worker.removal import remove_tree
from reconciler.worker.step_log import Tally
from tests.support.mountns import private_mounts, tmpfs
from tests.worker.removing import identity, remove


def nest(parent: int, names: list[bytes]) -> None:
    """Make directories one in the other, deeper than a path could say."""
    fd = os.dup(parent)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.fault("depth 3,000")
@private_mounts
def test_a_tree_3000_deep_needs_few_handles(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    parent = os.open(tmp_path, os.O_RDONLY)
    nest(parent, [b"victim", *[b"d"] * 3000])
    most = asked = 0

    def watch_handles() -> bool:
        nonlocal most, asked
        asked += 1
        if asked % 20 == 0:
            most = max(most, len(os.listdir("/proc/self/fd")))
        return False

    before = len(os.listdir("/proc/self/fd"))
    tally = Tally(stop=watch_handles)
    remove_tree(parent, b"victim", identity(parent, b"victim"), tally)
    assert tally.mutations == 3001
    assert walk._HANDLES <= most - before <= walk._HANDLES + 4
    assert os.listdir(parent) == []


def test_deep_trees_of_long_names_are_opened_again_in_pieces(parent: int) -> None:
    nest(parent, [b"victim", *[b"n" * 255] * 100])
    assert remove(parent).entries == 101


def test_a_directory_moved_away_from_under_a_deep_walk_is_noticed(
    tmp_path: Path, parent: int
) -> None:
    """Its handle was given up; by its old name another directory is found."""
    depth = walk._HANDLES + 10
    top = tmp_path / "victim"
    deep = top.joinpath(*["d"] * depth)
    deep.mkdir(parents=True)
    (deep / "last").touch()

    def swap_at_the_bottom() -> bool:
        if not deep.exists():
            return False
        if not (deep / "last").exists() and not (tmp_path / "elsewhere").exists():
            (top / "d" / "d").rename(tmp_path / "elsewhere")
            (top / "d" / "d" / "kept").mkdir(parents=True)
        return False

    (deep / "sub").mkdir()
    with pytest.raises(Blocked) as caught:
        remove_tree(parent, b"victim", identity(parent, b"victim"), Tally(stop=swap_at_the_bottom))
    assert caught.value.reason is BlockReason.CHANGED
    assert (top / "d" / "d" / "kept").is_dir()


def test_many_entries_go_in_batches(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "_BATCH", 10)
    victim = tmp_path / "victim"
    victim.mkdir()
    for number in range(95):
        (victim / f"f{number}").touch()
        if number % 5 == 0:
            (victim / f"d{number}" / "sub").mkdir(parents=True)
    assert remove(parent).entries == 1 + 95 + 2 * 19
    assert os.listdir(parent) == []


@pytest.mark.fault("100,000 entries")
@private_mounts
def test_100000_entries_in_one_directory(tmp_path: Path) -> None:
    tmpfs(tmp_path, "size=256m,nr_inodes=0")
    parent = os.open(tmp_path, os.O_RDONLY)
    os.mkdir(b"victim", dir_fd=parent)
    fd = os.open(b"victim", os.O_RDONLY, dir_fd=parent)
    for number in range(100_000):
        os.mknod(b"f%d" % number, dir_fd=fd)
    os.close(fd)
    assert remove(parent).entries == 100_001
    assert os.listdir(parent) == []


def test_removal_needs_no_recursion(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").joinpath(*["d"] * 300).mkdir(parents=True)
    depth = len(inspect.stack())
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 60)
    try:
        assert remove(parent).entries == 301
    finally:
        sys.setrecursionlimit(limit)
