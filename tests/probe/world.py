"""A containerd's directories below a temporary path, and complete dead bundles in them.

Real processes, sockets and files; nothing is mounted and no cgroup is made, so that no privilege is
needed. Whatever is started here is ended by :meth:`World.close`.
"""

import json
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.model.evidence import Look
from reconciler.model.ids import BundleKey
from reconciler.model.layout import TASKS, Layout
from reconciler.probe import process
from reconciler.probe.bundle import Examination, examine
from reconciler.probe.tree import TreeInspector

ID = "c1"
KEY = BundleKey("default", "c1")
FILES = (
    "address",
    "config.json",
    "init.pid",
    "log",
    "log.json",
    "options.json",
    "runtime",
    "shim-binary-path",
)
"""What containerd 1.6 and 1.7 write into a bundle, the directories aside."""


@dataclass
class World:
    """One containerd's directories, without a containerd."""

    base: Path
    nowhere: str = field(default_factory=lambda: f"/reconciler-test-{uuid.uuid4().hex}")
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)
    _inspector: list[TreeInspector] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.tree, self.base / "lib" / TASKS.decode(), self.base / "run" / "s"):
            path.mkdir(parents=True)

    def close(self) -> None:
        for inspector in self._inspector:
            inspector.close()
        for child in self._children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        for one in self._sockets:
            one.close()

    @property
    def layout(self) -> Layout:
        base = os.fsencode(self.base)
        return Layout(
            base + b"/run", base + b"/lib", base + b"/run/containerd.sock", base + b"/run"
        )

    @property
    def tree(self) -> Path:
        return self.base / "run" / TASKS.decode()

    def inspector(self, *annotation_keys: str) -> TreeInspector:
        made = TreeInspector(self.layout, annotation_keys=frozenset(annotation_keys))
        self._inspector.append(made)
        return made

    def look(self, key: BundleKey = KEY, *annotation_keys: str) -> Look:
        found = self.inspector(*annotation_keys).look(key)
        assert isinstance(found, Look)
        return found

    def examine(self, key: BundleKey = KEY) -> Examination:
        found = examine(self.inspector()._around, key)
        assert found is not None
        return found

    # ------------------------------------------------------------------ processes and sockets

    def child(self) -> int:
        """Start a process that lives until the end of the test."""
        self._children.append(subprocess.Popen(["sleep", "1000"]))
        return self._children[-1].pid

    def start(self, *command: str, cwd: Path | None = None, user: int | None = None) -> int:
        """Start a process that says a line once it is ready; its input stays open."""
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, user=user
        )
        self._children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        return child.pid

    def tell(self, pid: int) -> None:
        """Give such a process a line, and wait for the next that it says."""
        child = next(one for one in self._children if one.pid == pid)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline()

    def dead(self) -> int:
        """Give the pid of a process that has ended and been reaped."""
        with subprocess.Popen(["true"]) as gone:
            gone.wait()
        return gone.pid

    def zombie(self) -> int:
        """Give the pid of a process that has ended and that nobody has reaped."""
        child = subprocess.Popen(["true"])
        self._children.append(child)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        return child.pid

    def listen(self, path: Path | bytes, backlog: int = 8) -> socket.socket:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(one)
        bind(one, os.fsencode(path))
        one.listen(backlog)
        return one

    def refuse(self, path: Path | bytes) -> None:
        """Leave the file of a socket behind at which nobody listens any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            bind(one, os.fsencode(path))

    # ------------------------------------------------------------------ bundles

    def path(self, id_: str = ID, namespace: str = "default") -> Path:
        return self.tree / namespace / id_

    def socket_of(self, id_: str = ID, namespace: str = "default") -> Path:
        derived = self.layout.shim_socket(namespace, id_)
        return Path(os.fsdecode(derived))

    def state_dir(self, id_: str = ID, namespace: str = "default") -> Path:
        return self.base / "run" / "runc" / namespace / id_

    def work_dir(self, id_: str = ID, namespace: str = "default") -> Path:
        return self.base / "lib" / TASKS.decode() / namespace / id_

    def bundle(
        self,
        id_: str = ID,
        *,
        namespace: str = "default",
        pid: int | None = None,
        start: int | None = None,
        annotations: dict[str, str] | None = None,
        cgroup: str | None = None,
    ) -> Path:
        """Make a complete bundle of containerd 1.7; dead unless a living pid is given."""
        pid = self.dead() if pid is None else pid
        here, state, work = (
            self.path(id_, namespace),
            self.state_dir(id_, namespace),
            self.work_dir(id_, namespace),
        )
        for directory in (here / "rootfs", state, work):
            directory.mkdir(parents=True)
        (here / "work").symlink_to(work)
        os.mkfifo(here / "log")
        cgroup = f"{self.nowhere}/{id_}" if cgroup is None else cgroup
        spec = {
            "ociVersion": "1.1",
            "annotations": annotations or {},
            "linux": {"cgroupsPath": cgroup},
        }
        (here / "config.json").write_text(json.dumps(spec))
        (here / "address").write_text(f"unix://{self.socket_of(id_, namespace)}")
        (here / "shim-binary-path").write_text("/usr/bin/containerd-shim-runc-v2")
        (here / "options.json").write_text('{"binary_name":"runc"}')
        (here / "runtime").touch()
        (here / "log.json").touch()
        (here / "init.pid").write_text(str(pid))
        self.write_state(id_, namespace, init_process_pid=pid, init_process_start=start or 1)
        return here

    def write_state(self, id_: str = ID, namespace: str = "default", **fields: object) -> None:
        state = {"id": id_, **fields, "cgroup_paths": {}, "config": {"Hooks": {"poststop": None}}}
        (self.state_dir(id_, namespace) / "state.json").write_text(json.dumps(state))


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without any privilege for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def bind(one: socket.socket, path: bytes) -> None:
    """Bind a socket to a path that may be longer than an address, or to an abstract name."""
    if path.startswith(b"\0"):
        one.bind(path)
        return
    directory, name = os.path.split(path)
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        one.bind(b"/proc/self/fd/%d/%s" % (handle, name))
    finally:
        os.close(handle)


def start_of(pid: int) -> int:
    """Give a living process's start time in ticks."""
    seen = process.read_stat(pid)
    assert seen is not None
    return seen.start


def end(pid: int) -> None:
    """End a process that the world started, and wait until it is reaped or a zombie."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    finally:
        os.close(pidfd)
