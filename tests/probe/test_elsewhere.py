"""What other namespaces have mounted: a pass sees all of them, however many there are, or fails."""

import os
import shlex
import subprocess
import sys
import tempfile
from errno import EFBIG, EMFILE, ENOENT
from itertools import count
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.probe import elsewhere
from reconciler.probe.elsewhere import Elsewhere, mounted_elsewhere
from reconciler.probe.process import MOST
from tests.support.children import WITHOUT_FIRST_THREAD, wait_for_its_first_thread_to_end
from tests.support.mountns import private_mounts

pytestmark = pytest.mark.safety

OURS, USERS, THEIRS = "mnt:[1]", "user:[1]", "mnt:[2]"
LAYERS = ":".join(f"/var/lib/containerd/snapshots/{n}/fs" for n in range(10))
BUNDLE = "default/c1/rootfs"


class FakeProc:
    """A /proc of processes made up, and a state tree that its tables show."""

    def __init__(self, base: Path) -> None:
        self.path, self.tree = base / "proc", base / "tree"
        self.tree.mkdir()
        mount_id = kernel.statx(kernel.AT_FDCWD, os.fsencode(self.tree)).mount_id
        self.own = f"{mount_id} 1 8:1 / / rw - ext4 /dev/x rw\n"
        self.add("self", OURS, self.own)
        self.memory = f"{self.own}7777777 {mount_id} 0:99 / {self.tree}/{BUNDLE} rw - tmpfs x rw\n"

    def add(self, name: object, space: str, table: str, user: str = USERS) -> None:
        place = self.path / str(name)
        (place / "ns").mkdir(parents=True)
        (place / "ns" / "mnt").symlink_to(space)
        (place / "ns" / "user").symlink_to(user)
        (place / "mountinfo").write_text(table)

    def ask(self) -> tuple[Elsewhere, ...]:
        return mounted_elsewhere(os.fsencode(self.tree), os.fsencode(self.path))


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def overlays(size: int) -> str:
    """Give the lines of as many mounted rootfs as make a table of that size."""
    line = "{} 1 0:50 / /run/x/{}/rootfs rw - overlay overlay rw,lowerdir=" + LAYERS + "\n"
    first = line.format(8_000_000, 8_000_000)
    return "".join(line.format(n, n) for n in range(8_000_000, 8_000_000 + size // len(first) + 1))


@pytest.mark.parametrize("size", [0, MOST, 9 << 20], ids=["small", "over a MiB", "over nine MiB"])
def test_a_large_mount_table_is_read_whole(proc: FakeProc, size: int) -> None:
    """Five thousand dead bundles whose rootfs is still mounted: what this program is for."""
    many = overlays(size)
    (proc.path / "self" / "mountinfo").write_text(many + proc.own)
    proc.add(7, THEIRS, many + proc.memory)
    (found,) = proc.ask()
    assert (found.path, found.pid, found.fstype) == (BUNDLE.encode(), 7, "tmpfs")


def test_every_namespace_of_a_large_node_is_looked_at(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(1, 8_200):
        proc.add(pid, f"mnt:[{pid + 10}]", proc.own)
    proc.add(8_200, THEIRS, proc.memory)
    in_order = [b"%d" % pid for pid in range(1, 8_201)]
    monkeypatch.setattr(os, "listdir", lambda _: in_order)
    assert [one.pid for one in proc.ask()] == [8_200]


def test_a_process_whose_first_thread_has_ended_is_where_the_others_are(proc: FakeProc) -> None:
    """The kernel shows of such a thread neither namespaces nor mounts (Linux ``do_exit``)."""
    (proc.path / "5" / "task" / "5").mkdir(parents=True)
    (proc.path / "5" / "mountinfo").write_text("")
    proc.add("5/task/6", OURS, proc.own)
    proc.add("5/task/7", THEIRS, proc.memory)
    (found,) = proc.ask()
    assert (found.path, found.pid) == (BUNDLE.encode(), 5)


@private_mounts
def test_so_is_a_real_one() -> None:
    """It alone keeps a filesystem in memory, at a place in the tree of ours."""
    with tempfile.TemporaryDirectory(dir="/tmp") as tree:
        place = Path(tree, "default", "c1")
        place.mkdir(parents=True)
        words = [sys.executable, "-c", WITHOUT_FIRST_THREAD]
        script = f"mount -t tmpfs x {place} && exec " + shlex.join(words)
        with subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=subprocess.PIPE,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline()
                wait_for_its_first_thread_to_end(process.pid)
                found = mounted_elsewhere(os.fsencode(tree))
            finally:
                process.kill()
    assert [(one.path, one.pid) for one in found] == [(b"default/c1", process.pid)]


def test_anybodys_processes_hide_nothing_and_hold_nothing_up(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(1, "mnt:[9]", proc.memory, user="user:[9]")
    proc.add(70_000, THEIRS, proc.memory)
    in_order = [b"%d" % pid for pid in range(1, 70_001)]
    monkeypatch.setattr(os, "listdir", lambda _: in_order)
    assert [one.pid for one in proc.ask()] == [70_000]


def test_a_table_longer_than_any_is_no_answer_and_says_what_to_do(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "MOST_MOUNTS", 1 << 20)
    proc.add(7, THEIRS, overlays(1 << 20) + proc.memory)
    with pytest.raises(OSError, match="pid 7: more than 1 MiB; unmount") as raised:
        proc.ask()
    assert raised.value.errno == EFBIG


def test_a_table_of_its_own_user_is_not_even_read(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "MOST_MOUNTS", 1 << 10)
    proc.add(7, THEIRS, overlays(1 << 20), user="user:[9]")
    assert proc.ask() == ()


def test_a_tree_whose_mount_is_not_shown_is_no_answer(proc: FakeProc) -> None:
    (proc.path / "self" / "mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/x rw\n")
    proc.add(7, THEIRS, proc.memory)
    with pytest.raises(OSError, match="not in the mount table") as raised:
        proc.ask()
    assert raised.value.errno == ENOENT


@pytest.mark.parametrize("which", [0, 1], ids=["our own", "another's"])
def test_no_handle_left_is_no_answer(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    proc.add(7, THEIRS, proc.memory)
    calls, whole = count(), os.open

    def refuse(*words: object, **options: object) -> int:
        if next(calls) == which:
            raise OSError(EMFILE, os.strerror(EMFILE))
        return whole(*words, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="open files") as raised:
        proc.ask()
    assert raised.value.errno == EMFILE


def test_one_that_ended_meanwhile_hides_nobody_of_its_namespace(proc: FakeProc) -> None:
    for pid in (7, 8, 9):
        proc.add(pid, THEIRS, proc.memory)
    (proc.path / "7" / "mountinfo").unlink()
    (proc.path / "8" / "ns" / "mnt").unlink()
    assert [one.pid for one in proc.ask()] == [9]
