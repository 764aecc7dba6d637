"""A real containerd of the machine's own, isolated, with one-process containers. Needs root."""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import anyio

from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout

_CONFIG: Final = """
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{address}"
[ttrpc]
address = "{address}.ttrpc"
"""
_APART: Final = 'mount --bind "$1" /run && exec containerd --config "$0"'


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something outside has become true."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- nobody tells us
            await anyio.sleep(0.01)


class RealContainerd:
    """Runs containerd in a mount namespace in which /run is another one than the machine's."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(
            state=os.fsencode(directory / "state"),
            root=os.fsencode(directory / "root"),
            address=os.fsencode(directory / "c.sock"),
            runtime_dir=b"/run/containerd",
        )
        self._config = directory / "config.toml"
        self._run = directory / "run"
        self._rootfs = directory / "rootfs"
        self._log = directory / "containerd.log"
        self._ran: list[BundleKey] = []
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._run.mkdir()
        (self._rootfs / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", self._rootfs / "bin/sleep")
        root, state, address = map(
            os.fsdecode, (self.layout.root, self.layout.state, self.layout.address)
        )
        self._config.write_text(_CONFIG.format(root=root, state=state, address=address))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end_containers()
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it serves some time later."""
        config, run = os.fspath(self._config), os.fspath(self._run)
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", _APART, config, run]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it, and nothing else."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def listening(self) -> None:
        """Wait until a subscription will be served: once it is sent, nothing more is known."""

    async def run(self, key: BundleKey) -> None:
        """Run a container of one process."""
        self._ran.append(key)
        self._ctr(key, "run", "-d", "--null-io", "--rootfs", os.fspath(self._rootfs))

    async def end(self, key: BundleKey) -> None:
        """Kill a container's process and wait until containerd knows; the task stays."""
        self._ctr(key, "tasks", "kill", "-s", "KILL")
        name = key.id
        await until(
            lambda: "STOPPED" in self._ctr(key, "tasks", "ls", named=False).rpartition(name)[2]
        )

    def _ctr(self, key: BundleKey, *words: str, named: bool = True) -> str:
        address, namespace = os.fsdecode(self.layout.address), key.namespace
        name = [key.id] if named else []
        what = ["/bin/sleep", "3600"] if "run" in words else []
        command = ["ctr", "-a", address, "-n", namespace, *words, *name, *what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self._log.read_text()[-2000:]}"
        return done.stdout

    def _end_containers(self) -> None:
        """End every shim that serves this containerd, its container, and their cgroups."""
        mine = os.fsencode(self._config.parent)
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            if _is_shim(pid, mine):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                for process in [*(int(child) for child in children), pid]:
                    _end(process)
        for key in self._ran:
            for hierarchy in Path("/sys/fs/cgroup").iterdir():
                for group in (
                    f"{key.namespace}/{key.id}",
                    key.namespace,
                ):
                    with suppress(OSError):  # gone already, or not ours alone
                        (hierarchy / group).rmdir()


def _is_shim(pid: int, mine: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"containerd-shim" in words[0] and any(word.startswith(mine) for word in words)


def _end(pid: int) -> None:
    """Kill a process and wait for its end."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], 10)
        finally:
            os.close(fd)
