"""Has a node's namespaces held, and ends the node should the test run be killed.

Runs as `python -m tests.e2e.warden NAME [unified]`. A process of its own holds a new mount
namespace with a /run of its own (and cgroup version 2 alone, if told so), says which pid it has,
and waits for the end of its standard input, which the warden holds. A node that is closed kills its
warden; one whose test run was killed is cleared up here, from outside.
"""

import os
import subprocess
import sys

from tests.e2e import unified
from tests.e2e.belongings import Belongings

_RUN = "mount -t tmpfs -o size=256m,mode=755 tmpfs /run"
_HOLD = "echo $$; exec cat"


def main(name: str, *wanted: str) -> None:
    command, place = ["unshare", "-m"], ""
    script = [_RUN, _HOLD]
    if wanted:
        place = os.fspath(unified.place(name))
        command = ["sh", "-ec", unified.ENTER, place, *command, "-C"]
        script = [_RUN, unified.MOUNT, _HOLD]
    shell = ["sh", "-ec", "\n".join(script), name, place]
    with subprocess.Popen(
        [*command, "--propagation", "private", *shell], stdin=subprocess.PIPE
    ) as holder:
        os.close(sys.stdout.fileno())  # the holder's alone: its end is seen, should it fail
        sys.stdin.read()
        orphaned = Belongings(name, os.readlink(f"/proc/{holder.pid}/ns/mnt"), holder.pid)
        orphaned.end()
    orphaned.disband()


if __name__ == "__main__":
    main(*sys.argv[1:])
