"""One pass over /proc: which shims and shim helpers run, and which cgroups hold processes.

Anybody may call a process what he likes and give it any command line. A shim or a helper is only
who the kernel says was executed under such a name by containerd's user in our own pid namespace:
whoever else pretends to be one is nobody, and his command line is not read. Of a real one that does
not answer, the directory it works in tells which bundle's it could be.

To be called in a worker process that can be killed. Reads only; opens nothing but /proc. Processes
that come and go meanwhile are normal. If /proc hides anything from us, there is no answer.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from errno import EFBIG, ENAMETOOLONG, ENOENT, ESRCH
from typing import Final, NamedTuple

from msgspec.structs import replace

from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import SANDBOXES, TASKS
from reconciler.model.processes import UnreadProcess
from reconciler.probe import mounts
from reconciler.probe.commands import Asked, CommandLines
from reconciler.probe.ending import Endings
from reconciler.probe.populated import PopulatedCgroups, TreeError
from reconciler.probe.process import PROC, parse_stat, read_capabilities, read_whole

_SHIM: Final = b"containerd-shim"
_NAMED: Final = b"containerd-shi"
"""What a shim is called in its short name of 15 bytes; some distributions put a dot before it."""
_SHORT_NAME: Final = 128  # bytes; of threads of the kernel more is told than of processes
_HELPERS: Final = frozenset({b"start", b"delete"})
_FLAGS: Final = frozenset(
    {b"namespace", b"id", b"address", b"publish-binary", b"bundle", b"socket", b"debug-socket"}
)
_CAP_SYS_PTRACE: Final = 1 << 19
_GONE: Final = frozenset({ENOENT, ESRCH})
_WRAPPERS: Final = 3  # a shim may be started through an interpreter or a tracer
_NOBODY: Final = 65534  # stands for everybody who has no number in our user namespace
_UNREPORTED: Final = frozenset({ENAMETOOLONG, EFBIG})


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
    key = BundleKey(escape(namespace), escape(shim_id))
    return ShimCommand(key, flags.get(b"address", b""), known)


def users_of(state: bytes | None) -> frozenset[int]:
    """Tell whose processes may be shims: our own user's, as ours is containerd's, and that of
    whom the state directory belongs to, where containerd is rootless and we are not.
    """  # noqa: D205 - one thought
    users = {os.geteuid()}
    if state is not None:
        with suppress(OSError):
            users.add(os.stat(state, follow_symlinks=False).st_uid)
    return frozenset(users - ({_NOBODY} - {os.geteuid()}))


def scan(
    proc: bytes = PROC,
    *,
    users: frozenset[int] | None = None,
    commands: CommandLines | None = None,
    tree: bytes | None = None,
    cgroups: bool = True,
) -> ProcessScan:
    """Pass over /proc once. Never raises.

    Args:
        proc: Where it is mounted.
        users: Whose processes may be shims; only our own user's by default.
        commands: Reads command lines, and remembers who did not answer.
        tree: The state tree, if it is known: where there are very many cgroups only those are told
            that may matter to what is in there.
        cgroups: Whether they are asked for at all; else nothing is told of them. To have the kernel
            write down their paths is most of a pass, and for as long as somebody likes to make it.
    """
    try:
        if hides_processes(proc):
            return ProcessScan()
        proc_fd = os.open(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ProcessScan()
    try:
        populated = PopulatedCgroups(tree) if cgroups else None
        return _Pass(proc_fd, users or users_of(None), commands or CommandLines(), populated).run()
    except (OSError, TreeError):
        return ProcessScan()
    finally:
        os.close(proc_fd)


def scan_since(
    before: ProcessScan,
    pids: Iterable[int],
    proc: bytes = PROC,
    *,
    users: frozenset[int],
    commands: CommandLines,
) -> ProcessScan:
    """Add to a pass that did not ask for cgroups who has come since. Never raises.

    Whoever was found then counts on, should he have ended. A pid of these that is a thread's means
    its process, which may execute another program by now. One that is not there yet belongs to
    nobody who has done anything.

    Args:
        before: The pass; it is given back itself where nobody came.
        pids: All that were given out since it began, to processes and to threads.
        proc: Where it is mounted.
        users: Whose processes may be shims.
        commands: Reads command lines, as it did for that pass.
    """
    try:
        proc_fd = os.open(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ProcessScan()
    try:
        return _Pass(proc_fd, users, commands, None).run_since(before, pids)
    except (OSError, ValueError):
        return ProcessScan()
    finally:
        os.close(proc_fd)


def hides_processes(proc: bytes = PROC) -> bool:
    """Return whether /proc keeps others' processes from us, or speaks of another pid namespace.

    Raises:
        OSError: It does not even tell that.
    """
    try:
        if int(os.readlink(proc + b"/self")) != os.getpid():
            return True
    except (OSError, ValueError):
        pass  # a tree made up for a test
    entry = mounts.mount_at(proc, proc)
    hidden = any(
        option.startswith(b"hidepid=") and option not in {b"hidepid=0", b"hidepid=off"}
        for option in (entry.options if entry else b"").split(b",")
    )
    return hidden and not (read_capabilities(proc) or 0) & _CAP_SYS_PTRACE


class _Pass:
    """One pass: what was found so far."""

    def __init__(
        self,
        proc_fd: int,
        users: frozenset[int],
        commands: CommandLines,
        populated: PopulatedCgroups | None,
    ) -> None:
        self._proc_fd = proc_fd
        self._users = users
        self._commands = commands
        self._helpers: set[BundleKey] = set()
        self._shims: list[ShimProcess] = []
        self._unread: list[UnreadProcess] = []
        self._asked: list[Asked] = []
        self._populated = populated
        self._endings = Endings()

    def run(self) -> ProcessScan:
        self._look_at_all(name for name in os.listdir(self._proc_fd) if name.isdecimal())
        found = ProcessScan(
            answered=True,
            helpers=frozenset(self._helpers),
            shims=tuple(self._shims),
            unread=tuple(self._unread),
        )
        return found if self._populated is None else self._populated.added_to(found)

    def run_since(self, before: ProcessScan, pids: Iterable[int]) -> ProcessScan:
        leaders = {leader for pid in pids if (leader := self._leader_of(pid))}
        self._look_at_all(sorted(leaders), are_all=False)
        helpers = before.helpers | self._helpers
        shims = dict.fromkeys((*before.shims, *self._shims))
        unread = dict.fromkeys((*before.unread, *self._unread))
        found = replace(before, helpers=helpers, shims=tuple(shims), unread=tuple(unread))
        return before if found == before else found

    def _leader_of(self, pid: int) -> str:
        """Give the process that a pid is one of; empty if it is gone."""
        try:
            lines = read_whole(f"{pid}/status", self._proc_fd).split(b"\n")
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return ""
        return str(int(next(line[5:] for line in lines if line.startswith(b"Tgid:"))))

    def _look_at_all(self, names: Iterable[str], *, are_all: bool = True) -> None:
        for name in names:
            try:
                self._look_at(name)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        if self._asked:
            said = self._commands.read(self._proc_fd, self._asked, all_of_them=are_all)
            for who, command in said.items():
                self._note_shim(who, command)

    def _look_at(self, pid: str) -> None:
        """Note a process that may be a shim, or is in a cgroup in which nobody was found so far.

        Of all others it does not matter whether they live, which is what costs most to be told.
        """
        populated, cgroup, is_news = self._populated, None, False
        if populated is not None:
            cgroup = self._read_cgroup(pid)
            is_news = cgroup is None or not populated.knows(cgroup)
        if not is_news and not self._is_named(pid):
            return
        data = read_whole(f"{pid}/stat", self._proc_fd)
        stat = parse_stat(data)
        if stat is not None and stat.is_nobody:
            return
        if populated is not None and is_news:
            populated.add(int(pid), cgroup)
        if _NAMED in data[data.find(b"(") : data.rfind(b")")] and self._may_be_shim(pid):
            start, words = (stat.start, stat.words) if stat else (0, None)
            self._asked.append(Asked(int(pid), start, words))

    def _is_named(self, pid: str) -> bool:
        """Tell by the short name alone: the kernel has it at hand, and adds up a line of `stat`."""
        fd = os.open(f"{pid}/comm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc_fd)
        try:
            return _NAMED in os.read(fd, _SHORT_NAME)
        finally:
            os.close(fd)

    def _read_cgroup(self, pid: str) -> bytes | None:
        """Read what tells of a process's cgroups; None where the kernel cannot tell all of it."""
        try:
            return read_whole(f"{pid}/cgroup", self._proc_fd)
        except OSError as error:
            if error.errno not in _UNREPORTED:
                raise
            return None

    def _may_be_shim(self, pid: str) -> bool:
        """Return whether a process is of containerd's user and in our pid namespace.

        All four user ids must be that user's: who runs a setuid program chooses its name and its
        words, and keeps his own real id.
        """
        lines = read_whole(f"{pid}/status", self._proc_fd).split(b"\n")
        ids = next((line[4:].split() for line in lines if line.startswith(b"Uid:")), [])
        pids = next((line[6:].split() for line in lines if line.startswith(b"NSpid:")), [])
        return {int(one) for one in ids} <= self._users and len(pids) <= 1

    def _note_shim(self, who: Asked, command: bytes | None) -> None:
        if command is None or (not command and self._goes_on(who)):
            works_for = self._works_for(who.pid)
            if not self._has_ended(who):
                self._unread.append(UnreadProcess(who.pid, works_for))
            return
        found = parse_command(command.rstrip(b"\0").split(b"\0"))
        if found is None:
            return
        if found.action:
            self._helpers.add(found.key)
        else:
            # Were it another program by now after all, a dead shim would be taken for a living one.
            self._commands.keep(who, command)
            self._shims.append(ShimProcess(found.key, who.pid, escape(found.address)))

    def _has_ended(self, who: Asked) -> bool:
        """Return whether it ended while it was asked; not if that cannot be known."""
        try:
            stat = parse_stat(read_whole(f"{who.pid}/stat", self._proc_fd))
        except OSError as error:
            return error.errno in _GONE
        return stat is not None and (stat.is_nobody or stat.start != (who.start or stat.start))

    def _goes_on(self, who: Asked) -> bool:
        """Return whether a process has lost its first thread, and others of it live.

        Those keep its sockets and serve, but its words and its directory are gone with the first.
        While all of a process ends that is so for a moment, too.
        """
        try:
            stat = parse_stat(read_whole(f"{who.pid}/stat", self._proc_fd))
        except OSError as error:
            return error.errno not in _GONE
        if stat is None:
            return True
        has_first = stat.state not in {b"Z", b"X"}
        return not (has_first or stat.is_nobody or self._endings.show(who.pid))

    def _works_for(self, pid: int) -> BundleKey | None:
        """Tell by its directory which bundle a shim or a helper was started for.

        containerd starts both in the bundle (`runtime/v2/shim/util.go`, ``Command`` sets ``Dir``).
        """
        try:
            path = os.readlink(f"{pid}/cwd", dir_fd=self._proc_fd)
        except OSError:
            return None
        raw = os.fsencode(path)
        tree = SANDBOXES if b"/" + SANDBOXES + b"/" in raw else TASKS
        _, found, rest = raw.rpartition(b"/" + tree + b"/")
        namespace, slash, id_ = escape(rest.removesuffix(b" (deleted)")).partition("/")
        return BundleKey(namespace, id_) if found and slash and "/" not in id_ else None
