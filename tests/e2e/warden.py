"""Holds a node's mount namespace, and ends the node should the test run be killed.

Runs as `python -m tests.e2e.warden NAME` in a new mount namespace; gives it a /run of its own, says
so, and waits for the end of its standard input. A node that is closed kills its warden; one whose
test run was killed is cleared up here.
"""

import os
import subprocess
import sys

from tests.e2e.belongings import Belongings


def main(name: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m,mode=755", "tmpfs", "/run"], check=True
    )
    sys.stdout.write("made\n")
    sys.stdout.flush()
    sys.stdin.read()
    orphaned = Belongings(name, os.readlink("/proc/self/ns/mnt"), os.getpid())
    orphaned.end()
    orphaned.disband()


if __name__ == "__main__":
    main(sys.argv[1])
