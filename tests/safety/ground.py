"""Ground: a whole node to do harm on, in a private mount namespace, and proof that none was done.

On it stand dead bundles (`tests.support.bundles`), live tasks with real processes, sockets, cgroups
and mounts, and canaries: on the state's own filesystem, behind a mount in a live rootfs, on another
filesystem, and in the overlays' upper layers. :meth:`Ground.harm` names whatever is not as it was.

The state is at containerd's own place, on a /run of the namespace's own, so that the program runs
on it as its users run it: :meth:`Ground.run`.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from msgspec.structs import replace
from typing_extensions import override

from reconciler.demo.node import Process, Processes
from reconciler.model.layout import Layout
from tests.support import mountns
from tests.support.bundles import Bundle, Site
from tests.support.canary import Canary, plant, snapshot

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = ("--grace", "0s", "--threshold", "0s", "--yes", "-o", "json")
"""Options of a `clean` that waits for nothing."""

_RUNC = r"""#!/bin/sh
state=$2/$5/state.json
hook=$(sed -n 's/.*"poststop": \[{"path": "\([^"]*\)".*/\1/p' "$state")
rm -r "${state%/*}"
exec "${hook:-/bin/true}"
"""

Command = Sequence[str | os.PathLike[str]]


class Result(TypedDict):
    """A result of `clean -o json`, as far as it is looked at here."""

    namespace: str
    id: str
    result: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Ran:
    """How a command ended. There is never a traceback."""

    code: int
    out: str
    err: str

    def results(self) -> dict[str, Result]:
        """What became of each bundle, by id."""
        told: list[Result] = json.loads(self.out)["results"]
        return {one["id"]: one for one in told}

    def verdicts(self) -> dict[str, str]:
        """The verdict on each bundle, by id."""
        return {one["id"]: one["verdict"] for one in json.loads(self.out)["bundles"]}


class Node(Site):
    """A site at the place where containerd has its own."""

    @property
    @override
    def run(self) -> Path:
        return Path("/run/containerd")

    @property
    @override
    def layout(self) -> Layout:
        """Its address is unlike that of another node in another mount namespace."""
        address = os.fsencode(self.run / f"{self.cgroup}.sock")
        return replace(super().layout, address=address)


@dataclass
class Live:
    """A task that lives, or has only stopped: nothing of it may ever change."""

    bundle: Bundle
    shim: Process
    init: Process

    def state(self) -> object:
        """Everything that can be said of it."""
        bundle = self.bundle
        return (
            [snapshot(path) for path in (bundle.path, bundle.runc_state, bundle.work)],
            bundle.mounts(),
            [path.name for path in bundle.left()],
            os.lstat(bundle.socket).st_ino,
            [(g / "cgroup.procs").read_text() for g in bundle.cgroups],
            (self.shim.alive, self.init.alive),
        )


@dataclass
class Ground:
    """The node, who lives on it, and what must survive."""

    site: Node
    live: list[Live]
    canaries: list[Canary]
    before: list[object] = field(default_factory=list)
    open_sockets: list[socket.socket] = field(default_factory=list)

    @property
    def mark(self) -> Path:
        """What a program that must not run would leave."""
        return self.site.run / "mark"

    @property
    def programs(self) -> Path:
        """A directory that comes first in PATH."""
        return self.site.base / "lib" / "bin"

    def remember(self) -> None:
        """Take all live tasks as they are now for what must not change."""
        self.before = [one.state() for one in self.live]

    def harm(self) -> list[str]:
        """Name what is lost or different; nothing, if all is well."""
        lost = [str(path) for canary in self.canaries for path in canary.lost()]
        if self.mark.exists():
            lost.append("a program ran that must not")
        for one, before in zip(self.live, self.before, strict=True):
            now = one.state()
            if now != before:
                lost.append(f"live task {one.bundle.key}: {before!r} became {now!r}")
        return lost

    def dead(
        self,
        id_: str,
        namespace: str = "default",
        *,
        mounted: bool = True,
        cgroups: bool = True,
        hooks: bool = False,
    ) -> Bundle:
        """Make a dead bundle whose upper layer is one more canary.

        With ``hooks`` runc, which is one of ours, is wanted for its poststop hooks.
        """
        wanted: list[dict[str, object]] = [{"path": "/bin/true"}] if hooks else []
        if hooks:
            self.have_runc()
        made = self.site.bundle(id_, namespace, mounted=mounted, cgroups=cgroups, hooks=wanted)
        layers = self.site.base / "lib" / "layers"
        upper = layers / f"{made.path.parent.name}-{made.path.name}" / "upper"
        if upper.exists():
            self.canaries.append(Canary(upper, snapshot(upper)))
        return made

    def have_runc(self) -> None:
        """Have a runc that does what matters of `runc --root R delete --force ID`: run the hook."""
        runc = self.programs / "runc"
        if not runc.exists():
            self.programs.mkdir(parents=True)
            runc.write_text(_RUNC)
            runc.chmod(0o755)

    def words(self, command: str, *said: str) -> list[str]:
        """Make a command line for this node."""
        layout = self.site.layout
        where = (("--state", layout.state), ("--root", layout.root), ("--address", layout.address))
        options = [word for name, path in where for word in (name, os.fsdecode(path))]
        return [sys.executable, "-m", "reconciler", *options, command, *said]

    def run(self, command: str, *said: str, before: Command = (), seconds: float = 45) -> Ran:
        """Run the program on this node to its end."""
        done = subprocess.run(
            [*before, *self.words(command, *said)],
            env=environment(self.programs),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)


def environment(programs: Path | None = None) -> dict[str, str]:
    """The environment of every run: this checkout, and no warning.

    Args:
        programs: A directory that comes first in PATH.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    if programs is not None:
        kept["PATH"] = f"{programs}:{kept['PATH']}"
    extra = {"PYTHONPATH": os.fspath(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **extra, "PYTHONWARNINGS": "error", "LC_ALL": "C.UTF-8"}


def _as_under_systemd() -> None:
    """Have as many pids as systemd sets, whatever machine this is.

    With the kernel's own 32,768 they may go round within a sixtieth of a second; a worker that
    strace slows down would pass over /proc at every step, which multiplies the calls to fail.
    """
    Path("/run/pid_max").write_text("4194304\n")
    mountns.bind("/run/pid_max", "/proc/sys/kernel/pid_max")


@contextmanager
def ground(base: Path) -> Iterator[Ground]:
    """Make a node. The caller must have left the machine's mount namespace."""
    mountns.tmpfs("/run", "mode=755,size=128m")
    _as_under_systemd()
    site = Node(base)
    lock = Path(os.fsdecode(site.layout.metadata_lock))
    lock.parent.mkdir(parents=True)
    lock.touch()  # and nobody holds it: containerd is proven down
    made: Ground | None = None
    with Processes() as processes:
        try:
            live = [
                _live(site, processes, "running", lives=True),
                _live(site, processes, "stopped", lives=False),
            ]
            canaries = [
                plant(site.run / "canary"),
                plant(live[0].bundle.rootfs / "canary"),
                plant(base / "canary"),
            ]
            made = Ground(site, live, canaries)
            made.remember()
            yield made
        finally:
            if made is not None:
                for listener in made.open_sockets:
                    listener.close()
            for process in processes.living:
                process.end()
            site.close()


def _live(site: Node, processes: Processes, id_: str, *, lives: bool) -> Live:
    """Bring a dead bundle to life: a shim that listens, an init in the cgroups, or one that ended.

    In a namespace of its own, for a bundle without any file could be any shim's of its namespace.
    """
    bundle = site.bundle(id_, "alive")
    bundle.socket.unlink()
    namespace, name, _ = bundle.key
    address = os.fsdecode(site.layout.address)
    shim = processes.shim(
        namespace, name, address, os.fsencode(bundle.socket), os.fsencode(bundle.path)
    )
    init = processes.init(name)
    name_init(bundle, init)
    if lives:
        for group in bundle.cgroups:
            if "cpuset" not in group.parts:  # of version 1, which must be set up first
                (group / "cgroup.procs").write_text(str(init.pid))
    else:
        init.end()
    return Live(bundle, shim, init)


def name_init(bundle: Bundle, init: Process) -> None:
    """Say in init.pid and in runc's state that this process is init."""
    (bundle.path / "init.pid").write_text(str(init.pid))
    state = json.loads((bundle.runc_state / "state.json").read_text())
    state |= {"init_process_pid": init.pid, "init_process_start": init.start_ticks}
    (bundle.runc_state / "state.json").write_text(json.dumps(state))


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        select.select([], [], [], 0.005)
