"""Who keeps a mount busy is found in a bounded time, whatever anybody has open."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.model.outcome import Holder
from reconciler.worker import holders as searching
from reconciler.worker.holders import holders
from tests.support import hostile
from tests.support.lag import Stopwatch
from tests.support.mountns import private_mounts, tmpfs

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

LIMIT = searching.SECONDS + 1.0


def found(bundle: Path) -> tuple[Holder, ...]:
    handle = os.open(bundle, os.O_PATH)
    try:
        return holders(handle, b"rootfs")
    finally:
        os.close(handle)


@contextmanager
def holding(rootfs: Path, handles: int) -> Iterator[int]:
    """Have a process with so many descriptors, of which the last is on the mount."""
    (rootfs / "file").touch()
    code = (
        "import os, sys\n"
        f"for _ in range({handles}): os.dup(0)\n"
        "os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.read()\n"
    )
    words = ["python3", "-I", "-c", code, str(rootfs / "file")]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        yield child.pid
    finally:
        child.communicate()


@pytest.mark.fault("a million open descriptors")
@private_mounts
def test_a_holder_is_found_beside_many_descriptors(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    tmpfs(tmp_path / "rootfs")
    with hostile.attacked(hostile.many_handles, 150_000):
        watch = Stopwatch()
        with holding(tmp_path / "rootfs", 5) as pid:
            assert (pid, "fd") in {(one.pid, one.how) for one in found(tmp_path)}
        assert found(tmp_path) == ()
        assert watch.read() < 2 * LIMIT


@private_mounts
def test_one_with_many_descriptors_itself_is_found(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    tmpfs(tmp_path / "rootfs")
    with holding(tmp_path / "rootfs", 500) as pid:
        assert pid in {one.pid for one in found(tmp_path)}


@private_mounts
def test_a_search_that_takes_too_long_names_whom_it_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rootfs").mkdir()
    tmpfs(tmp_path / "rootfs")
    monkeypatch.setattr(searching, "SECONDS", -1.0)
    with holding(tmp_path / "rootfs", 5):
        assert found(tmp_path) == ()


@pytest.mark.fault("mounts in namespaces of anybody's own")
@private_mounts
def test_mounts_of_anybodys_own_are_looked_through_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    with hostile.attacked(hostile.many_mounts, 3_000):
        tmpfs(tmp_path / "rootfs")  # after he has a copy of every mount there was
        watch = Stopwatch()
        assert found(tmp_path) == ()
        assert watch.read() < LIMIT
