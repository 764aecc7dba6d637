"""A node in a temporary directory: makes the demo's bundles and processes, and takes all away.

As an ordinary user it can mount nothing and make no cgroups, so the demo's bundles have neither.
The directory is its own, and the only thing it removes; it does so relative to handles.

Its processes are real ones, which end by themselves when the demo ends, however it ends. Each reads
from a pipe whose other end only this process holds: if we are killed, they read the end of it and
are gone. A session of their own keeps Ctrl-C from reaching them before us.
"""

import contextlib
import errno
import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from reconciler import kernel
from reconciler.demo.fixtures import Fixture, Task, contents, fixtures, runc_state
from reconciler.errors import ReconcilerError
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe.beneath import identity_of, opened
from reconciler.worker.removal import remove_tree
from reconciler.worker.step_log import Tally

DATA: Final = b"somebody's data"
_PREFIX: Final = "rdemo-"
_NAME: Final = b"\0containerd-reconciler-demo-%d"
_AGE: Final = 3 * 3600.0
_LONGEST: Final = 36
"""A socket's path has room for 107 bytes, of which `/run/s/` and the socket's name take 71."""


class DemoNode:
    """The demo's tree and processes; a context manager that leaves neither.

    Attributes:
        fixtures: Its bundles.
        layout: Where they are.
        top: The directory that holds all of it.
    """

    def __init__(self, wall: float) -> None:
        """Make the tree.

        Args:
            wall: Now, in seconds since the epoch; what is dead is made to look older.
        """
        self._wall = wall
        self._turn = _Turn()
        self.fixtures = fixtures(self._turn.number)
        self.top = os.fsencode(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
        self._processes = Processes()
        self.layout = Layout(
            state=self.top + b"/run",
            root=self.top + b"/lib",
            address=self.top + b"/run/containerd.sock",
            runtime_dir=self.top + b"/run",
        )
        self._shims: dict[tuple[str, str], Process] = {}
        self._inits: dict[BundleKey, Process] = {}

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def kill_victims(self) -> list[Fixture]:
        """Kill the shim and the init of those who are to die half way."""
        victims = [fixture for fixture in self.fixtures if fixture.killed]
        for fixture in victims:
            self._shims[fixture.key.namespace, _group(fixture)].end()
            self._inits[fixture.key].end()
        return victims

    def living(self, fixture: Fixture) -> bool:
        """Return whether the processes that should live do."""
        shim = self._shims.get((fixture.key.namespace, _group(fixture)))
        init = self._inits.get(fixture.key)
        return not (fixture.shim and not (shim and shim.alive)) and not (
            fixture.init and not (init and init.alive)
        )

    @property
    def is_gone(self) -> bool:
        """Whether neither the tree nor a process is left."""
        return not os.path.lexists(self.top) and not self._processes.living

    # ------------------------------------------------------------------ making

    def _build(self) -> None:
        for path in (self.layout.tasks, self.layout.work, self.layout.sockets):
            os.makedirs(path)
        for fixture in self.fixtures:
            self._make(fixture)

    def _make(self, fixture: Fixture) -> None:
        key = fixture.key
        group = _group(fixture)
        socket = self.layout.shim_socket(key.namespace, group)
        if fixture.shim and (key.namespace, group) not in self._shims:
            place = self.layout.bundle(BundleKey(key.namespace, group))
            os.makedirs(place, exist_ok=True)
            self._shims[key.namespace, group] = self._processes.shim(
                key.namespace, group, os.fsdecode(self.layout.address), socket, place
            )
        init = self._processes.init(f"demo-{key.id}")
        root = self.layout.runc_root
        task = Task(key, init.pid, init.start_ticks, socket, fixture.group, root)
        if fixture.init:
            self._inits[key] = init
        else:
            init.end()
        self._write(fixture, task)

    def _write(self, fixture: Fixture, task: Task) -> None:
        bundle = Path(os.fsdecode(self.layout.bundle(fixture.key)))
        work = Path(os.fsdecode(self.layout.work)) / bundle.parent.name / bundle.name
        state = Path(os.fsdecode(self.layout.runc_root)) / bundle.parent.name / bundle.name
        for directory in (bundle, work):
            directory.mkdir(parents=True, exist_ok=True)
        if "*" not in fixture.missing:
            (bundle / "rootfs").mkdir()
            (bundle / "work").symlink_to(work)
            os.mkfifo(bundle / "log")
            for name, content in contents(task).items():
                if name not in fixture.missing:
                    (bundle / name).write_bytes(content)
        if "state.json" not in fixture.missing:
            state.mkdir(parents=True)
            (state / "state.json").write_bytes(runc_state(task, os.fsencode(bundle)))
        if fixture.data:
            (bundle / "rootfs" / "data").write_bytes(DATA)
        if not (fixture.shim or fixture.init):
            self._age(bundle)

    def _age(self, bundle: Path) -> None:
        then = self._wall - _AGE
        for path in (*bundle.iterdir(), bundle):
            os.utime(path, (then, then), follow_symlinks=False)

    # ------------------------------------------------------------------ taking away

    def _close(self) -> None:
        self._processes.__exit__(None, None, None)
        self._turn.close()
        parent, name = os.path.split(self.top)
        with opened(parent, os.O_PATH) as handle:
            remove_tree(handle, name, identity_of(kernel.statx(handle, name)), Tally())


def _group(fixture: Fixture) -> str:
    return fixture.key.id if fixture.group is None else fixture.group


def _place() -> str:
    """Find a directory for the tree: in memory, as containerd's is, if there is one."""
    candidates = (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm", tempfile.gettempdir(), "/tmp")  # noqa: S108 - mkdtemp in it
    for place in candidates:
        room = _LONGEST - len(_PREFIX) - 9
        if place and len(os.fsencode(place)) <= room and os.access(place, os.W_OK | os.X_OK):
            return place
    raise ReconcilerError("no place for the demo's tree", "make /dev/shm or /tmp writable")


class _Turn:
    """Holds the lowest number that no other demo on this machine has.

    A name in the abstract namespace of sockets is taken for as long as it lives, and free again
    however it ends; nothing lies on disk.

    Attributes:
        number: The number, from 1.
    """

    def __init__(self) -> None:
        self._held = socket.socket(socket.AF_UNIX)
        self.number = next(number for number in itertools.count(1) if self._take(number))

    def close(self) -> None:
        """Let the number go."""
        self._held.close()

    def _take(self, number: int) -> bool:
        try:
            self._held.bind(_NAME % number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


_WAIT: Final = 5.0
_SHIM: Final = "containerd-shim-runc-v2"

_LIVE: Final = 'printf %.15s "$NAME" >/proc/$$/comm; echo; exec >&-; read _'
"""Take the short name that being executed under that name would have given, and live."""


class Process:
    """One child process."""

    def __init__(
        self, args: Sequence[str], listener: socket.socket | None = None, cwd: bytes = b"/"
    ) -> None:
        """Start it; return once it has its name.

        Args:
            args: Its command line as others see it: the name, then arguments nothing reads.
            listener: A socket it inherits, and nothing else of ours.
            cwd: The directory it works in.
        """
        self._child = subprocess.Popen(
            [args[0], "-c", _LIVE, *args[1:]],
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=() if listener is None else (listener.fileno(),),
            start_new_session=True,
            cwd=cwd,
            env={"NAME": args[0]},
        )
        if self._child.stdout is not None:
            with self._child.stdout as said:
                said.readline()

    @property
    def pid(self) -> int:
        """Its pid; ours until :meth:`end` has returned."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    @property
    def start_ticks(self) -> int:
        """When it started, as field 22 of /proc/PID/stat has it, and runc's state with it."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self._child.kill()
        self._child.wait(_WAIT)
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()


class Processes:
    """All processes of a demo; a context manager that ends every one it started."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.end()

    @property
    def living(self) -> list[Process]:
        """Those that still run."""
        return [process for process in self._all if process.alive]

    def init(self, name: str) -> Process:
        """Start something to be a container's init."""
        return self._started(Process([name]))

    def shim(self, namespace: str, group: str, address: str, path: bytes, bundle: bytes) -> Process:
        """Start something that looks like a shim, in its bundle, with its socket at ``path``."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(128)
            return self._started(
                Process(
                    [_SHIM, "-namespace", namespace, "-id", group, "-address", address],
                    listener,
                    bundle,
                )
            )

    def _started(self, process: Process) -> Process:
        self._all.append(process)
        return process
