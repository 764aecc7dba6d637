"""A place apart with a running systemd: the machine's own, as pid 1 of namespaces of its own.

Its root is an overlay on the machine's, or on another root, so that all programs are there and
nothing is written to it; kernel settings are read-only to it, and none of its units is started.
Only cgroup version 2 is there, below one cgroup of the machine's.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from typing_extensions import override

from tests.e2e.apart import Apart, Word
from tests.e2e.processes import PATIENCE, Process, until

SYSTEMD: Final = "/lib/systemd/systemd"
UNITS: Final = "/etc/systemd/system"

_ROOT: Final = "/run/machine"
_BOOT: Final = f"""
mkdir {_ROOT}
mount -t tmpfs -o size=256m tmpfs {_ROOT}
mkdir {_ROOT}/upper {_ROOT}/work {_ROOT}/root
mount -t overlay -o lowerdir="$2",upperdir={_ROOT}/upper,workdir={_ROOT}/work overlay {_ROOT}/root
cd {_ROOT}/root

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
for name in null zero full random urandom tty; do
    : >dev/$name
    mount --bind /dev/$name dev/$name
done
ln -s pts/ptmx dev/ptmx
mkdir -p ".$0"
mount --bind "$0" ".$0"

# With an identity it is no first boot, at which everything would be enabled.
echo "$1" >etc/machine-id
: >etc/fstab
mount -t tmpfs -o mode=755 tmpfs .{UNITS}
for wanted in lib/systemd/system/*.target.wants/*; do
    case $wanted in
        *journald*) ;;
        *) ln -sf /dev/null ".{UNITS}/${{wanted##*/}}" ;;
    esac
done

# pivot_root would want the root there is to be a mount point, and in a chroot it is none.
mount --make-rshared .
exec chroot . env -i container=e2e PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    {SYSTEMD} --unit=multi-user.target --log-target=journal
"""
"""Shell: what pid 1 of the namespaces does before it is systemd."""


class Booted(Apart):
    """Boots a systemd, and is its inside.

    Args:
        name: Names what belongs to it.
        directory: The one place both sides write to, under the same name.
        root: Whose programs and systemd it has.
    """

    def __init__(self, name: str, directory: Path, root: Path = Path("/")) -> None:
        super().__init__(name, unified=True)
        self._booting = subprocess.Popen(
            self.command([*_UNSHARE, "sh", "-ec", _BOOT, directory, os.urandom(16).hex(), root]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._boot()
        except BaseException:
            self.belongings.end()
            self.close()
            raise

    def _boot(self) -> None:
        children = Path(f"/proc/{self._booting.pid}/task/{self._booting.pid}/children")
        until(lambda: bool(self._children(children)), "systemd's namespaces are made")
        self.pid = int(self._children(children).split()[0])
        until(self.path("/run/systemd/private").exists, "systemd listens")
        self._entrance = ["nsenter", "-t", str(self.pid), "-m", "-r", "-p", "-u", "-i", "-n", "-C"]
        said = self.systemctl("is-system-running", "--wait", check=False)
        assert said == "running", self.systemctl("list-units", "--failed", check=False)

    def _children(self, file: Path) -> str:
        assert self._booting.poll() is None, self._booting.communicate()
        return file.read_text()

    @override
    def close(self) -> None:
        """Let go; whoever is inside must have been ended."""
        self._booting.kill()
        self._booting.communicate()
        super().close()

    @override
    def process(self, pid: int) -> Process:
        """Find a process by the pid it has inside."""
        for process in self.belongings.processes():
            status = Path(f"/proc/{process.pid}/status").read_text()
            row = next(row for row in status.splitlines() if row.startswith("NSpid:"))
            if row.split()[2:3] == [str(pid)]:  # after its name and the pid here
                return process
        raise ProcessLookupError(f"no living process {pid} inside")

    def systemctl(self, *words: Word, check: bool = True) -> str:
        """Run `systemctl` and give what it prints."""
        return self.run("systemctl", *words, timeout=PATIENCE, check=check).stdout.strip()

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Give properties of a unit."""
        rows = self.systemctl("show", unit, *(f"--property={name}" for name in names))
        return dict(row.split("=", 1) for row in rows.splitlines())

    def install(self, inside: str, text: str) -> None:
        """Write a file, its directory too if need be."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def journal(self, unit: str) -> list[str]:
        """Give what a unit has written."""
        words = ("journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={unit}")
        return self.run(*words).stdout.splitlines()


_UNSHARE: Final = ("unshare", "-m", "-p", "-u", "-i", "-n", "-C", "--fork", "--kill-child")
