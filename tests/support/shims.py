"""A living shim with a child of its own, as the sweep and whoever looks at ancestors sees them."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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


@contextmanager
def shell_named(program: str) -> Iterator[Path]:
    """Have a copy of the shell under another name: the kernel shows which program runs."""
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 -- another user may be who executes it
        yield Path(shutil.copy("/bin/sh", Path(directory, program)))


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
    program: str = SHIM,
) -> Iterator[LivingShim]:
    """Have a shim at work in its bundle, with a socket of its own; ended whatever happens.

    ``before``: what it does first, as a shell script; ``user``: whose process it is; ``program``:
    the name of what it executes, which is there only as long as it starts.
    """
    words = ["-namespace", bundle.parent.name, "-id", id_ or bundle.name, "-address", address]
    script = f"printf {program} >/proc/$$/comm; {before}\necho; read _"
    listens.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, shell_named(program) as shell:
        listener.bind(str(listens))
        listener.listen()
        process = subprocess.Popen(
            [program, "-c", script, *words],
            executable=shell,
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


@contextmanager
def working_in(path: Path) -> Iterator[int]:
    """Have a process work in a directory, as a shim works in its bundle."""
    path.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=path) as process:
        try:
            yield process.pid
        finally:
            process.kill()
