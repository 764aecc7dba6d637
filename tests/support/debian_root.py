"""A fresh Debian 12 with Python, made by debootstrap once for all tests of a run that want one.

    def test_it_installs(debian_root: Path, tmp_path: Path) -> None:
        root = copy(debian_root, tmp_path / "root")

The packages come from where this machine's come from. Whoever wants to change something takes a
copy: all tests share what was made.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv")
"""Beside Debian's minimal base: Python with `venv`, and nothing else that anybody asked for."""

_PATIENCE: Final = 600.0


def make(target: Path) -> Path:
    """Make one.

    Args:
        target: A directory that is not there yet, on a file system that takes devices.
    """
    program = shutil.which("debootstrap")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs root and debootstrap")
    words = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=_PATIENCE, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for archive in (target / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    return target


def copy(root: Path, target: Path) -> Path:
    """Copy it with owners, modes and devices; cheap where the file system shares blocks."""
    subprocess.run(["cp", "--archive", "--reflink=auto", root, target], check=True)
    return target


@pytest.fixture(scope="session")
def debian_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that all tests of a run share; nobody writes to it."""
    return make(tmp_path_factory.mktemp("debian") / "root")
