"""What anybody may do without a privilege, done by somebody without any, beside the program.

Run as a program: ``python hostile.py nobody ATTACK ARGUMENTS``. It gives up everything it has (user
65534, no groups, no capabilities, no_new_privs), attacks, says ``ready`` and goes on until its
standard input ends. Whatever it started ends with it. Bounded in count by its arguments.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NOBODY: Final = 65534
SHIM: Final = "containerd-shim-runc-v2"

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MM_MAP: Final = struct.Struct("11QQIi")
_MAP_NORESERVE: Final = 0x4000
_LOCKS: Final = 1000  # of a file
_LONG_NAME: Final = "x" * 250
_LONG_PATH: Final = 15  # of such names; the kernel tells 4095 bytes
_WORD: Final = 100_000  # bytes of a word; the kernel takes 128 KiB

Attack = Callable[[*tuple[str, ...]], None]

KEPT: Final[list[object]] = []
"""What must stay open or mapped."""


def drop() -> None:
    """Be nobody from now on, and end with whoever started us."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as whoever was nobody from the start
    follow_parent()


def follow_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def name(what: str) -> None:
    """Take a short name."""
    _LIBC.prctl(_PR_SET_NAME, what.encode())


def move_words(start: int, end: int) -> None:
    """Say that our command line lies between two addresses (prctl(2), PR_SET_MM_MAP)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    stat = [int(fields[number]) for number in (23, 24, 42, 43, 44)]
    start_code, end_code, start_data, end_data, start_brk = stat
    brk = _LIBC.sbrk
    brk.restype = ctypes.c_void_p
    places = (start_code, end_code, start_data, end_data, start_brk, brk(0), int(fields[25]))
    packed = _MM_MAP.pack(*places, start, end, end, end, 0, 0, -1)
    buffer = ctypes.create_string_buffer(packed, _MM_MAP.size)
    if _LIBC.prctl(_PR_SET_MM, _PR_SET_MM_MAP, buffer, ctypes.c_ulong(_MM_MAP.size), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def address_of(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


# ------------------------------------------------------------------------------------ attacks


def endless_words(*said: str) -> None:
    """Have a command line of gigabytes."""
    (gigabytes,) = said
    size = int(gigabytes) << 30
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    start = address_of(mapping)
    move_words(start, start + size)
    name(SHIM)
    KEPT.append(mapping)


def silent_words(*said: str) -> None:
    """Have a command line that nobody can read: we hold the lock it takes, and wait.

    A file is mapped for which its filesystem, in a dead server's hands, waits for ever.
    """
    (handle,) = said
    name(SHIM)
    libc_mmap = _LIBC.mmap
    libc_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    os.write(1, b"ready\n")  # nothing can be said any more once it waits
    libc_mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE, int(handle), 0)


def many_locks(*said: str) -> None:
    """Hold POSIX locks, each of one byte."""
    (count,) = said
    handle = -1
    for number in range(int(count)):
        if number % _LOCKS == 0:  # those of one file are a list that each new one walks along
            handle = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)
        fcntl.lockf(handle, fcntl.LOCK_EX, 1, number * 2)


def pretend(*said: str) -> None:
    """Be so many shims and helpers for some bundles, with command lines of so many long words."""
    count, words, namespace, *ids = said
    actions = ((), ("delete",), ("start",))
    link = Path(tempfile.mkdtemp()) / SHIM
    link.symlink_to("/bin/sh")
    padding = ["x" * _WORD] * int(words)
    executed, executing = os.pipe()  # closed by each child's exec
    for number in range(int(count)):
        who = ids[number % len(ids)] if ids else f"c{number}"
        command = [SHIM, "-c", "read _", "-namespace", namespace, "-id", who]
        action = actions[number % len(actions)]
        if os.fork() == 0:
            follow_parent()
            os.execv(link, [*command, *padding, *action])  # noqa: S606 - its name is the point
    os.close(executing)
    os.read(executed, 1)
    os.close(executed)
    link.unlink()
    link.parent.rmdir()


def own_namespaces(*said: str) -> None:
    """Be a shim for a bundle in a user and a mount namespace of our own."""
    namespace, id_ = said
    if _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
    pretend("1", "0", namespace, id_)


def many_handles(*said: str) -> None:
    """Have descriptors open, as many in each process as it may have."""
    (count,) = said
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    left = int(count)
    while left > 0:
        ready, done = os.pipe()
        part = min(left, hard - 16)
        left -= part
        if os.fork() == 0:
            follow_parent()
            for _ in range(part):
                os.dup(0)
            os.write(done, b"x")
            signal.pause()
        os.close(done)
        os.read(ready, 1)
        os.close(ready)


def many_processes(*said: str) -> None:
    """Be many."""
    (count,) = said
    for _ in range(int(count)):
        if os.fork() == 0:
            follow_parent()
            signal.pause()


def many_mounts(*said: str) -> None:
    """Have mounts in namespaces of our own: one in which there are so many."""
    (count,) = said
    if _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
    place = tempfile.mkdtemp().encode()
    for _ in range(int(count)):
        if _LIBC.mount(b"x", place, b"tmpfs", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")


def many_cgroups(*said: str) -> None:
    """Be in very many cgroups under very long names, one process in each, below our own ones.

    The last one is in a cgroup of which the path is longer than the kernel tells.
    """
    count, *places = said
    ends = [_descend(os.open(place, os.O_RDONLY), _LONG_PATH) for place in places]
    _populate(ends, [f"c{number}" for number in range(int(count))])
    _populate([_descend(end, 2) for end in ends], ["deepest"])


def _descend(place: int, times: int) -> int:
    for _ in range(times):
        os.mkdir(_LONG_NAME, dir_fd=place)
        place = os.open(_LONG_NAME, os.O_RDONLY, dir_fd=place)
    return place


def _populate(places: Sequence[int], names: Sequence[str]) -> None:
    for name in names:
        pid = os.fork()
        if pid == 0:
            follow_parent()
            signal.pause()
        for kind, place in enumerate(places):
            own = f"{name}-{kind}"  # or it would be the same path in each hierarchy
            os.mkdir(own, dir_fd=place)
            procs = os.open(f"{own}/cgroup.procs", os.O_WRONLY, dir_fd=place)
            os.write(procs, str(pid).encode())
            os.close(procs)


def lock_files(*places: str) -> None:
    """Lock every file that may be read, but in a rootfs: that is kept busy by whoever uses it."""
    for place in places:
        for directory, below, files in os.walk(place):
            below[:] = [name for name in below if name != "rootfs"]
            for file in files:
                try:
                    handle = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_NONBLOCK)
                    KEPT.append(handle)
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue


ATTACKS: Final[dict[str, Attack]] = {
    one.__name__: one
    for one in (
        endless_words,
        silent_words,
        many_locks,
        pretend,
        own_namespaces,
        many_handles,
        many_processes,
        many_mounts,
        many_cgroups,
        lock_files,
    )
}


def main() -> None:
    """Attack until standard input ends."""
    if sys.argv[2] == many_cgroups.__name__:
        for place in sys.argv[4:]:
            Path(place, "cgroup.procs").write_text(str(os.getpid()))  # as root has put him there
    if sys.argv[1] == "nobody":
        drop()
    follow_parent()
    ATTACKS[sys.argv[2]](*sys.argv[3:])
    os.write(1, b"ready\n")
    sys.stdin.read()


# ------------------------------------------------------------------------------------ for tests


@contextmanager
def attacked(attack: Attack, *arguments: object, cwd: str | Path = "/") -> Iterator[int]:
    """Have an attack under way; gives the attacker's pid, which ends with the block."""
    attacker = _started(attack, *arguments, cwd=cwd)
    try:
        yield attacker.pid
    finally:
        _end(attacker)


@contextmanager
def silent(place: Path, *, privileged: bool = False, cwd: str | Path = "/") -> Iterator[int]:
    """Have a process whose command line nobody can read; see `tests.support.stuckfuse`.

    Args:
        place: Where a filesystem may be mounted.
        privileged: Whether it is root's.
        cwd: Where it works.
    """
    from tests.support.stuckfuse import unmappable_file

    attacker: subprocess.Popen[bytes] | None = None
    try:
        with unmappable_file(place) as handle:
            attacker = _started(
                silent_words, handle, handles=[handle], privileged=privileged, cwd=cwd
            )
            _wait_until_it_is_stuck(attacker.pid)
            yield attacker.pid
            attacker.kill()  # which it hears of only once its filesystem is gone
    finally:
        if attacker is not None:
            _end(attacker)


def _wait_until_it_is_stuck(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "D":
        assert time.monotonic() < deadline, "it does not get stuck"
        select.select([], [], [], 0.005)


def _started(
    attack: Attack,
    *arguments: object,
    cwd: str | Path = "/",
    handles: Sequence[int] = (),
    privileged: bool = False,
) -> "subprocess.Popen[bytes]":
    who = "root" if privileged else "nobody"
    words = [sys.executable, "-I", __file__, who, attack.__name__, *map(str, arguments)]
    attacker = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=handles, cwd=cwd
    )
    assert attacker.stdout is not None
    if attacker.stdout.readline() != b"ready\n":
        _end(attacker)
        raise AssertionError("the attack failed")
    return attacker


def _end(attacker: "subprocess.Popen[bytes]") -> None:
    attacker.kill()
    attacker.communicate()


if __name__ == "__main__":
    main()
