"""A bundle with very many files: the look stays small, and finds all the evidence there is.

Each exec leaves a pid file, and tens of thousands of them are normal on old nodes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler import kernel
from reconciler.model.evidence import Entries, Look
from reconciler.probe import folder
from tests.probe.world import FILES, KEY, World
from tests.support.mountns import bind, private_mounts

NAMES, ENTRIES, MANY = 100, 300, 200


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test need not make thousands of files."""
    assert folder._MOST_NAMES <= 1 << 12
    assert folder._MOST_ENTRIES <= 10_000
    monkeypatch.setattr(folder, "_MOST_NAMES", NAMES)
    monkeypatch.setattr(folder, "_MOST_ENTRIES", ENTRIES)


@dataclass
class Counted:
    """What listings gave out, and how often something was asked for by its name."""

    listed: int = 0
    asked: list[bytes] = field(default_factory=list)


@contextmanager
def counting(*, strangers_first: bool = False) -> Iterator[Counted]:
    """Count; the order of a listing is the kernel's, or that in which evidence comes last."""
    counted, real, statx = Counted(), os.scandir, kernel.statx

    def scandir(fd: int) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        @contextmanager
        def listing() -> Iterator[Iterator[os.DirEntry[str]]]:
            with real(fd) as found:
                entries: Iterator[os.DirEntry[str]] = found
                if strangers_first:
                    entries = iter(sorted(found, key=lambda one: not one.name.endswith(".x.pid")))

                def count() -> Iterator[os.DirEntry[str]]:
                    for entry in entries:
                        counted.listed += 1
                        yield entry

                yield count()

        return listing()

    def ask(fd: int, name: bytes, flags: int = kernel.AT_PASSIVE) -> object:
        counted.asked.append(name)
        return statx(fd, name, flags)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        patched.setattr(kernel, "statx", ask)
        yield counted


def fill(here: Path, number: int = MANY) -> None:
    directory = os.open(here, os.O_RDONLY)
    for one in range(number):
        os.mknod(f"{one}.x.pid", dir_fd=directory)
    os.close(directory)


def without_size(look: Look) -> Look:
    return replace(look, size_bytes=0, size_exact=True, newest_mtime=0.0)


def test_a_look_takes_no_longer_however_many_there_are(world: World) -> None:
    here = world.bundle()
    inspector = world.inspector()
    fill(here)
    with counting() as few:
        inspector.look(KEY)
    for one in range(MANY, 10 * MANY):
        os.mknod(here / f"{one}.x.pid")
    with counting() as more:
        inspector.look(KEY)
    assert few.listed <= NAMES + 10  # its rootfs and work directory are listed, too
    assert more.listed <= NAMES + 10
    assert len(more.asked) <= len(FILES) + 10


@pytest.mark.safety
@pytest.mark.parametrize("gone", ["", "init.pid", "config.json", "shim-binary-path", "work"])
def test_no_evidence_is_missed_that_a_listing_has_not_come_to(world: World, gone: str) -> None:
    here = world.bundle()
    if gone:
        (here / gone).unlink()
    before = world.look()
    fill(here)
    with counting(strangers_first=True) as counted:
        after = world.look()
    assert b"init.pid" in counted.asked  # by its name
    assert replace(without_size(after), entries=after.entries & ~Entries.OTHER) == replace(
        without_size(before), entries=before.entries & ~Entries.OTHER
    )
    assert after.newest_mtime >= before.newest_mtime


@pytest.mark.safety
@pytest.mark.parametrize("odd", ["fifo", "directory", "symlink", "10 MB"])
def test_what_is_odd_is_odd_by_its_name_too(world: World, odd: str) -> None:
    here = world.bundle()
    pid = here / "init.pid"
    pid.unlink()
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(pid),
        "directory": pid.mkdir,
        "symlink": lambda: pid.symlink_to("/proc/1/status"),
        "10 MB": lambda: pid.write_bytes(b"1" * 10_000_000),
    }
    make[odd]()
    before = world.look()
    fill(here)
    with counting(strangers_first=True):
        after = world.look()
    assert (after.init, after.created) == (before.init, before.created)


def test_a_runtime_of_another_kind_is_noticed(world: World) -> None:
    here = world.bundle()
    (here / "shim-binary-path").unlink()
    (here / "shim.pid").write_text("1")
    before = world.look()
    fill(here)
    with counting(strangers_first=True):
        after = world.look()
    assert after.runtime == before.runtime
    assert after.entries & Entries.OTHER


@private_mounts
def test_a_file_mounted_over_a_file_is_not_read_by_its_name_either(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    other = tmp_path / "other"
    other.write_text("1")
    bind(other, here / "init.pid")
    before = world.look()
    fill(here)
    with counting(strangers_first=True):
        after = world.look()
    assert (after.init, after.mounts) == (before.init, before.mounts)
    world.close()


def test_a_size_that_was_cut_off_says_so(world: World) -> None:
    here = world.bundle()
    assert world.look().size_exact
    for place in (here, here / "rootfs", world.work_dir()):
        before = world.look()
        assert before.size_exact
        fill(place, ENTRIES + 1)
        after = world.look()
        assert not after.size_exact
        assert after.size_bytes >= before.size_bytes
        for path in place.glob("*.x.pid"):
            path.unlink()


def test_a_listing_below_a_bundle_is_bounded_too(world: World) -> None:
    here = world.bundle()
    fill(here / "rootfs", 10 * ENTRIES)
    with counting() as counted:
        assert not world.look().size_exact
    assert counted.listed <= ENTRIES + 50
