"""Reach: what an operator's path lies on is told before it is touched; no answer is never a yes."""

import errno
import os
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.kernel.mounts import Mounted
from reconciler.probe import mounts, reach
from tests.support.deadfuse import dead_fuse
from tests.support.mountns import long_table, private_mounts, tmpfs

pytestmark = pytest.mark.safety


def told(path: Path) -> str:
    return reach.trouble(os.fsencode(path))


def without_numbers(_: int) -> Mounted:
    """Answer as a kernel does that has no statmount(2)."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "stat_mount", without_numbers)


@private_mounts
def test_an_older_kernels_long_table_is_read_whole(tmp_path: Path, older: None) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    long_table(tmp_path)
    tmpfs(near)
    server = dead_fuse(far)
    try:
        assert told(near / "s.sock") == ""
        assert f"{far} (fuse)" in told(far / "s.sock")
    finally:
        os.close(server)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EACCES, errno.ENOENT, errno.EMFILE])
@private_mounts
def test_a_mount_that_cannot_be_told_may_not_be_touched(
    tmp_path: Path, older: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: bytes, *, most: int = 0) -> bytes:
        raise OSError(number, os.strerror(number), path)

    tmpfs(tmp_path)
    assert told(tmp_path / "s.sock") == ""
    monkeypatch.setattr(mounts, "read_whole", refuse)
    assert f"{tmp_path} (?)" in told(tmp_path / "s.sock")


def test_no_handle_left_is_no_leave_to_touch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(kernel, "openat2", refuse)
    assert "open files" in told(tmp_path / "s.sock")


def test_more_symlinks_than_are_followed_are_no_leave_to_touch(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for number in range(20):
        (tmp_path / str(number + 1)).symlink_to(tmp_path / str(number))
    assert "symbolic links" in told(tmp_path / "20" / "s.sock")


@pytest.mark.parametrize("kind", ["missing", "a file", "there"])
def test_what_refuses_at_once_may_be_touched(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.touch()
    elif kind == "there":
        place.mkdir()
    assert told(place / "s.sock") == ""
    assert told(place / "below" / "s.sock") == ""
