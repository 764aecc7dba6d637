"""A living shim with a child of its own, as the sweep and whoever looks at ancestors sees them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
