"""A containerd of the test's own: its configuration, its start and its end.

State, sockets and runc's directory lie in the private /run of its :class:`Apart`; the root lies on
disk in the test's directory, as on a node.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e import image
from tests.e2e.apart import Apart
from tests.e2e.processes import Process, until

RUNTIME_DIR: Final = "/run/containerd"
"""Where shims and runc keep their things, whatever the configuration says."""

TASKS: Final = "io.containerd.runtime.v2.task"

_BASE: Final = """
root = "{root}"
state = "{state}"
[grpc]
address = "{address}"
[ttrpc]
address = "{address}.ttrpc"
[timeouts]
"io.containerd.timeout.task.state" = "{patience}"
"""
# A task in creation does not tell its state, and every list of tasks waits that long for it (2 s).
# Without these the machine would get an /opt/containerd and an /etc/cni/net.d.
_WITHOUT_CRI_1: Final = """
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri"]
"""
_WITHOUT_CRI_2: Final = """
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
"""
_CRI_1: Final = """
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
"""
_CRI_1_TABLES: Final = """
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{root}/cni"
conf_dir = "{root}/cni"
"""
_CRI_2: Final = """
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt"]
"""
_CRI_2_TABLES: Final = """
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{image}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = "{root}/cni"
conf_dir = "{root}/cni"
"""


@dataclass
class Containerd:
    """Starts and kills containerd in one place apart.

    Attributes:
        apart: Where it runs.
        directory: Its files on disk.
        state: Its state directory, seen from the inside.
        first: Directories of programs that come before those in PATH.
        cri: Whether it serves Kubernetes too.
        patience: How long it waits for a shim to tell a task's state.
    """

    apart: Apart
    directory: Path
    state: str
    first: Sequence[Path] = ()
    cri: bool = False
    patience: str = "500ms"
    _running: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        (self.root / "cni").mkdir(parents=True)
        self.apart.path(self.state).mkdir(parents=True)
        self._config.write_text(self._configuration())

    @property
    def root(self) -> Path:
        """containerd's persistent directory."""
        return self.directory / "root"

    @property
    def address(self) -> str:
        """Its socket, seen from the inside."""
        return f"{self.state}/containerd.sock"

    @property
    def pid(self) -> int:
        """Its pid."""
        assert self._running is not None, "containerd is down"
        return self._running.pid

    @property
    def running(self) -> bool:
        """Whether it was started and not killed."""
        return self._running is not None

    @property
    def serving(self) -> bool:
        """Whether its socket accepts."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(os.fspath(self.apart.path(self.address))) == 0

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.directory / "containerd.log").read_text(errors="replace")

    def start(self, *before: str, wait: bool = True) -> None:
        """Start it; by default wait until it serves, so that its sweep is over.

        Args:
            before: Words of a command that is to start it, such as `unshare`.
            wait: As above.
        """
        assert self._running is None
        with (self.directory / "containerd.log").open("ab") as log:
            self._running = subprocess.Popen(
                self.apart.command([*before, "containerd", "--config", self._config]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        if wait:
            self.wait_serving()

    def wait_serving(self) -> None:
        """Wait until it serves."""

        def up() -> bool:
            assert self._running is not None
            assert self._running.poll() is None, f"containerd ended:\n{self.log[-3000:]}"
            return self.serving

        until(up, f"containerd serves\n{self.log[-3000:]}")

    def kill(self) -> None:
        """Kill it with SIGKILL and nothing else."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()
            running.wait()

    def freeze(self) -> None:
        """Stop it in its tracks: it runs and answers nobody."""
        Process.at(self.pid)
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the wanted version and its own shim are found first."""
        before = [os.fspath(directory) for directory in self.first]
        path = os.pathsep.join([*before, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return {**os.environ, "PATH": path}

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, such as (1, 6, 20)."""
        path = self.environment["PATH"]
        program = shutil.which("containerd", path=path)
        assert program, "no containerd"
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        number = said.stdout.split()[2].lstrip("v").split("~")[0].split("-")[0].split("+")[0]
        return tuple(int(part) for part in number.split("."))

    @property
    def _config(self) -> Path:
        return self.directory / "config.toml"

    def _configuration(self) -> str:
        old = self.version < (2,)
        if self.cri:
            head, tables = (_CRI_1, _CRI_1_TABLES) if old else (_CRI_2, _CRI_2_TABLES)
        else:
            head, tables = (_WITHOUT_CRI_1 if old else _WITHOUT_CRI_2), ""
        # Top-level keys come before any table.
        base = _BASE.format(
            root=self.root, state=self.state, address=self.address, patience=self.patience
        )
        top, _, rest = base.partition("[grpc]")
        return f"{head}{top}[grpc]{rest}{tables.format(root=self.root, image=image.NAME)}"
