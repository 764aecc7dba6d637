"""A disk that is frozen: whoever writes to it waits, in a state in which nothing can end it."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.mountns import mount, umount

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


@contextmanager
def frozen_disk(at: Path, fill: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Mount an ext4, fill and freeze it; gives what thaws it. Skips where that cannot be done."""
    for program in ("mkfs.ext4", "losetup"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    image = at.parent / "disk.img"
    with image.open("wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    found = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"no loop device: {found.stderr.decode()}")
    device = found.stdout.decode().strip()
    with ExitStack() as cleanup:
        cleanup.callback(subprocess.run, ["losetup", "-d", device], check=False)
        mount(device, at, "ext4")
        cleanup.callback(umount, at, 2)
        fill()
        thaw = _freeze(at)
        cleanup.callback(thaw)
        yield thaw


def _freeze(at: Path) -> Callable[[], None]:
    """Freeze a filesystem; gives what thaws it, which happens as well when this process ends."""
    top = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    until_closed, held = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        os.setsid()
        os.close(held)
        os.read(until_closed, 1)
        fcntl.ioctl(top, FITHAW, 0)
        os._exit(0)
    os.close(until_closed)
    try:
        fcntl.ioctl(top, FIFREEZE, 0)
    except OSError as error:
        os.kill(guardian, signal.SIGKILL)
        os.waitpid(guardian, 0)
        pytest.skip(f"this kernel does not freeze: {error}")
    finally:
        os.close(top)
    left = [held]

    def thaw() -> None:
        for fd in left:
            os.close(fd)
            os.waitpid(guardian, 0)
        left.clear()

    return thaw


def work_dir_began(bundle: Bundle) -> bool:
    """Everything before the work directory is gone."""
    return not bundle.socket.exists() and not bundle.runc_state.exists()
