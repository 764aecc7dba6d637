"""Everything there is of some tasks, byte for byte, to be compared with later.

Reads only, and opens nothing but regular files: a FIFO would block, a socket would answer.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.e2e.containerd import RUNTIME_DIR, TASKS
from tests.e2e.node import Node
from tests.e2e.task import Task

_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """What there is, one printable line for each thing under the name of the thing."""

    things: dict[str, str]

    @classmethod
    def take(cls, node: Node, tasks: Iterable[Task], names: Iterable[str] = ()) -> Self:
        """Look at tasks: processes, mounts, files, cgroups, runc's state, sockets, FIFOs.

        Args:
            node: Where they are.
            tasks: What to look at.
            names: Further tasks of the node's own namespace that have no init yet.
        """
        things: dict[str, str] = {}
        keys = {(task.namespace, task.id) for task in tasks}
        for task in tasks:
            things |= _processes(task)
        for namespace, name in sorted(keys | {(node.namespace, name) for name in names}):
            places = _places(node, namespace, name)
            assert places[0].is_dir(), f"no bundle {namespace}/{name}"
            for place in (*places, *_kubernetes(node, name)):
                things |= dict(tree(place))
            things |= _mounts(node, node.inside(name, namespace))
            things |= _sockets(node, places[0])
            things |= _fifos(node, name)
        return cls(things)

    def changes(self, later: "Snapshot") -> list[str]:
        """Say what became of what; empty if not a byte is different."""
        every = sorted(self.things.keys() | later.things.keys())
        before, after = self.things, later.things
        return [
            f"{name}: {before.get(name, 'not there')} -> {after.get(name, 'gone')}"
            for name in every
            if before.get(name) != after.get(name)
        ]


def tree(top: Path) -> Iterator[tuple[str, str]]:
    """Describe everything at and below a path, mounts included; nothing if it is not there."""
    if not os.path.lexists(top):
        return
    yield _entry(top)
    if top.is_dir() and not top.is_symlink():
        for directory, folders, files in os.walk(top):
            for name in sorted([*folders, *files]):
                yield _entry(Path(directory, name))


def remains(node: Node, name: str, namespace: str | None = None) -> list[str]:
    """Name what is still there of a task that should be gone; its shim's socket not among them."""
    namespace = namespace or node.namespace
    found = [str(place) for place in _places(node, namespace, name) if os.path.lexists(place)]
    return found + list(_mounts(node, node.inside(name, namespace)))


def listing(node: Node) -> list[str]:
    """Name all there is in every place where containerd, shims and runc keep things; the shims."""
    tops = [
        *(node.apart.path(f"{RUNTIME_DIR}/{name}") for name in ("s", "fifo", "runc")),
        node.apart.path(f"{node.state}/{TASKS}"),
        node.root / TASKS,
        *node.cgroups(),
    ]
    found = [
        os.path.join(above, name)
        for top in tops
        for above, *both in os.walk(top)
        for names in both
        for name in names
    ]
    mounts = [row.split(" ", 2)[2] for row in node.apart.mountinfo()]
    shims = [f"{one} {one.cmdline}" for one in node.processes() if "-namespace" in one.cmdline]
    return sorted(one for one in found if not _is_file_of_a_group(one)) + sorted(mounts + shims)


def _is_file_of_a_group(path: str) -> bool:
    return path.startswith("/sys/") and not os.path.isdir(path)


def _places(node: Node, namespace: str, name: str) -> list[Path]:
    """List the directories that bear a task's name, its bundle first."""
    return [
        node.bundle(name, namespace),
        node.root / TASKS / namespace / name,
        node.apart.path(f"{RUNTIME_DIR}/runc/{namespace}/{name}"),
        *(cgroup / name for cgroup in node.cgroups()),
    ]


def _kubernetes(node: Node, name: str) -> list[Path]:
    """List what Kubernetes' plugin keeps of a container, in either tree."""
    tops = (node.apart.path(node.state), node.root)
    return [place for top in tops for place in top.glob(f"io.containerd.grpc.v1.cri/*/{name}")]


def _processes(task: Task) -> dict[str, str]:
    return {
        f"{kind} of {task.name}": f"{process} {'runs' if process.alive else 'is dead'}"
        for kind, process in (("init", task.init), ("shim", task.shim))
    }


def _mounts(node: Node, inside: str) -> dict[str, str]:
    rows = [row for row in node.apart.mountinfo() if f"{row.split()[4]}/".startswith(f"{inside}/")]
    return {f"mount {row.split()[4]} #{row.split()[0]}": row for row in rows}


def _sockets(node: Node, place: Path) -> dict[str, str]:
    """Describe the shim's socket, where the bundle names it."""
    try:
        address = (place / "address").read_text()
    except OSError:
        return {}
    return dict(tree(node.apart.path(address.removeprefix("unix://"))))


def _fifos(node: Node, name: str) -> dict[str, str]:
    """Describe the client's FIFOs of a task."""
    directories = node.apart.path(f"{RUNTIME_DIR}/fifo").glob("*")
    mine = [one for one in directories if any(one.glob(f"{name}-std*"))]
    return {what: how for directory in mine for what, how in tree(directory)}


def _entry(path: Path) -> tuple[str, str]:
    status = path.lstat()
    # A cgroup's directory changes by itself, and so do the files in it.
    times = "" if path.is_relative_to("/sys") else f"{status.st_mtime_ns} {status.st_ctime_ns}"
    told = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} {status.st_ino}"
    return str(path), f"{told} {status.st_size} {times} {_content(path, status.st_mode)}"


def _content(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return f"-> {os.readlink(path)}"
    if not stat.S_ISREG(mode) or (path.is_relative_to("/sys") and path.name != "cgroup.procs"):
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
