"""What belongs to a node, found again by the kernel's own records, and its end.

Whatever a test did, a process of its node is in the node's mount namespace or in its cgroup.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import Process, everyone, kill_all, until
from tests.e2e.unified import CGROUPS


@dataclass(frozen=True, slots=True)
class Belongings:
    """Processes and cgroups of one node.

    Attributes:
        name: The node's name, which is its cgroup's too.
        mounts: Its mount namespace, as the kernel names it.
        holder: Who holds that namespace, and is not counted.
    """

    name: str
    mounts: str
    holder: int

    def cgroups(self) -> list[Path]:
        """List the directories of the node's cgroup, one in each hierarchy."""
        alone = CGROUPS / self.name  # where the machine has version 2 and nothing else
        return [alone] if alone.is_dir() else sorted(CGROUPS.glob(f"*/{self.name}"))

    def processes(self) -> list[Process]:
        """List every living process."""
        return [one for one in everyone() if one.pid != self.holder and self._has(one.pid)]

    def end(self) -> None:
        """Kill all of them, by pid, until there is none."""
        until(self._ended, f"all processes of {self.name} end")

    def disband(self) -> None:
        """Remove the cgroups; their processes must have been ended."""
        until(self._disbanded, f"the cgroups of {self.name} are empty")

    def _ended(self) -> bool:
        kill_all(self.processes())
        return not self.processes()

    def _disbanded(self) -> bool:
        for top in self.cgroups():
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return not self.cgroups()

    def _has(self, pid: int) -> bool:
        try:
            if os.readlink(f"/proc/{pid}/ns/mnt") == self.mounts:
                return True
            return f"/{self.name}/" in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return False
