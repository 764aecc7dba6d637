"""A node with a running systemd: containerd is its service, and the program as the README has it.

Everything is where it is by default: `/run/containerd`, `/var/lib/containerd`, `/usr/local/bin`.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from tests.e2e.apart import REPOSITORY
from tests.e2e.booted import UNITS, Booted
from tests.e2e.containerd import Containerd
from tests.e2e.node import Node
from tests.e2e.processes import Process, until
from tests.e2e.task import Task
from tests.e2e.unified import HOST

CONTRIB: Final = REPOSITORY / "contrib" / "systemd"
SERVICE: Final = "containerd-reconciler.service"
CONFIG: Final = "/etc/containerd-reconciler/config.toml"
SLICE: Final = "kubepods-burstable.slice"
COMMANDS: Final = ("containerd-reconciler", "containerd-cleanup")

_CONTAINERD: Final = "containerd.service"
_ROOT: Final = "/var/lib/containerd"
_DROP_IN: Final = """
[Service]
ExecStart=
ExecStart={program} --config {config}
Environment=PATH={path}
Restart=no
"""


@dataclass
class ContainerdService(Containerd):
    """Starts and kills containerd as the service of its package."""

    _process: Process | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self.apart.path(_ROOT).mkdir(parents=True, exist_ok=True)
        self.apart.run("mount", "--bind", self.root, _ROOT)
        path = self.environment["PATH"]
        program = shutil.which("containerd", path=path)  # systemd would look elsewhere
        text = _DROP_IN.format(program=program, config=self._config, path=path)
        self._booted.install(f"{UNITS}/{_CONTAINERD}.d/e2e.conf", text)
        self._booted.systemctl("daemon-reload")

    @property
    @override
    def pid(self) -> int:
        """Its pid, seen from the outside."""
        assert self._process is not None, "containerd is down"
        return self._process.pid

    @property
    @override
    def running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    @override
    def start(self, *before: str, wait: bool = True) -> None:
        """Start it and wait until it says that it serves."""
        assert self._process is None
        assert wait, "a service is waited for"
        assert not before, "a service starts as its unit says"
        self._booted.systemctl("start", _CONTAINERD)
        main = self._booted.show(_CONTAINERD, "MainPID")["MainPID"]
        self._process = self.apart.process(int(main))

    @override
    def kill(self) -> None:
        """Kill it with SIGKILL and nothing else; systemd leaves its shims alone."""
        running, self._process = self._process, None
        if running is not None:
            running.kill()

    @property
    def _booted(self) -> Booted:
        assert isinstance(self.apart, Booted)
        return self.apart

    @override
    def _configuration(self) -> str:
        return super()._configuration().replace(os.fspath(self.root), _ROOT)


class Machine(Node):
    """Owns a booted systemd and everything that ever came of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, unified=True, state="/run/containerd")

    @property
    def booted(self) -> Booted:
        """Where it is."""
        assert isinstance(self.apart, Booted)
        return self.apart

    @override
    def _place(self) -> Booted:
        return Booted(self.namespace, self._directory)

    @override
    def _service(self, state: str, first: list[Path]) -> Containerd:
        return ContainerdService(self.apart, self._directory, state, first)

    @override
    def cgroups(self) -> list[Path]:
        """List the directories its containers have theirs in, one in each hierarchy."""
        return [top / HOST / self.namespace for top in self.apart.belongings.cgroups()]

    def install(self) -> None:
        """Install the program, as the README says."""
        for name in COMMANDS:
            link = self.apart.path(f"/usr/local/bin/{name}")
            link.unlink(missing_ok=True)
            link.symlink_to(Path(sys.prefix, "bin", name))

    def install_unit(self, name: str, **settings: str) -> None:
        """Install a unit, with some settings of its service changed."""
        self.booted.install(f"{UNITS}/{name}", (CONTRIB / name).read_text())
        changed = "".join(f"{key}=\n{key}={value}\n" for key, value in settings.items())
        self.booted.install(f"{UNITS}/{name}.d/e2e.conf", f"[Service]\n{changed}")
        self.booted.systemctl("daemon-reload")

    def run_in_scope(self, name: str) -> Task:
        """Run a container in a scope of systemd's."""
        return self.run(name, "--runc-systemd-cgroup", "--cgroup", f"{SLICE}:cri-containerd:{name}")

    @contextlib.contextmanager
    def guest(self) -> Iterator[Process]:
        """Keep a process inside that is nobody's; it ends with the block."""
        helper = self._popen(["cat"])
        children = Path(f"/proc/{helper.pid}/task/{helper.pid}/children")
        until(lambda: bool(children.read_text()), "it has entered")
        yield Process.at(int(children.read_text()))
        helper.communicate()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have systemd do nothing meanwhile."""
        os.kill(self.booted.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.booted.pid, signal.SIGCONT)

    def scope(self, name: str) -> Path:
        """Say where the cgroup of such a container is, seen from the outside."""
        (top,) = self.apart.belongings.cgroups()
        parent, _, _ = SLICE.partition("-")
        return top / HOST / f"{parent}.slice" / SLICE / f"cri-containerd-{name}.scope"
