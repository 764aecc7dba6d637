"""Cgroup version 2 alone, as hosts have it now, on a machine that has version 1 as well or instead.

A node that wants it lives in one cgroup of the machine's version 2 and takes that for the root, by
a cgroup namespace: what runc writes on the way down to a container it writes into the node's own
directories. Within the node's mount namespace all hierarchies are taken off and version 2 stands in
their place. Its processes are in `host`: a cgroup that hands controllers down holds none itself.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
HOST: Final = "host"

MOUNT: Final = f"""
echo 0 >"$1/{HOST}/cgroup.procs"
for point in $(awk '$5 ~ "^{CGROUPS}(/|$)" {{ print $5 }}' /proc/self/mountinfo | tac); do
    umount "$point"
done
mount -t cgroup2 cgroup2 {CGROUPS}
"""
"""Shell: what the first process of the namespaces does, given the node's cgroup."""

ENTER: Final = 'mkdir -p "$0/host" && echo 0 >"$0/cgroup.procs" && exec "$@"'
"""Shell: run a command in a new cgroup, given first, and made before the namespace is."""

# runc refuses what it cannot write, and containerd's clients ask for shares of the processor. A
# machine that has given its controllers to version 1 has none left for version 2.
_WITHOUT_SHARES: Final = """#!/bin/sh
for word; do
    [ "$before" = --bundle ] && sed -i 's/"cpu":{{"shares":[0-9]*}}/"cpu":{{}}/' "$word/config.json"
    before=$word
done
exec {runc} "$@"
"""


def mounted() -> Path | None:
    """Say where the machine has version 2 mounted, if anywhere."""
    rows = [row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next((Path(row[4]) for row in rows if row[row.index("-") + 1] == "cgroup2"), None)


def place(name: str) -> Path:
    """Say where in the machine's version 2 a node of this name has its cgroup."""
    point = mounted()
    assert point is not None, "no cgroup version 2 is mounted on this machine"
    return point / name


def without_shares(directory: Path, first: Sequence[Path]) -> list[Path]:
    """Put a runc that asks for no shares before all others, where they cannot be given.

    Args:
        directory: To be made for it.
        first: Directories of programs that come before those in PATH.
    """
    if "cpu" in place("cgroup.subtree_control").read_text().split():
        return list(first)
    search = os.pathsep.join([*map(os.fspath, first), os.environ.get("PATH", ""), "/usr/sbin"])
    directory.mkdir()
    wrapper = directory / "runc"
    wrapper.write_text(_WITHOUT_SHARES.format(runc=shutil.which("runc", path=search)))
    wrapper.chmod(0o755)
    return [directory, *first]
