"""A living shim with a child of its own, as the sweep and whoever looks at ancestors sees them."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SHIM = "containerd-shim-runc-v2"


@contextmanager
def child_of_a_shim(bundle: Path) -> Iterator[int]:
    """Have a shim at work in its bundle, and give the pid of the process it looks after.

    Between the two is one that is no shim, as between a shim and what runs in a container.
    """
    bundle.mkdir(parents=True, exist_ok=True)
    words = ["-namespace", bundle.parent.name, "-id", bundle.name, "-address", "/nowhere"]
    script = (
        "printf containerd-shim-runc-v2 >/proc/$$/comm; sh -c 'sleep 600 & echo $!; wait' & wait"
    )
    shim = subprocess.Popen(
        [SHIM, "-c", script, *words],
        executable="/bin/sh",
        cwd=bundle,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert shim.stdout is not None
    child = int(shim.stdout.readline())
    try:
        yield child
    finally:
        _end(child)
        shim.kill()
        shim.wait()
        shim.stdout.close()


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _end(pid: int) -> None:
    """End a process that is not our child: with its parent the rest of the line ends."""
    subprocess.run(["kill", "-KILL", str(pid)], check=False, capture_output=True)


@dataclass(frozen=True)
class LivingShim:
    """A process that the sweep takes for a shim, and that listens."""

    pid: int
    process: "subprocess.Popen[bytes]"

    @property
    def start(self) -> int:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])


@contextmanager
def living_shim(
    bundle: Path,
    listens: Path,
    address: str,
    *,
    id_: str = "",
    before: str = "",
    user: int | None = None,
) -> Iterator[LivingShim]:
    """Have a shim at work in its bundle, with a socket of its own; ended whatever happens.

    ``before``: what it does first, as a shell script; ``user``: whose process it is.
    """
    words = ["-namespace", bundle.parent.name, "-id", id_ or bundle.name, "-address", address]
    script = f"printf {SHIM} >/proc/$$/comm; {before}\necho; read _"
    listens.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(listens))
        listener.listen()
        process = subprocess.Popen(
            [SHIM, "-c", script, *words],
            executable="/bin/sh",
            cwd=bundle,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            user=user,
            start_new_session=True,
        )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield LivingShim(process.pid, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
