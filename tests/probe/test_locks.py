"""A lock is held, proven free, or nobody can say; the file is never touched."""

import fcntl
import os
import stat
from functools import partial
from pathlib import Path

import pytest

from reconciler.probe import locks
from reconciler.probe.locks import Lock, LockState, lock_holder
from tests.support import hostile
from tests.support.deadfuse import dead_fuse, end_if_it_hangs
from tests.support.fake_containerd import held
from tests.support.forked import in_a_child
from tests.support.lag import Stopwatch
from tests.support.mountns import overlay, private_mounts, tmpfs

INITIAL = "pid:[4026531836]"
initial_only = pytest.mark.skipif(
    os.readlink("/proc/self/ns/pid") != INITIAL,
    reason="a lock is never proven free outside the first pid namespace",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "meta.db"
    path.write_bytes(b"bolt")
    return path


def place(path: Path, device: int | None = None) -> str:
    found = path.stat()
    number = found.st_dev if device is None else device
    return f"{os.major(number):02x}:{os.minor(number):02x}:{found.st_ino}"


class FakeProc:
    """A /proc of three files, for a file on ext4."""

    def __init__(self, directory: Path, file: Path) -> None:
        self.path = os.fsencode(directory)
        self.file = file
        self.device = file.stat().st_dev
        self.directory = directory
        (directory / "self/ns").mkdir(parents=True)
        self.namespace(INITIAL)
        self.locks("")
        self.mounts("ext4")

    def namespace(self, name: str) -> None:
        link = self.directory / "self/ns/pid"
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def locks(self, text: str) -> None:
        (self.directory / "locks").write_text(text)

    def mounts(self, fstype: str, device: int | None = None) -> None:
        number = self.device if device is None else device
        mount = _mount_id(self.file)
        shown = f"{os.major(number)}:{os.minor(number)}"
        (self.directory / "self/mountinfo").write_text(
            f"1 0 0:1 / /proc rw - proc proc rw\n"
            f"{mount} 1 {shown} / /a\\040b rw,relatime shared:1 - {fstype} /dev/x rw,a=b\n"
        )

    def ask(self) -> Lock:
        return lock_holder(os.fsencode(self.file), self.path)


def _mount_id(path: Path) -> int:
    fd = os.open(path, os.O_PATH)
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("mnt_id")))


@pytest.fixture
def proc(tmp_path: Path, file: Path) -> FakeProc:
    directory = tmp_path / "proc"
    directory.mkdir()
    return FakeProc(directory, file)


def test_a_lock_of_another_process_is_seen_with_its_pid(file: Path) -> None:
    with held(file) as pid:
        assert lock_holder(os.fsencode(file)) == Lock(LockState.HELD, pid)


@initial_only
@private_mounts
def test_a_file_nobody_locks_is_free(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    file = tmp_path / "meta.db"
    file.touch()
    assert lock_holder(os.fsencode(file)) == Lock(LockState.FREE)
    with held(file) as pid:
        assert lock_holder(os.fsencode(file)).pid == pid
    assert lock_holder(os.fsencode(file)) == Lock(LockState.FREE)


@private_mounts
def test_an_overlay_proves_nothing(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/meta.db").touch()
    overlay(tmp_path / "lower", tmp_path / "upper", tmp_path / "work", tmp_path / "merged")
    file = tmp_path / "merged/meta.db"
    found = lock_holder(os.fsencode(file))
    assert found.state is LockState.NONE
    assert found.detail == "locks on overlay may not show in /proc/locks"
    with held(file):
        assert lock_holder(os.fsencode(file)).state is not LockState.FREE


def test_no_file_is_absent(tmp_path: Path) -> None:
    assert lock_holder(os.fsencode(tmp_path / "none")) == Lock(LockState.ABSENT)
    assert lock_holder(os.fsencode(tmp_path / "none/meta.db")) == Lock(LockState.ABSENT)


def test_what_is_not_a_file_proves_nothing(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path, tmp_path / "link", tmp_path / "fifo"):
        found = lock_holder(os.fsencode(odd))
        assert found.state is LockState.NONE
        assert found.detail.endswith("is not a regular file")


def test_the_file_is_not_touched(file: Path) -> None:
    before = file.stat()
    with held(file):
        lock_holder(os.fsencode(file))
    after = file.stat()
    assert (before.st_atime_ns, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_atime_ns,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    assert stat.S_IMODE(before.st_mode) == stat.S_IMODE(after.st_mode)


def test_our_own_lock_counts(file: Path) -> None:
    with file.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        assert lock_holder(os.fsencode(file)) == Lock(LockState.HELD, os.getpid())


def test_no_line_means_free(proc: FakeProc) -> None:
    assert proc.ask() == Lock(LockState.FREE)
    proc.locks("1: FLOCK  ADVISORY  WRITE 7 fe:00:99999999 0 EOF\n")
    assert proc.ask() == Lock(LockState.FREE)


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("1: FLOCK  ADVISORY  WRITE 4711 {} 0 EOF", 4711),
        ("1: FLOCK  ADVISORY  READ  4711 {} 0 EOF", 4711),
        ("17: POSIX  ADVISORY  WRITE 4711 {} 0 EOF", 4711),
        ("2: OFDLCK ADVISORY  WRITE -1 {} 0 EOF", None),
        ("1: LEASE  ACTIVE    WRITE 4711 {} 0 EOF", 4711),
    ],
)
def test_every_kind_of_lock_holds(proc: FakeProc, line: str, pid: int | None) -> None:
    proc.locks("9: FLOCK  ADVISORY  WRITE 7 00:01:1 0 EOF\n" + line.format(place(proc.file)) + "\n")
    assert proc.ask() == Lock(LockState.HELD, pid)


def test_who_only_waits_does_not_hold(proc: FakeProc) -> None:
    proc.locks(f"1: -> FLOCK  ADVISORY  WRITE 4711 {place(proc.file)} 0 EOF\n")
    assert proc.ask() == Lock(LockState.FREE)


def test_locks_on_btrfs_show_the_device_of_the_filesystem(proc: FakeProc) -> None:
    whole = os.makedev(0, 0x123)
    proc.mounts("btrfs", whole)
    assert proc.ask() == Lock(LockState.FREE)
    proc.locks(f"1: FLOCK  ADVISORY  WRITE 4711 {place(proc.file, whole)} 0 EOF\n")
    assert proc.ask() == Lock(LockState.HELD, 4711)


@pytest.mark.parametrize("fstype", ["overlay", "nfs4", "fuse.sshfs", "9p", "virtiofs", "ceph", ""])
def test_a_filesystem_with_locks_elsewhere_proves_nothing(proc: FakeProc, fstype: str) -> None:
    proc.mounts(fstype)
    assert proc.ask().state is LockState.NONE


def test_a_nested_pid_namespace_hides_locks_and_proves_nothing(proc: FakeProc) -> None:
    proc.namespace("pid:[4026532001]")
    found = proc.ask()
    assert found.state is LockState.NONE
    assert "pid namespace" in found.detail
    proc.locks(f"1: FLOCK  ADVISORY  WRITE 12 {place(proc.file)} 0 EOF\n")
    assert proc.ask() == Lock(LockState.HELD, 12)


@pytest.mark.parametrize(
    "text", ["gibberish\n", "1: FLOCK  ADVISORY  WRITE x fe:00:1 0 EOF\n", "1:\n", "\0\n"]
)
def test_lines_that_cannot_be_read_prove_nothing(proc: FakeProc, text: str) -> None:
    proc.locks(text)
    assert proc.ask().state is LockState.NONE


@pytest.mark.parametrize("name", ["locks", "self/mountinfo", "self/ns/pid"])
def test_a_proc_without_its_files_proves_nothing(proc: FakeProc, name: str) -> None:
    (proc.directory / name).unlink()
    assert proc.ask().state is LockState.NONE


@pytest.mark.parametrize("text", ["", "x\n", "{} 1 8:1\n", "{} 1 8:1 / / rw - \n"])
def test_a_torn_mountinfo_proves_nothing(proc: FakeProc, text: str) -> None:
    (proc.directory / "self/mountinfo").write_text(text.format(_mount_id(proc.file)))
    assert proc.ask().state is LockState.NONE


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@private_mounts
def test_a_lock_on_a_dead_filesystem_is_no_answer_and_no_wait(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root" / "below")
    server = dead_fuse(tmp_path / "root")
    try:
        for path in (tmp_path / "root" / "meta.db", tmp_path / "link" / "meta.db"):
            found = in_a_child(partial(_look, path))
            assert found.state is LockState.NONE
            assert f"{tmp_path}/root (fuse)" in found.detail
    finally:
        os.close(server)


def _look(path: Path) -> Lock:
    end_if_it_hangs()
    return lock_holder(os.fsencode(path))


# ------------------------------------------------------------------------- locks of anybody


def test_whoever_is_likely_to_hold_it_is_asked_first(file: Path) -> None:
    """The list of all locks is not even opened: it may be without end."""
    with held(file) as pid:
        found = lock_holder(os.fsencode(file), likely=(os.getpid(), pid), budget=0.0)
    assert found == Lock(LockState.HELD, pid)


def test_one_that_does_not_hold_it_proves_nothing(file: Path) -> None:
    handle = file.open("rb")
    with handle, held(file) as pid:
        assert lock_holder(os.fsencode(file), likely=(os.getpid(),)).pid == pid


def test_a_list_that_takes_too_long_is_no_answer(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"")
    with other.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # or the list may be empty, and then it takes no time
        found = lock_holder(os.fsencode(file), budget=-1.0)
    assert found.state is LockState.TOO_MANY
    assert "too many locks" in found.detail


def test_the_list_is_read_no_further_than_to_the_lock(proc: FakeProc) -> None:
    proc.locks(f"1: FLOCK  ADVISORY  WRITE 4711 {place(proc.file)} 0 EOF\n" + "gibberish\n" * 10)
    assert proc.ask() == Lock(LockState.HELD, 4711)


@pytest.mark.parametrize("size", [1, 54, 55, 56, 4096])
def test_lines_are_read_whole_wherever_a_read_ends(
    proc: FakeProc, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_CHUNK", size)
    other = "9: FLOCK  ADVISORY  WRITE 7 00:01:1 0 EOF\n"
    proc.locks(other * 20 + f"1: FLOCK  ADVISORY  WRITE 4711 {place(proc.file)} 0 EOF\n" + other)
    assert proc.ask() == Lock(LockState.HELD, 4711)


def test_a_line_without_end_is_no_answer(proc: FakeProc) -> None:
    proc.locks("x" * (1 << 20))
    assert proc.ask().state is LockState.NONE


@pytest.mark.fault("300,000 POSIX locks")
def test_many_locks_of_somebody_cost_a_bounded_time(tmp_path: Path, file: Path) -> None:
    with hostile.attacked(hostile.many_locks, 60_000):
        watch = Stopwatch()
        assert lock_holder(os.fsencode(file), budget=0.1).state is LockState.TOO_MANY
        with held(file) as pid:
            assert lock_holder(os.fsencode(file), likely=(pid,), budget=0.1).pid == pid
        assert watch.read() < 1.0
