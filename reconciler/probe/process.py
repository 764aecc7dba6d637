"""Is the container's first process alive? Evidence about init, safe against reused pids.

Two files name it: ``init.pid`` and the runtime's own state. A pid alone proves nothing, so each
candidate is pinned by a pidfd, read in /proc, and the pidfd asked again (pidfd_open(2)). A process
that cannot be shown to be ours, nor somebody else's, is no answer. Never signals anything.
"""

import os
import select
from collections.abc import Iterable
from errno import EFBIG, EINVAL, EIO, ENOENT, ESRCH
from typing import Final, NamedTuple

from reconciler.model.cgroups import NamedCgroup
from reconciler.model.evidence import Init, InitState
from reconciler.model.ids import escape

PROC: Final = b"/proc"

LATE: Final = 2.0
"""Seconds after its pid file was written at which a process is too young to be the one meant."""

MOST: Final = 1 << 20
"""Bytes of what /proc says of one process: no honest answer is that long."""

MOST_MOUNTS: Final = 1 << 26
"""Bytes of a mount table: of seventy thousand overlays of ten layers, or 400,000 plain mounts."""

_CHUNK: Final = 1 << 16
# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_DEAD: Final = InitState.DEAD
_ALIVENESS: Final = (InitState.ALIVE, InitState.NONE, _DEAD, InitState.ABSENT)
_ABSENT: Final = Init(InitState.ABSENT)
_STAT_FIELDS: Final = 20  # of those behind the command's name
_WORDS: Final = slice(45, 47)  # arg_start and arg_end, 0 where we may not know
_PF_EXITING: Final = 0x4
_PF_KTHREAD: Final = 0x00200000


class Candidate(NamedTuple):
    """A pid that a file names.

    Attributes:
        pid: The pid.
        start: Its start time in ticks since boot, as the runtime's state has it; None if unknown.
        written: When the pid file was written, seconds since the epoch; None for other files.
        is_void: It was given out in an earlier boot: whoever has it now is somebody else.
    """

    pid: int
    start: int | None = None
    written: float | None = None
    is_void: bool = False


class Stat(NamedTuple):
    """What /proc/PID/stat says (proc_pid_stat(5)).

    Attributes:
        start: When it started, ticks since boot.
        words: Where its command line is, first and last address; None if that is not told.
    """

    state: bytes
    ppid: int
    start: int
    flags: int
    threads: int
    words: tuple[int, int] | None

    @property
    def is_kernels(self) -> bool:
        """Whether it is a thread of the kernel, which is in no container."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def is_nobody(self) -> bool:
        """Whether it is a thread of the kernel, or dead with no thread left that lives."""
        is_dead = self.state in {b"Z", b"X"} and self.threads <= 1
        return is_dead or self.is_kernels


class ExpectedCgroup(NamedTuple):
    """How a process of this container is told from another.

    Attributes:
        id: The container's id.
        cgroup: What its files say about its cgroup.
    """

    id: str
    cgroup: NamedCgroup = NamedCgroup()


def candidates(
    file_pid: int | None, written: float | None, state_pid: int | None, state_start: int | None
) -> tuple[Candidate, ...]:
    """Pair what ``init.pid`` and the runtime's state say; what they agree on is one candidate."""
    named = Candidate(state_pid, state_start or None) if state_pid else None
    if file_pid is None:
        return (named,) if named else ()
    if named is None:
        return (Candidate(file_pid, None, written),)
    if named.pid == file_pid:
        return (Candidate(file_pid, named.start, written),)
    return (Candidate(file_pid, None, written), named)


def judge(found: Iterable[Candidate], expected_cgroup: ExpectedCgroup, proc: bytes = PROC) -> Init:
    """Judge every candidate; the most alive one wins."""
    found = tuple(found)
    best = _ABSENT
    for number, candidate in enumerate(found):
        # Where the files differ the runtime's state, which comes last, is the one that counts.
        overruled = number < len(found) - 1
        init = judge_one(candidate, expected_cgroup, proc, overruled=overruled)
        if _ALIVENESS.index(init.state) <= _ALIVENESS.index(best.state):
            best = init
    return best


def judge_one(
    candidate: Candidate,
    expected_cgroup: ExpectedCgroup,
    proc: bytes = PROC,
    *,
    overruled: bool = False,
) -> Init:
    """Judge one pid. ``overruled``: the runtime's state names another one."""
    pid = candidate.pid
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        return _without_pidfd(pid, error, proc)
    try:
        try:
            stat = read_stat(pid, proc)
            groups = read_cgroups(pid, proc)
        except OSError as error:
            if has_ended(pidfd):
                return Init(InitState.DEAD, pid, "ended while looked at")
            return Init(InitState.NONE, pid, f"/proc: {os.strerror(error.errno or 0)}")
        if has_ended(pidfd):
            return Init(InitState.DEAD, pid, "zombie" if stat and stat.state in b"ZX" else "ended")
        if stat is None:
            return Init(InitState.NONE, pid, "/proc/PID/stat cannot be read")
        return _judge_living(candidate, stat, groups, expected_cgroup, proc, overruled=overruled)
    finally:
        os.close(pidfd)


def _without_pidfd(pid: int, error: OSError, proc: bytes) -> Init:
    if error.errno == ESRCH:
        return Init(_DEAD, pid, "no such process")
    if error.errno in {EINVAL, ENOENT} and _is_thread(pid, proc):
        return Init(InitState.DEAD, pid, "the pid is a thread's of another process")
    return Init(InitState.NONE, pid, f"pidfd: {os.strerror(error.errno or 0)}")


def _judge_living(  # noqa: PLR0913 - all that was read about it
    candidate: Candidate,
    stat: Stat,
    groups: tuple[str, ...],
    expected_cgroup: ExpectedCgroup,
    proc: bytes,
    *,
    overruled: bool,
) -> Init:
    """Tell a living process that is ours from one that is not; unsure is no answer."""
    alive = "" if stat.state not in b"ZX" else "its first thread ended, others live"
    if stat.is_kernels:
        return Init(InitState.DEAD, candidate.pid, "pid reused: by a thread of the kernel")
    if candidate.start == stat.start:
        return Init(InitState.ALIVE, candidate.pid, alive)
    if any(expected_cgroup.cgroup.holds(path) for path in groups):
        return Init(InitState.ALIVE, candidate.pid, alive)
    hint = next(
        (path for path in groups if expected_cgroup.cgroup.may_be_called(expected_cgroup.id, path)),
        None,
    )
    if hint is not None and candidate.start is None and not overruled:
        where = f"in cgroup {hint}, which may be its"
        return Init(InitState.ALIVE, candidate.pid, alive or where)
    why = _refutation(candidate, stat, expected_cgroup, proc, overruled=overruled)
    if why:
        return Init(InitState.DEAD, candidate.pid, why)
    return Init(InitState.NONE, candidate.pid, "a living process, perhaps another one")


def _refutation(
    candidate: Candidate,
    stat: Stat,
    expected_cgroup: ExpectedCgroup,
    proc: bytes,
    *,
    overruled: bool,
) -> str:
    """Say why a living process, in no cgroup of ours, cannot be the one meant; empty if it can.

    That it is not in the cgroup that config.json asks for says nothing while nobody has seen that
    cgroup: another driver may have put the container elsewhere.
    """
    if candidate.is_void:
        return "pid reused: it was given out in an earlier boot"
    if candidate.start is not None:
        return "pid reused: it started at another time than the runtime's state says"
    if overruled:
        return "the runtime's state names another pid"
    if expected_cgroup.cgroup.refutes:
        return "pid reused: the process is not in the container's cgroup"
    if candidate.written is None or not _is_late(candidate.written, stat.start, proc):
        return ""
    # A wall clock that was set since shifts that comparison. What runs among the machine's own
    # mounts is in no container; anything else might be the one meant.
    is_at_home = _shares_mounts_with_pid_1(candidate.pid, proc)
    return "pid reused: it started after the pid file was written" if is_at_home else ""


def _is_late(written: float, start: int, proc: bytes) -> bool:
    """Return whether a process started well after its pid file was written.

    A file older than the boot proves nothing: the clock was set since, or the file survived.
    """
    boot = read_boot_time(proc)
    if boot is None or written < boot:
        return False
    return boot + start / os.sysconf("SC_CLK_TCK") > written + LATE


def _shares_mounts_with_pid_1(pid: int, proc: bytes) -> bool:
    """Return whether a process is in pid 1's mount namespace; not if that cannot be known."""
    try:
        theirs, first = (os.readlink(b"%s/%d/ns/mnt" % (proc, one)) for one in (pid, 1))
    except OSError:
        return False
    return theirs == first


def has_ended(pidfd: int) -> bool:
    """Return whether every thread of a process has ended; not if that cannot be known."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        return bool(poll.poll(0))
    except OSError:
        return False


def is_leaving(pid: int, pidfd: int, proc: bytes = PROC) -> bool:
    """Return whether a process has ended or its first thread is on its way out.

    Such a thread has left its namespaces some time before the pidfd can tell, and while others of
    its process may still run (Linux ``do_exit``). Not if that cannot be known.
    """
    try:
        stat = read_stat(pid, proc)
    except OSError:
        return has_ended(pidfd)
    return has_ended(pidfd) or (stat is not None and bool(stat.flags & _PF_EXITING))


def read_stat(pid: int, proc: bytes = PROC) -> Stat | None:
    """Read /proc/PID/stat; None if it is not what proc_pid_stat(5) says.

    Raises:
        OSError: It cannot be read.
    """
    return parse_stat(read_whole(b"%s/%d/stat" % (proc, pid)))


def parse_stat(data: bytes) -> Stat | None:
    """Read the line; the command's name may itself hold spaces and parentheses."""
    fields = data[data.rfind(b")") + 1 :].split()
    if len(fields) < _STAT_FIELDS or not all(fields[n].isdigit() for n in (1, 6, 17, 19)):
        return None
    ppid, flags, threads, start = (int(fields[n]) for n in (1, 6, 17, 19))
    numbers = [int(one) for one in fields[_WORDS] if one.isdigit()]
    words = (numbers[0], numbers[1]) if all(numbers) and numbers[1:] else None
    return Stat(fields[0], ppid, start, flags, threads, words)


def parents(proc: bytes = PROC) -> frozenset[int]:
    """Give the pid of everybody who has a child that is not dead.

    Asked of the children: a process's own list may leave some out while others end (proc(5)).

    Raises:
        OSError: One of them does not tell.
    """
    found: set[int] = set()
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            stat = read_stat(int(name), proc)
        except OSError as error:
            if error.errno in {ENOENT, ESRCH}:
                continue
            raise
        if stat is None:
            raise OSError(EIO, "/proc/PID/stat cannot be understood", name)
        if not stat.is_nobody:
            found.add(stat.ppid)
    return frozenset(found)


def read_cgroups(pid: int, proc: bytes = PROC) -> tuple[str, ...]:
    """Read the paths of a process's cgroups, one per hierarchy; OSError if they cannot be read."""
    return tuple(map(escape, parse_cgroups(read_whole(b"%s/%d/cgroup" % (proc, pid)))))


def parse_cgroups(data: bytes) -> tuple[bytes, ...]:
    """Take the paths out of lines like ``4:cpu,cpuacct:/default/id``."""
    fields = (line.split(b":", 2) for line in data.split(b"\n"))
    return tuple(parts[2] for parts in fields if len(parts) > 2)  # noqa: PLR2004 - three fields


def read_name(pid: int, proc: bytes = PROC) -> bytes:
    """Read a process's short name (proc_pid_comm(5)); OSError if it cannot be read."""
    return read_whole(b"%s/%d/comm" % (proc, pid)).removesuffix(b"\n")


def read_capabilities(proc: bytes = PROC) -> int | None:
    """Read our capabilities in effect, a bit each (capabilities(7)); None if that is not told."""
    try:
        lines = read_whole(proc + b"/self/status").splitlines()
        return next(int(line[7:], 16) for line in lines if line.startswith(b"CapEff:"))
    except (OSError, StopIteration, ValueError):
        return None


def read_boot_time(proc: bytes = PROC) -> float | None:
    """Read when the machine was started, seconds since the epoch; None if it cannot be known."""
    try:
        data = read_whole(proc + b"/stat")
    except OSError:
        return None
    _, _, rest = data.partition(b"\nbtime ")
    value = rest.split(b"\n", 1)[0]
    return float(value) if value.isdigit() else None


def _is_thread(pid: int, proc: bytes) -> bool:
    try:
        data = read_whole(b"%s/%d/status" % (proc, pid))
    except OSError:
        return False
    _, found, rest = data.partition(b"\nTgid:\t")
    return bool(found) and rest.split(b"\n", 1)[0] != b"%d" % pid


def read_whole(path: bytes | str, dir_fd: int | None = None, *, most: int = MOST) -> bytes:
    """Read a file of /proc to its end.

    Raises:
        OSError: It cannot be read, or holds more than ``most`` bytes (EFBIG).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        chunks = [os.read(fd, _CHUNK)]
        left = most
        while chunks[-1]:
            left -= len(chunks[-1])
            if left < 0:
                raise OSError(EFBIG, os.strerror(EFBIG), path)
            chunks.append(os.read(fd, _CHUNK))
        return b"".join(chunks)
    finally:
        os.close(fd)
