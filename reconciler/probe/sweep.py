"""One pass over /proc: which shims and shim helpers run, and which cgroups hold processes.

A plain function, to be called in a worker process that can be killed: reading a command line waits
for a lock that a stuck process may hold for ever. Reads only; opens nothing but /proc. Processes
that come and go meanwhile are normal. If /proc hides anything from us, there is no answer.
"""

import os
from errno import ENOENT, ESRCH
from typing import Final, NamedTuple

from reconciler.model.evidence import ShimProcess, Sweep
from reconciler.model.ids import BundleKey
from reconciler.probe import mounts
from reconciler.probe.process import PROC, names_in, parse_cgroups, read_whole

_SHIM: Final = b"containerd-shim"
_HELPERS: Final = frozenset({b"start", b"delete"})
_FLAGS: Final = frozenset(
    {b"namespace", b"id", b"address", b"publish-binary", b"bundle", b"socket", b"debug-socket"}
)
_CAP_SYS_PTRACE: Final = 1 << 19
_GONE: Final = frozenset({ENOENT, ESRCH})
_FLAG_BITS: Final = 6  # fields of /proc/PID/stat, counted behind the command's name
_THREADS: Final = 17
_PF_KTHREAD: Final = 0x00200000
_WRAPPERS: Final = 3  # a shim may be started through an interpreter or a tracer


class ShimCommand(NamedTuple):
    """A shim's command line (containerd `runtime/v2/shim/util.go`).

    Attributes:
        key: Namespace and id it was started with.
        address: containerd's address as it was told.
        action: ``start`` or ``delete`` for a helper, empty for the shim itself.
    """

    key: BundleKey
    address: bytes
    action: bytes


def parse_command(words: list[bytes]) -> ShimCommand | None:
    """Read a command line; None if it is not that of a shim for some namespace and id."""
    programs = [word.rpartition(b"/")[2].startswith(_SHIM) for word in words[:_WRAPPERS]]
    if not any(programs):
        return None
    flags: dict[bytes, bytes] = {}
    action = b""
    rest = iter(words[programs.index(True) + 1 :])
    for word in rest:
        if not word.startswith(b"-"):
            action = word
            continue
        name, equals, value = word.lstrip(b"-").partition(b"=")
        if name in _FLAGS:
            flags[name] = value if equals else next(rest, b"")
    namespace, shim_id = flags.get(b"namespace"), flags.get(b"id")
    if not namespace or not shim_id:
        return None
    known = action if action in _HELPERS else b""
    return ShimCommand(BundleKey(namespace, shim_id), flags.get(b"address", b""), known)


def sweep(proc: bytes = PROC) -> Sweep:
    """Pass over /proc once. Never raises."""
    try:
        if hides_processes(proc):
            return Sweep()
        proc_fd = os.open(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return Sweep()
    try:
        return _Pass(proc_fd).run()
    except OSError:
        return Sweep()
    finally:
        os.close(proc_fd)


def hides_processes(proc: bytes = PROC) -> bool:
    """Tell whether /proc keeps others' processes from us, or speaks of another pid namespace.

    Raises:
        OSError: It does not even tell that.
    """
    try:
        if int(os.readlink(proc + b"/self")) != os.getpid():
            return True
    except (OSError, ValueError):
        pass  # a tree made up for a test
    table = read_whole(proc + b"/self/mountinfo")
    options = [one.options for one in mounts.entries_at(table, proc)]
    hidden = any(
        option.startswith(b"hidepid=") and option not in {b"hidepid=0", b"hidepid=off"}
        for option in (options[-1] if options else b"").split(b",")
    )
    return hidden and not _may_ptrace(proc)


def _may_ptrace(proc: bytes) -> bool:
    for line in read_whole(proc + b"/self/status").splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line[7:], 16) & _CAP_SYS_PTRACE)
    return False


class _Pass:
    """One pass: what was found so far, and the cgroup files seen before."""

    def __init__(self, proc_fd: int) -> None:
        self._proc_fd = proc_fd
        self._helpers: set[BundleKey] = set()
        self._shims: list[ShimProcess] = []
        self._cgroup_files: set[bytes] = set()

    def run(self) -> Sweep:
        for name in os.listdir(self._proc_fd):
            if not name.isdecimal():
                continue
            try:
                self._look_at(name)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        paths = {path for data in self._cgroup_files for path in parse_cgroups(data)}
        parts = {part for path in paths for part in path.split(b"/") if part}
        names = frozenset(name for part in parts for name in names_in(part))
        return Sweep(True, frozenset(self._helpers), tuple(self._shims), names)  # noqa: FBT003 - answered

    def _look_at(self, pid: str) -> None:
        command = read_whole(f"{pid}/cmdline", self._proc_fd)
        if not command and self._is_nobody(pid):
            return
        self._cgroup_files.add(read_whole(f"{pid}/cgroup", self._proc_fd))
        if _SHIM in command:
            self._note_shim(int(pid), command)

    def _is_nobody(self, pid: str) -> bool:
        """Tell kernel threads and the dead from those who only hide their command line."""
        data = read_whole(f"{pid}/stat", self._proc_fd)
        fields = data[data.rfind(b")") + 1 :].split()
        if len(fields) <= _THREADS:
            return False
        is_kernel_thread = bool(int(fields[_FLAG_BITS]) & _PF_KTHREAD)
        is_dead = fields[0] in {b"Z", b"X"} and fields[_THREADS] in {b"0", b"1"}
        return is_kernel_thread or is_dead

    def _note_shim(self, pid: int, command: bytes) -> None:
        found = parse_command(command.rstrip(b"\0").split(b"\0"))
        if found is None:
            return
        if found.action:
            self._helpers.add(found.key)
        else:
            self._shims.append(ShimProcess(found.key, pid, found.address))
