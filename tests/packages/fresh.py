"""A Debian of its own to run things in: what is written lies in a directory, nothing is copied."""

import os
import subprocess
from pathlib import Path

SECONDS = 180

# Pids of their own: another demo on this machine has shims of the same names.
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")

# The mounts are those of a namespace that ends with the script.
_INSIDE = """
mount -t overlay -o lowerdir="$0",upperdir="$1/written",workdir="$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --make-rslave sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
: >dev/null
mount --bind /dev/null dev/null
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME="$2" \
    DEBIAN_FRONTEND=noninteractive sh -ec "$3"
"""


class Fresh:
    """A root file system on top of another.

    Args:
        directory: Where to keep it.
        below: What is there from the beginning; several with a colon between, as overlayfs has it.

    Attributes:
        written: What was written since; what was removed is there as a device, as overlayfs has it.
    """

    def __init__(self, directory: Path, *below: Path) -> None:
        self.below = below[0]
        self.written = directory / "written"
        self._directory = directory
        self._lower = ":".join(map(os.fspath, below))
        for name in ("written", "work", "root"):
            (directory / name).mkdir()

    def run(
        self, script: str, home: str = "/root", *, network: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in there; alone in its network unless it needs one."""
        apart = [] if network else ["--net"]
        place = (self._lower, os.fspath(self._directory), home)
        return subprocess.run(
            [*_UNSHARE, *apart, "sh", "-ec", _INSIDE, *place, script],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
