"""The thin layer over system calls: what it opens, what it refuses, and what it says."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler import kernel
from tests.support.handles import open_files
from tests.support.mountns import MNT_DETACH, bind, private_mounts, tmpfs, umount
from tests.support.opens import opened_of

ODD_NAMES = [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"tab\tback\\slash", b"n" * 255]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def mount_id_by_proc(fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise AssertionError


def test_statx_agrees_with_the_standard_library(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    os.utime(tmp_path / "file", ns=(1, 1_700_000_000_123_456_789))
    seen, known = kernel.statx(here, b"file"), os.stat(tmp_path / "file")
    assert (seen.mode, seen.ino, seen.dev) == (known.st_mode, known.st_ino, known.st_dev)
    assert (seen.size, seen.blocks) == (5000, known.st_blocks)
    assert seen.mtime_ns == known.st_mtime_ns
    assert seen.mtime == pytest.approx(known.st_mtime)
    assert not seen.is_mount_root
    assert not seen.is_automount


def test_mount_id_is_the_one_proc_shows(here: int) -> None:
    assert kernel.statx_handle(here).mount_id == mount_id_by_proc(here)


def test_birth_is_told_where_it_is_kept(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").touch()
    seen = kernel.statx(here, b"file")
    if seen.btime_ns == 0:
        pytest.skip("this filesystem keeps no birth times")
    assert abs(seen.btime - (tmp_path / "file").stat().st_mtime) < 5


def test_statx_looks_at_a_symlink_and_not_behind_it(tmp_path: Path, here: int) -> None:
    (tmp_path / "link").symlink_to("/")
    assert stat.S_ISLNK(kernel.statx(here, b"link").mode)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_bytes(tmp_path: Path, here: int, name: bytes) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    os.close(kernel.open_beneath(here, name))
    kernel.renameat2(here, name, here, b"renamed")
    assert kernel.statx(here, b"renamed").is_automount is False


def test_a_name_with_nul_is_refused_and_not_cut_short(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").touch()
    for call in (
        lambda: kernel.statx(here, b"file\0x"),
        lambda: kernel.open_beneath(here, b"file\0x"),
        lambda: kernel.read_beneath(here, b"file\0x", 10),
        lambda: kernel.renameat2(here, b"file\0x", here, b"new"),
        lambda: kernel.renameat2(here, b"file", here, b"new\0x"),
        lambda: kernel.umount2(b"/nowhere\0x", 0),
    ):
        with pytest.raises(OSError, match="NUL") as caught:
            call()
        assert caught.value.errno == errno.EINVAL
    assert (tmp_path / "file").exists()


def test_errors_carry_errno_and_name(here: int) -> None:
    for call in (kernel.statx, kernel.open_beneath):
        with pytest.raises(FileNotFoundError) as caught:
            call(here, b"absent")
        assert caught.value.filename == b"absent"


def test_open_beneath_refuses_what_leads_elsewhere(tmp_path: Path, here: int) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("inner")
    (tmp_path / "inner" / "sub").mkdir()
    for name, number in [
        (b"link", errno.ENOTDIR),
        (b"link/sub", errno.ELOOP),
        (b"..", errno.EXDEV),
        (b"inner/../..", errno.EXDEV),
        (b"/", errno.EXDEV),
    ]:
        with pytest.raises(OSError, match=os.strerror(number)):
            kernel.open_beneath(here, name)
    os.close(kernel.open_beneath(here, b"inner/sub"))


def test_open_beneath_gives_a_handle_that_ends_at_exec(tmp_path: Path, here: int) -> None:
    (tmp_path / "inner").mkdir()
    fd = kernel.open_beneath(here, b"inner")
    assert os.get_inheritable(fd) is False
    os.close(fd)


@private_mounts
def test_open_beneath_stops_at_every_kind_of_mount(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("covered")
    (tmp_path / "other").mkdir()
    (tmp_path / "other.json").write_text("canary")
    parent = os.open(tmp_path, os.O_RDONLY)
    covers: list[tuple[Callable[[], None], bytes]] = [
        (lambda: tmpfs(tmp_path / "dir"), b"dir"),
        (lambda: bind(tmp_path / "other", tmp_path / "dir"), b"dir"),
        (lambda: bind(tmp_path / "other.json", tmp_path / "file"), b"file"),
    ]
    for cover, name in covers:
        cover()
        assert kernel.statx(parent, name).is_mount_root
        for directory in (True, False):
            with pytest.raises(OSError, match="cross-device"):
                kernel.open_beneath(parent, name, directory=directory)
        with pytest.raises(OSError, match="cross-device"):
            kernel.read_beneath(parent, name, 100)
        umount(tmp_path / os.fsdecode(name))


@private_mounts
def test_umount_takes_one_layer_and_follows_no_symlink(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    tmpfs(target)
    tmpfs(target)
    with pytest.raises(OSError, match="Invalid"):
        kernel.umount2(os.fsencode(link), kernel.UMOUNT_NOFOLLOW)
    kernel.umount2(os.fsencode(target), kernel.UMOUNT_NOFOLLOW)
    assert os.path.ismount(target)
    kernel.umount2(os.fsencode(target), kernel.UMOUNT_NOFOLLOW)
    with pytest.raises(OSError, match="Invalid"):
        kernel.umount2(os.fsencode(target), kernel.UMOUNT_NOFOLLOW)


@private_mounts
def test_filesystem_types_are_told_apart(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    fd = os.open(tmp_path, os.O_PATH)
    assert kernel.fs_type(fd) == kernel.TMPFS_MAGIC
    proc = os.open("/proc", os.O_RDONLY)
    assert kernel.fs_type(proc) == 0x9FA0
    os.close(fd)
    umount(tmp_path, MNT_DETACH)


def test_rename_replaces_nothing(tmp_path: Path, here: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError):
        kernel.renameat2(here, b"old", here, b"new")
    kernel.renameat2(here, b"old", here, b"free")
    assert sorted(os.listdir(here)) == ["free", "new"]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 200_000])
def test_files_are_read_whole_or_to_the_limit(tmp_path: Path, here: int, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    before = open_files()
    assert kernel.read_beneath(here, b"file", 1 << 20) == content
    assert kernel.read_beneath(here, b"file", 4096) == content[:4096]
    assert kernel.read_beneath(here, b"file", 1) == content[:1]
    assert open_files() <= before


def test_files_that_say_size_zero_are_read_all_the_same() -> None:
    fd = os.open(f"/proc/{os.getpid()}", os.O_RDONLY)
    try:
        whole = Path("/proc/self/mountinfo").read_bytes()
        assert kernel.read_beneath(fd, b"mountinfo", 1 << 20) == whole
        assert kernel.read_beneath(fd, b"mountinfo", 10) == whole[:10]
    finally:
        os.close(fd)


def test_only_regular_files_are_read(tmp_path: Path, here: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    before = open_files()
    for name, number in [
        (b"fifo", errno.ENXIO),
        (b"socket", errno.ENXIO),
        (b"dir", errno.EISDIR),
        (b"link", errno.ELOOP),
        (b"loop", errno.ELOOP),
        (b"absent", errno.ENOENT),
    ]:
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            kernel.read_beneath(here, name, 100)
        assert caught.value.errno == number, name
    assert open_files() <= before


def test_a_fifo_is_not_opened_even_for_an_instant(tmp_path: Path, here: int) -> None:
    """A writer that does not block gets ENXIO as long as nobody has ever opened the other end.

    Data waiting in the pipe of a reader that is there stays there, and inotify sees no open.
    """
    os.mkfifo(tmp_path / "log")
    with opened_of([tmp_path]) as opened, pytest.raises(OSError, match="No such device"):
        kernel.read_beneath(here, b"log", 100)
    assert opened == []
    with pytest.raises(OSError, match="No such device"):
        os.open(tmp_path / "log", os.O_WRONLY | os.O_NONBLOCK)


def test_openat2_is_there_or_is_said_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.has_openat2()
    monkeypatch.setattr(kernel, "_SYS_OPENAT2", 1_000_000)
    assert not kernel.has_openat2()
