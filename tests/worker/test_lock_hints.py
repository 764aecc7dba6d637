"""Who works on a tree is told beside its lock, to whoever knows the tree alone; and doubted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.probe import locks
from reconciler.probe.locks import Lock, LockState
from reconciler.worker.lock import InstanceLock, Listening, Taken, listening

ME = os.getpid()
SOCKET = "/run/own/http.sock"


def told(where: Path) -> list[Listening]:
    return list(listening(os.fsencode(where), 1, 2))


def test_who_acts_and_who_watches_say_where_they_listen(tmp_path: Path) -> None:
    where = os.fsencode(tmp_path)
    acts, watches = InstanceLock(where, listens=SOCKET), InstanceLock(where, acting=False)
    watches.listens = "/run/other.sock"
    assert told(tmp_path) == []
    try:
        assert watches.take(1, 2) is None
        assert told(tmp_path) == [Listening(ME, "/run/other.sock", acts=False)]
        assert acts.take(1, 2) is None
        assert told(tmp_path) == [
            Listening(ME, SOCKET, acts=True),
            Listening(ME, "/run/other.sock", acts=False),
        ]
        acts.acting = False  # as a reload may have it
        assert acts.take(1, 2) is None
        assert told(tmp_path) == [Listening(ME, "/run/other.sock", acts=False)]
        watches.release()
        assert told(tmp_path) == []
        assert acts.take(1, 2) is None
        assert told(tmp_path) == [Listening(ME, SOCKET, acts=False)]
        assert list(listening(where, 1, 3)) == []
    finally:
        acts.release()
        watches.release()
    assert told(tmp_path) == []


def test_where_locks_are_hidden_it_may_be_asked_and_is_not_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = InstanceLock(os.fsencode(tmp_path), listens=SOCKET)
    assert lock.take(1, 2) is None
    for state in LockState:
        monkeypatch.setattr(locks, "lock_holder", lambda *_, state=state, **__: Lock(state))
        sure = state is LockState.HELD
        found = [Listening(ME, SOCKET, acts, sure) for acts in (True, False)]
        assert told(tmp_path) == ([] if state is LockState.FREE else found)
    monkeypatch.setattr(locks, "lock_holder", lambda *_, **__: Lock(LockState.HELD, 4711))
    assert [one.pid for one in told(tmp_path)] == [4711, 4711], "not its number in its own place"
    lock.release()


def test_a_command_that_acts_cannot_be_asked_and_says_so_by_its_lock(tmp_path: Path) -> None:
    lock = InstanceLock(os.fsencode(tmp_path))
    assert lock.take(1, 2) is None
    assert told(tmp_path) == [Listening(ME, "", acts=True)]
    assert InstanceLock(os.fsencode(tmp_path), listens=SOCKET).take(1, 2) == Taken(ME)
    lock.release()


def for_all_to_write(path: Path) -> None:
    path.chmod(0o666)


def a_symlink(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def a_second_name(path: Path) -> None:
    os.link(path, path.with_suffix(".second"))


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_somebody_else(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(path, 65534, 65534)


@pytest.mark.safety
@pytest.mark.parametrize(
    "make", [for_all_to_write, a_symlink, a_second_name, a_fifo, of_somebody_else]
)
def test_what_others_may_have_written_is_not_believed(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    lock = InstanceLock(os.fsencode(tmp_path), listens=SOCKET)
    assert lock.take(1, 2) is None
    (tmp_path / "tree-1-2.daemon").unlink()
    make(tmp_path / "tree-1-2.lock")
    assert told(tmp_path) == []
    lock.release()


@pytest.mark.safety
@pytest.mark.parametrize(
    ("text", "pid"),
    [
        (b"17\nrelative.sock\n", 17),
        (b"17\n/" + b"x" * 200, 17),
        (b"-1\n\xff", 0),
        (b"9" * 4000, 0),
        (b"", 0),
        (b"17", 17),
    ],
)
def test_what_is_no_socket_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, pid: int
) -> None:
    lock = InstanceLock(os.fsencode(tmp_path))
    assert lock.take(1, 2) is None
    (tmp_path / "tree-1-2.lock").write_bytes(text)
    assert told(tmp_path) == [Listening(ME, "", acts=True)], "the kernel knows"
    monkeypatch.setattr(locks, "lock_holder", lambda *_, **__: Lock(LockState.HELD))
    assert told(tmp_path) == [Listening(pid, "", acts=True)]
    lock.release()
