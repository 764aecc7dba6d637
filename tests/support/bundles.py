"""Dead bundles as containerd 1.7 and runc leave them: files, mounts, cgroups, state, sockets.

A :class:`Site` is one containerd's directories under a temporary path, state on a tmpfs; use it in
a private mount namespace (`tests.support.mountns`). Cgroups are real ones under a name of their
own, and :meth:`Site.close` removes them, whatever happened before.
"""

import hashlib
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import kernel
from reconciler.model.evidence import Containerd, ContainerdState, Node
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import TASKS, Layout
from tests.support import mountns

CGROUPS = Path("/sys/fs/cgroup")
DOWN = Node(containerd=Containerd(ContainerdState.DOWN))
LONG_AGO = time.time() - 3600.0
MARK = "RECONCILER_TEST_MARK"
"""Says what the cgroups of a process's only site are called by, for whoever may have to kill it."""
RUN = os.environ.setdefault("RECONCILER_TEST_RUN", uuid.uuid4().hex[:6])
"""Begins the marks of this run of the tests and of whatever it starts: others may run beside it."""


def top_cgroup(mark: str) -> str:
    """Name the cgroup above all those of a site."""
    return f"reconciler-test-{mark}"


def new_mark() -> str:
    """Give a word that no other site on this machine has."""
    return RUN + uuid.uuid4().hex[:8]


def remove_cgroups(name: str) -> None:
    """Remove a site's cgroups, in every hierarchy that has them."""
    for hierarchy in CGROUPS.iterdir():
        for parent, _, _ in os.walk(hierarchy / name, topdown=False):
            os.rmdir(parent)


def dead_pid() -> int:
    """Give the pid of a process that has ended and been reaped."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


@dataclass(frozen=True)
class Bundle:
    """A bundle and everything of it that lies elsewhere."""

    key: BundleKey
    identity: Identity
    path: Path
    runc_state: Path
    work: Path
    socket: Path
    fifos: Path
    cgroups: tuple[Path, ...]

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    def left(self) -> list[Path]:
        """What of it is still there, mounts excluded."""
        everything = (
            self.path,
            self.runc_state,
            self.work,
            self.socket,
            self.fifos,
            *self.cgroups,
        )
        return [path for path in everything if path.is_symlink() or path.exists()]

    def mounts(self) -> list[str]:
        """Mount points at or below it, in this mount namespace."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split(" ")[4] for line in lines]
        return [p for p in points if p == str(self.path) or p.startswith(f"{self.path}/")]


@dataclass
class Site:
    """One containerd's directories, without a containerd.

    Attributes:
        base: Where it all lies.
        cgroup: Name of the cgroup above all cgroups of its bundles, the same in every hierarchy.
    """

    base: Path
    cgroup: str = field(default_factory=lambda: top_cgroup(os.environ.get(MARK) or new_mark()))
    dead_pid: int = field(default_factory=dead_pid)

    def __post_init__(self) -> None:
        for place in (self.run, self.base / "lib"):
            place.mkdir()
            mountns.tmpfs(place)
        for directory in (self.layout.tasks, self.layout.work, self.layout.sockets):
            os.makedirs(directory)

    @property
    def run(self) -> Path:
        """containerd's state directory."""
        return self.base / "run"

    @property
    def layout(self) -> Layout:
        state = os.fsencode(self.run)
        root = os.fsencode(self.base / "lib")
        return Layout(state, root, state + b"/containerd.sock", state)

    @property
    def tree(self) -> Path:
        return self.run / TASKS.decode()

    def bundle(
        self,
        id_: str = "c1",
        namespace: str = "default",
        *,
        mounted: bool = True,
        cgroups: bool = True,
        fifos: bool = False,
        annotations: dict[str, str] | None = None,
        hooks: list[dict[str, object]] | None = None,
    ) -> Bundle:
        """Make a complete dead bundle, as it was left an hour ago; see :meth:`unique`."""
        id_ = self.unique(id_)
        made = self._paths(id_, namespace, cgroups=cgroups)
        if fifos:  # its client makes them before it asks for the task
            made.fifos.mkdir(parents=True)
            for end in ("stdin", "stdout", "stderr"):
                os.mkfifo(made.fifos / f"{id_}-{end}")
        for path in (made.rootfs, made.work, made.runc_state):
            path.mkdir(parents=True)
        for group in made.cgroups:
            group.mkdir(parents=True, exist_ok=True)
        (made.path / "work").symlink_to(made.work)
        self._write_files(made, annotations or {})
        self._write_runc_state(made, hooks or [])
        listen(made.socket).close()
        self._age(made)
        if mounted:
            self.mount_rootfs(made)
        return self._looked_at(made)

    def unique(self, id_: str) -> str:
        """Make an id that no other container on this machine has: cgroups are the machine's."""
        return f"{id_}-{self.cgroup.rpartition('-')[2]}"

    def mount_rootfs(self, bundle: Bundle) -> None:
        """Mount an overlay with a few files on its rootfs."""
        layers = self.base / "lib" / "layers" / f"{bundle.path.parent.name}-{bundle.path.name}"
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir(parents=True)
        (layers / "lower" / "etc").mkdir()
        (layers / "lower" / "etc" / "hostname").write_text("precious\n")
        (layers / "upper" / "data").write_text("precious\n")
        mountns.overlay(layers / "lower", layers / "upper", layers / "work", bundle.rootfs)

    def close(self) -> None:
        """Remove the cgroups; everything else ends with the mount namespace."""
        remove_cgroups(self.cgroup)

    def _paths(self, id_: str, namespace: str, *, cgroups: bool) -> Bundle:
        run = self.run
        group = self.layout.shim_socket(namespace, id_)
        hierarchies = sorted(CGROUPS.iterdir()) if cgroups else []
        number = hashlib.sha256(f"{namespace}/{id_}".encode()).digest()
        return Bundle(
            BundleKey(namespace, id_),
            Identity(0, 0, 0),
            self.tree / namespace / id_,
            run / "runc" / namespace / id_,
            self.base / "lib" / TASKS.decode() / namespace / id_,
            Path(os.fsdecode(group)),
            run / "fifo" / str(int.from_bytes(number[:4], "big")),
            tuple(h / self.cgroup / namespace / id_ for h in hierarchies),
        )

    def _write_files(self, made: Bundle, annotations: dict[str, str]) -> None:
        spec = {
            "ociVersion": "1.0.2",
            "annotations": annotations,
            "root": {"path": "rootfs"},
            "linux": {"cgroupsPath": self._cgroup_path(made)},
        }
        texts = {
            "config.json": json.dumps(spec),
            "address": f"unix://{made.socket}",
            "shim-binary-path": "/usr/bin/containerd-shim-runc-v2",
            "options.json": json.dumps({"root": str(self.run / "runc")}),
            "runtime": "",
            "log.json": "",
            "init.pid": str(self.dead_pid),
        }
        for name, text in texts.items():
            (made.path / name).write_text(text)
        os.mkfifo(made.path / "log")

    def _cgroup_path(self, made: Bundle) -> str:
        return f"/{self.cgroup}/{made.path.parent.name}/{made.path.name}"

    def _write_runc_state(self, made: Bundle, hooks: list[dict[str, object]]) -> None:
        paths = {"" if p.parts[4] == "unified" else p.parts[4]: str(p) for p in made.cgroups}
        state = {
            "id": made.path.name,
            "init_process_pid": self.dead_pid,
            "init_process_start": 12345,
            "created": "2024-01-01T00:00:00.0Z",
            "config": {
                "rootfs": str(made.rootfs),
                "labels": [f"bundle={made.path}"],
                "Hooks": {"poststop": hooks},
            },
            "cgroup_paths": paths,
        }
        (made.runc_state / "state.json").write_text(json.dumps(state))

    def _age(self, made: Bundle) -> None:
        for path in (made.path, *made.path.iterdir(), made.runc_state, made.work):
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)

    def _looked_at(self, made: Bundle) -> Bundle:
        return Bundle(
            made.key,
            identify(made.path),
            made.path,
            made.runc_state,
            made.work,
            made.socket,
            made.fifos,
            made.cgroups,
        )


@contextmanager
def site(base: Path) -> Iterator[Site]:
    """Make a site and, at the end, remove what the mount namespace does not take along."""
    made = Site(base)
    try:
        yield made
    finally:
        made.close()


def listen(path: Path) -> socket.socket:
    """Listen on a socket, however long its path is; closed, it is one that nobody listens on."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        listener.listen()
    finally:
        os.close(directory)
    return listener


def identify(path: Path) -> Identity:
    """Say which object a path means now."""
    found = kernel.statx(kernel.AT_FDCWD, os.fsencode(path))
    return Identity(found.dev, found.ino, found.mount_id)
