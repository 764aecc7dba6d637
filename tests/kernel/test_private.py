"""Files of our own: nobody else can open, hold, fill or replace them."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EMFILE, EPERM
from itertools import count
from pathlib import Path

import pytest

from reconciler.daemon import checkpoint
from reconciler.kernel import private
from reconciler.model.observations import Stamp
from reconciler.worker.lock import InstanceLock
from tests.support.forked import in_a_child, outcome
from tests.support.handles import open_files

pytestmark = pytest.mark.safety

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that others can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path / "own"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def as_nobody(call: Callable[[], object]) -> int:
    """Make a call as somebody else; gives the number of its error, 0 if there is none."""

    def body() -> int:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return outcome(call)

    return in_a_child(body)


def hold(path: Path) -> Callable[[], object]:
    def call() -> None:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)

    return call


@pytest.mark.fault("flock on every file it may read")
@as_root
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_can_hold_the_lock(place: Path, mask: int) -> None:
    lock = InstanceLock(os.fsencode(place))
    with umask(mask):
        assert lock.take(1, 2) is None
    lock.release()
    (file,) = place.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) & 0o022 == 0
    assert as_nobody(hold(file)) == EACCES
    assert as_nobody((place / "another").touch) == EACCES
    assert as_nobody(file.unlink) == EACCES
    assert lock.take(1, 2) is None
    lock.release()


@pytest.mark.fault("flock on every file it may read")
@as_root
@pytest.mark.parametrize("kind", ["mode", "directory", "owner", "hard link"])
def test_what_was_left_open_to_others_is_put_right(place: Path, kind: str) -> None:
    """As an earlier version left it, or somebody while the directory was anybody's."""
    place.mkdir(mode=0o755)
    file, other = place / "tree-1-2.lock", place.parent / "other"
    other.write_text("precious")
    if kind == "hard link":
        os.link(other, file)
    else:
        file.write_text("1\n")
    file.chmod(0o666)
    if kind == "directory":
        place.chmod(0o777)
    if kind == "owner":
        os.chown(file, NOBODY, NOBODY)
    lock = InstanceLock(os.fsencode(place))
    assert lock.take(1, 2) is None
    found = file.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode), found.st_nlink) == (0, 0o600, 1)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert as_nobody(hold(file)) == EACCES
    assert other.read_text() == "precious"
    lock.release()


@as_root
@pytest.mark.parametrize("call", [0, 1, 2])
def test_no_handle_is_closed_twice_when_none_is_left(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The number may be another's by then, and the reason is what is told."""
    directory = private.open_directory(str(place))
    (place / "file").touch()
    os.chown(place / "file", NOBODY, NOBODY)
    before, calls, opened, closed = open_files(), count(), os.open, os.close
    bad: list[int] = []

    def refuse(name: str, flags: int, mode: int, *, dir_fd: int) -> int:
        if next(calls) == call:
            raise OSError(EMFILE, os.strerror(EMFILE))
        return opened(name, flags, mode, dir_fd=dir_fd)

    def close(handle: int) -> None:
        try:
            closed(handle)
        except OSError:
            bad.append(handle)
            raise

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        patched.setattr(os, "close", close)
        if call < 2:
            with pytest.raises(OSError, match="open files"):
                private.open_file(directory, "file", os.O_WRONLY)
        else:
            os.close(private.open_file(directory, "file", os.O_WRONLY))
    assert bad == []
    assert open_files() <= before
    os.close(directory)


@as_root
def test_a_file_of_somebody_elses_in_a_shared_directory_is_refused_with_the_reason(
    place: Path,
) -> None:
    place.mkdir()
    place.chmod(0o1777)
    file = place / "tree-1-2.lock"
    file.touch(0o600)
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(OSError, match=f"belongs to uid {NOBODY}") as refused:
        InstanceLock(os.fsencode(place)).take(1, 2)
    assert refused.value.errno == EPERM
    assert file.stat().st_uid == NOBODY
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777, "not ours to change"


@as_root
def test_a_directory_of_somebody_elses_is_none_of_ours(place: Path) -> None:
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(OSError, match=f"belongs to uid {NOBODY}"):
        private.open_directory(str(place))
    with pytest.raises(OSError, match=f"belongs to uid {NOBODY}"):
        checkpoint.write(str(place / "checkpoint.json"), "boot", Stamp(1.0, 1.0), ())


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_file_is_refused_and_left_alone(place: Path, kind: str) -> None:
    place.mkdir()
    name, target = place / "checkpoint.json.new", place.parent / "target"
    target.write_text("precious")
    match kind:
        case "symlink":
            name.symlink_to(target)
        case "fifo":
            os.mkfifo(name)
        case _:
            name.mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - each kind has its own
        checkpoint.write(str(place / "checkpoint.json"), "boot", Stamp(1.0, 1.0), ())
    assert target.read_text() == "precious"


@as_root
def test_the_ledger_is_ours_alone_and_anybody_elses_is_none(place: Path) -> None:
    path = place / "checkpoint.json"
    with umask(0):
        checkpoint.write(str(path), "boot", Stamp(1.0, 1.0), ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = checkpoint.read(str(path), "boot", 1.0)
    os.chown(path, NOBODY, NOBODY)
    assert checkpoint.read(str(path), "boot", 1.0) == [] == before
