"""Strace on a process that is there already: what it called, and faults in what it will call.

Counters of an injection begin at the attachment, so only what the process is about to do counts,
and no interpreter's start.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ATTACH_SECONDS = 10.0

OPENING = frozenset(
    {
        "accept4", "connect", "dup", "epoll_create1", "fsopen", "inotify_init1", "memfd_create",
        "open", "open_tree", "openat", "openat2", "pidfd_open", "pipe2", "socket", "socketpair",
    }
)  # fmt: skip
MUTATING = frozenset(
    {
        "chmod", "fchmodat", "fsync", "ftruncate", "kill", "link", "linkat", "mkdir", "mkdirat",
        "mount", "pidfd_send_signal", "pwrite64", "rename", "renameat", "renameat2", "rmdir",
        "sendmsg", "sendto", "symlinkat", "umount2", "unlink", "unlinkat", "utimensat", "write",
    }
)  # fmt: skip
FILES = frozenset(
    {
        "chmod", "chown", "fchmod", "fchmodat", "fchown", "fchownat", "fsetxattr", "ftruncate",
        "kill", "lchown", "link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "mount",
        "mount_setattr", "move_mount", "pivot_root", "pidfd_send_signal", "removexattr", "rename",
        "renameat", "renameat2", "rmdir", "setxattr", "symlink", "symlinkat", "tgkill", "tkill",
        "truncate", "umount2", "unlink", "unlinkat", "utimensat",
    }
)  # fmt: skip
"""Calls that change something in the world: a file, a mount, a process."""

_LINE = re.compile(r"^(\d+\s+)?(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed>)(.*)$")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True)
class Call:
    """One system call as strace wrote it down."""

    name: str
    words: str

    @property
    def succeeded(self) -> bool:
        return not re.search(r"= -1 [A-Z]|= \?", self.words)

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.words


def needed() -> None:
    """Skip where there is no strace, or it may not trace."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")


def read(trace: Path) -> list[Call]:
    """Read a trace; a call that another process interrupted is put together again."""
    calls = []
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, name, words = match[1] or "", match[2], match[3]
        if words.endswith(_UNFINISHED):
            begun[pid] = words.removesuffix(_UNFINISHED)
        else:
            calls.append(Call(name, begun.pop(pid, "") + words))
    return calls


def counted(calls: list[Call]) -> Counter[str]:
    """How often each call was made."""
    return Counter(call.name for call in calls)


def injectable(call: str) -> bool:
    """Return whether strace can let such calls fail; not if they are newer than itself."""
    return not call.startswith("syscall_")


@contextmanager
def attached(pid: int, *options: str, to: Path = Path("/dev/null")) -> Iterator[None]:
    """Trace a process; in the end let go of it, if it is still there."""
    strace = subprocess.Popen(
        ["strace", "-qq", "-p", str(pid), "-o", os.fspath(to), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _wait_for_tracer(pid, strace)
        yield
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGTERM)
        try:
            strace.communicate(timeout=ATTACH_SECONDS)
        except subprocess.TimeoutExpired:
            strace.kill()
            strace.communicate()


def _wait_for_tracer(pid: int, strace: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while f"TracerPid:\t{strace.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
        assert strace.stderr is not None
        if strace.poll() is not None:
            said = strace.stderr.read().decode(errors="replace")
            if "Operation not permitted" in said:
                pytest.skip(f"may not trace: {said}")
            raise AssertionError(f"strace ended: {said}")
        assert time.monotonic() < deadline, "strace does not attach"
        select.select([], [], [], 0.001)


def is_stopped(pid: int) -> bool:
    """Return whether a tracer holds a process just now."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "t"
