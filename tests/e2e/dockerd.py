"""A node of Docker's: dockerd with a containerd of its own, whose containers outlive both.

It is Debian's docker.io in a place apart, with its usual runtime directory there and a network
namespace of its own. dockerd starts its containerd, and gives runc and crun roots of their own.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from typing_extensions import override

from tests.e2e import image
from tests.e2e.apart import Word
from tests.e2e.containerd import Containerd
from tests.e2e.node import Node
from tests.e2e.processes import Process, until
from tests.e2e.task import Task

NAMESPACE: Final = "moby"
PROGRAM: Final = "/usr/sbin/dockerd"
CLIENT: Final = "/usr/bin/docker"
CRUN: Final = "/usr/bin/crun"
RUN: Final = "/run/docker"
STATE: Final = f"{RUN}/containerd/daemon"


@dataclass
class Dockerd(Containerd):
    """Starts dockerd, which starts its containerd, and kills both."""

    _containerd: Process | None = field(default=None, init=False)

    @property
    @override
    def root(self) -> Path:
        """containerd's persistent directory."""
        return self.directory / "docker" / "containerd" / "daemon"

    @property
    @override
    def address(self) -> str:
        """containerd's socket, which lies beside its state directory and not in it."""
        return f"{RUN}/containerd/containerd.sock"

    @property
    @override
    def pid(self) -> int:
        """Pid of containerd."""
        assert self._containerd is not None, "containerd is down"
        return self._containerd.pid

    @override
    def start(self, *before: str, wait: bool = True) -> None:
        """Start both, and wait until dockerd serves."""
        assert self._running is None
        assert wait, "dockerd is waited for"
        words: list[Word] = [*before, "unshare", "--net", PROGRAM, "--config-file", self._config]
        with (self.directory / "dockerd.log").open("ab") as log:
            self._running = subprocess.Popen(
                self.apart.command(words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        until(self._serves, "dockerd serves")
        pid = self.apart.path(f"{RUN}/containerd/containerd.pid").read_text()
        self._containerd = self.apart.process(int(pid))

    @override
    def kill(self) -> None:
        """Kill dockerd with SIGKILL, then its containerd; it would start that one again."""
        super().kill()
        known, self._containerd = self._containerd, None
        if known is not None:
            known.kill()
            # Where nobody reaps it at once the next dockerd would wait for it.
            self.apart.path(f"{RUN}/containerd/containerd.pid").unlink()

    @property
    @override
    def log(self) -> str:
        """What both have logged so far."""
        return (self.directory / "dockerd.log").read_text(errors="replace")

    def _serves(self) -> bool:
        assert self._running is not None
        assert self._running.poll() is None, f"dockerd ended:\n{self.log[-3000:]}"
        return self.apart.run(CLIENT, "version", check=False).returncode == 0

    @override
    def _configuration(self) -> str:
        said = {
            "data-root": os.fspath(self.directory / "docker"),
            "deprecated-key-path": os.fspath(self.directory / "key.json"),
            "cgroup-parent": f"/{self.directory.name}",
            "live-restore": True,
            "storage-driver": "overlay2",
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "runtimes": {"crun": {"path": CRUN}},
        }
        return json.dumps(said)


class Docker(Node):
    """Owns a dockerd and everything that ever came of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, state=STATE)

    @override
    def _service(self, state: str, first: list[Path]) -> Containerd:
        return Dockerd(self.apart, self._directory, state, first)

    @override
    def import_image(self, namespace: str, archive: Path | None = None) -> None:
        """Give Docker the image; it has one namespace for all."""
        layer = self._directory / "layer.tar"
        layer.write_bytes(image.layer())
        self.docker("import", layer, image.NAME)

    @override
    def run(
        self, name: str, *options: Word, command: Sequence[str] = image.FOR_EVER, pod: str = ""
    ) -> Task:
        """Run a container; its id is Docker's."""
        assert not pod, "Docker has no pods"
        words = ("run", "-d", "--name", name, "--network", "none", *options, image.NAME, *command)
        return self.task(self.docker(*words).strip(), NAMESPACE)

    def docker(self, *words: Word) -> str:
        """Run Docker's client and give what it prints."""
        return self.apart.run(CLIENT, *words, env=self.containerd.environment).stdout

    def known(self, task: Task) -> Path:
        """Say where its runtime, whichever it is, keeps what it knows of a container."""
        return self.apart.path(f"{RUN}/runtime-runc/{NAMESPACE}/{task.id}")
