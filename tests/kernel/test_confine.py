"""What a process gives up is gone, there and in what it executes, and nothing else is."""

import ctypes
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.kernel import confine
from tests.support import mountns
from tests.support.forked import REFUSED, in_a_child, mask, outcome, status_of
from tests.support.mountns import private_mounts

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, SETPCAP, SYS_ADMIN = 0, 1, 2, 8, 21

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have capabilities")
with_landlock = pytest.mark.skipif(
    not confine.landlock_abi(), reason="this kernel has no Landlock, or does not let us use it"
)


def forbid(*allowed: Path) -> None:
    handles = [os.open(path, os.O_PATH) for path in allowed]
    confine.no_new_privileges()
    confine.forbid_changes(handles)
    for handle in handles:
        os.close(handle)


@as_root
def test_exactly_what_is_kept_is_left() -> None:
    def body() -> dict[str, int]:
        confine.drop_capabilities({DAC_OVERRIDE, DAC_READ_SEARCH})
        return status_of()

    left = mask({DAC_OVERRIDE, DAC_READ_SEARCH})
    found = in_a_child(body)
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (left, left, left)
    assert (found["CapInh"], found["CapAmb"]) == (0, 0)


@as_root
def test_nothing_comes_that_was_not_there() -> None:
    def body() -> dict[str, int]:
        confine.drop_capabilities({DAC_OVERRIDE})
        confine.drop_capabilities({DAC_OVERRIDE, SYS_ADMIN})
        return status_of()

    found = in_a_child(body)
    assert (found["CapPrm"], found["CapEff"]) == (mask({DAC_OVERRIDE}),) * 2


def executed() -> int:
    """Give what a program gets that root executes."""
    said = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    return int(said.stdout.split("CapPrm:\t")[1].split()[0], 16)


@as_root
@pytest.mark.parametrize("way", ["bounding set", "no new privileges"])
def test_an_executed_program_gets_no_more(way: str) -> None:
    """Each of the two alone is enough; a unit may leave us without the first."""

    def body() -> int:
        if way == "no new privileges":
            confine.no_new_privileges()
        confine.drop_capabilities({DAC_OVERRIDE}, bounding=way == "bounding set")
        return executed()

    assert in_a_child(body) == mask({DAC_OVERRIDE})


@as_root
def test_with_neither_it_would_get_everything_back() -> None:
    def body() -> int:
        confine.drop_capabilities({DAC_OVERRIDE}, bounding=False)
        return executed()

    assert in_a_child(body) & mask({SYS_ADMIN})


@as_root
def test_without_setpcap_the_bounding_set_stays_and_the_rest_goes() -> None:
    def body() -> dict[str, int]:
        confine.drop_capabilities({DAC_OVERRIDE, SYS_ADMIN}, bounding=False)
        confine.drop_capabilities({DAC_OVERRIDE})
        return status_of()

    found = in_a_child(body)
    assert found["CapPrm"] == mask({DAC_OVERRIDE})
    assert found["CapBnd"] & mask({SYS_ADMIN})


def test_whoever_has_no_capabilities_can_drop_them_all_the_same() -> None:
    def body() -> dict[str, int]:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        confine.drop_capabilities({DAC_OVERRIDE})
        return status_of()

    assert in_a_child(body)["CapPrm"] == 0


def test_new_privileges_are_told_as_forbidden() -> None:
    def body() -> int:
        confine.no_new_privileges()
        return status_of()["NoNewPrivs"]

    assert in_a_child(body) == 1


def test_threads_are_counted() -> None:
    before, end = confine.threads(), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert confine.threads() == before + 1
    finally:
        end.set()
        thread.join()


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A directory in which anything may be done, and a forbidden one with one of everything."""
    for name in ("ours", "theirs"):
        (tmp_path / name / "empty").mkdir(parents=True)
        (tmp_path / name / "file").write_text("precious\n")
        (tmp_path / name / "full").mkdir()
        (tmp_path / name / "full" / "inner").write_text("precious\n")
    return tmp_path


def listing(top: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path), path.read_bytes() if path.is_file() else b"") for path in top.rglob("*")
    )


CHANGES: dict[str, Callable[[Path], object]] = {
    "unlink": lambda top: os.unlink(top / "file"),
    "rmdir": lambda top: os.rmdir(top / "empty"),
    "rename": lambda top: os.rename(top / "file", top / "other"),
    "rename into another directory": lambda top: os.rename(top / "file", top / "empty" / "file"),
    "rename a directory": lambda top: os.rename(top / "full", top / "other"),
    "link": lambda top: os.link(top / "file", top / "other"),
    "symlink": lambda top: os.symlink("file", top / "other"),
    "mkdir": lambda top: os.mkdir(top / "other"),
    "create": lambda top: os.close(os.open(top / "other", os.O_CREAT | os.O_WRONLY)),
    "mkfifo": lambda top: os.mkfifo(top / "other"),
    "mknod": lambda top: os.mknod(top / "other", 0o600 | 0o100000),
    "bind": lambda top: socket.socket(socket.AF_UNIX).bind(str(top / "other")),
    "write": lambda top: os.close(os.open(top / "file", os.O_WRONLY)),
    "truncate": lambda top: os.truncate(top / "file", 0),
    "open and truncate": lambda top: os.close(os.open(top / "file", os.O_RDWR | os.O_TRUNC)),
}


@with_landlock
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_change_is_refused_everywhere_but_in_the_allowed_place(ground: Path, name: str) -> None:
    def body() -> tuple[int, int]:
        forbid(ground / "ours")
        return outcome(lambda: CHANGES[name](ground / "theirs")), outcome(
            lambda: CHANGES[name](ground / "ours")
        )

    before = listing(ground / "theirs")
    theirs, ours = in_a_child(body)
    assert theirs in REFUSED, errno.errorcode.get(theirs, theirs)
    assert ours == 0, errno.errorcode[ours]
    assert listing(ground / "theirs") == before


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_without_that_the_same_change_succeeds(ground: Path, name: str) -> None:
    assert in_a_child(lambda: outcome(lambda: CHANGES[name](ground / "theirs"))) == 0


@with_landlock
def test_nothing_is_carried_from_one_place_into_the_other(ground: Path) -> None:
    def body() -> list[int]:
        forbid(ground / "ours")
        ours, theirs = ground / "ours", ground / "theirs"
        return [
            outcome(lambda: os.rename(theirs / "file", ours / "taken")),
            outcome(lambda: os.rename(ours / "file", theirs / "given")),
            outcome(lambda: os.rename(ours / "file", theirs / "file")),
        ]

    before = listing(ground)
    assert all(error in {*REFUSED, errno.EXDEV} for error in in_a_child(body))
    assert listing(ground) == before


@with_landlock
def test_reading_executing_connecting_and_open_handles_stay(ground: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(ground / "theirs" / "socket"))
    listener.listen()

    def body() -> tuple[str, list[str], int]:
        opened = os.open(ground / "theirs" / "file", os.O_WRONLY | os.O_APPEND)
        forbid(ground / "ours", Path(os.devnull))
        os.write(opened, b"more\n")
        text = (ground / "theirs" / "file").read_text()
        names = sorted(os.listdir(ground / "theirs"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(ground / "theirs" / "socket"))
        done = subprocess.run(["true"], stdout=subprocess.DEVNULL, check=False)
        slate = os.memfd_create("slate")
        os.write(slate, b"x")
        os.ftruncate(slate, 0)
        return text, names, done.returncode

    with listener:
        text, names, code = in_a_child(body)
    assert text == "precious\nmore\n"
    assert names == ["empty", "file", "full", "socket"]
    assert code == 0


@with_landlock
def test_it_holds_for_programs_and_threads_made_later(ground: Path) -> None:
    def body() -> tuple[int, list[int]]:
        forbid(ground / "ours")
        done = subprocess.run(["rm", "-f", ground / "theirs" / "file"], check=False)
        errors: list[int] = []
        thread = threading.Thread(
            target=lambda: errors.append(outcome(lambda: os.unlink(ground / "theirs" / "file")))
        )
        thread.start()
        thread.join()
        return done.returncode, errors

    code, errors = in_a_child(body)
    assert code != 0
    assert set(errors) <= REFUSED
    assert (ground / "theirs" / "file").exists()


@with_landlock
def test_it_does_not_hold_for_a_thread_that_was_there_before(ground: Path) -> None:
    """Why a process confines itself while it has one thread."""

    def body() -> list[int]:
        go, errors = threading.Event(), list[int]()

        def unlink() -> None:
            go.wait()
            errors.append(outcome(lambda: os.unlink(ground / "theirs" / "file")))

        thread = threading.Thread(target=unlink)
        thread.start()
        forbid(ground / "ours")
        go.set()
        thread.join()
        return errors

    assert in_a_child(body) == [0]


def attempts(top: Path) -> dict[str, int]:
    """Try to mount and unmount."""
    return {
        "umount": outcome(lambda: kernel.umount2(bytes(top / "mounted"), kernel.UMOUNT_NOFOLLOW)),
        "detach": outcome(lambda: kernel.umount2(bytes(top / "mounted"), kernel.MNT_DETACH)),
        "mount": outcome(lambda: mountns.tmpfs(top / "empty")),
        "bind mount": outcome(lambda: mountns.bind(top / "mounted", top / "empty")),
    }


@private_mounts
@pytest.mark.parametrize("means", ["landlock", "capabilities"])
def test_neither_mounting_nor_unmounting_is_possible(tmp_path: Path, means: str) -> None:
    """Each of the two alone forbids it."""
    if means == "landlock" and not confine.landlock_abi():
        pytest.skip("this kernel has no Landlock, or does not let us use it")
    for name in ("mounted", "empty"):
        (tmp_path / name).mkdir()
    mountns.tmpfs(tmp_path / "mounted")

    def body() -> dict[str, int]:
        if means == "landlock":
            forbid(tmp_path)
        else:
            confine.drop_capabilities({DAC_OVERRIDE, DAC_READ_SEARCH})
        return attempts(tmp_path)

    assert in_a_child(body) == dict.fromkeys(attempts_names(), errno.EPERM)
    assert os.path.ismount(tmp_path / "mounted")


@private_mounts
def test_without_that_both_are_possible(tmp_path: Path) -> None:
    for name in ("mounted", "empty"):
        (tmp_path / name).mkdir()
    for _ in range(3):  # one for each way to be rid of it, one to bind
        mountns.tmpfs(tmp_path / "mounted")
    assert in_a_child(lambda: attempts(tmp_path)) == dict.fromkeys(attempts_names(), 0)


def attempts_names() -> Iterable[str]:
    return ("umount", "detach", "mount", "bind mount")


@with_landlock
@as_root
def test_other_processes_cannot_be_reached_into(tmp_path: Path) -> None:
    """The numbers of handles can still be listed; what they lead to cannot be had."""
    pid, handle = os.getpid(), os.open(tmp_path, os.O_RDONLY)

    def reach() -> list[int]:
        links = ("ns/mnt", "cwd", "root", "exe", f"fd/{handle}")
        return [
            *(outcome(partial(os.readlink, f"/proc/{pid}/{link}")) for link in links),
            outcome(lambda: os.listdir(f"/proc/{pid}/cwd/")),
            outcome(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))),
        ]

    def body() -> tuple[list[int], list[int]]:
        before = reach()
        forbid()
        return before, reach()

    try:
        before, after = in_a_child(body)
    finally:
        os.close(handle)
    assert set(before) == {0}
    assert set(after) <= REFUSED


def test_no_landlock_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(confine, "_landlock", missing)
    assert confine.landlock_abi() == 0
    with pytest.raises(OSError, match="not implemented") as caught:
        confine.forbid_changes(())
    assert caught.value.errno == errno.ENOSYS
