"""A place apart: a mount namespace with a /run of its own, held open by one small process.

It may have cgroup version 2 alone (`tests.e2e.unified`). Everything a node runs enters it through
:meth:`Apart.command`; everything a test reads there goes through :meth:`Apart.path`. It ends with
the process that made it, also if that one is killed, and then takes along whatever is inside
(`tests.e2e.warden`).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tests.e2e.belongings import Belongings
from tests.e2e.processes import Process
from tests.e2e.unified import HOST, place

REPOSITORY: Final = Path(__file__).resolve().parents[2]

Word = str | bytes | Path


class Apart:
    """Holds a private mount namespace.

    Args:
        name: Names what belongs to it, and ends with it should this process be killed.
        unified: Whether it has cgroup version 2 alone, whatever the machine has.

    Attributes:
        pid: Pid of the holder, which has no other business.
        belongings: Who and what is inside.
    """

    def __init__(self, name: str, *, unified: bool = False) -> None:
        wanted = ["unified"] if unified else []
        self._warden = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.warden", name, *wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.fspath(REPOSITORY)},
            start_new_session=True,  # Ctrl-C is for the tests
        )
        assert self._warden.stdout is not None
        said = self._warden.stdout.readline()
        if not said:
            self.close()
            Belongings(name, "", 0).disband()
            raise AssertionError("no mount namespace with its own /run could be made")
        self.pid = int(said)
        namespace = os.readlink(f"/proc/{self.pid}/ns/mnt")
        self.belongings = Belongings(name, namespace, self.pid)
        held = f"/proc/{self.pid}"
        # Its root, too: entering a mount namespace alone leads out of a chroot.
        self._entrance: list[Word] = ["nsenter", f"--mount={held}/ns/mnt", f"--root={held}/root"]
        if unified:
            procs = place(name) / HOST / "cgroup.procs"
            join: list[Word] = ["sh", "-c", 'echo 0 >"$0" && exec "$@"', procs]
            self._entrance = [*join, *self._entrance, f"--cgroup={held}/ns/cgroup"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def warden(self) -> int:
        """Pid of whoever clears up if this process cannot."""
        return self._warden.pid

    def close(self) -> None:
        """Let go; the mounts end with the last process inside."""
        self._warden.kill()
        self._warden.communicate()  # until the holder has ended too

    def path(self, inside: Word) -> Path:
        """Say under which name a path of the inside is seen from the outside."""
        return Path(f"/proc/{self.pid}/root{os.fsdecode(inside)}")

    def process(self, pid: int) -> Process:
        """Find a process by the pid it has inside."""
        return Process.at(pid)

    def mountinfo(self) -> list[str]:
        """List the mounts inside, one row each."""
        table = Path(f"/proc/{self.pid}/mountinfo").read_bytes()
        return [os.fsdecode(row) for row in table.splitlines()]

    def command(self, words: Sequence[Word]) -> list[Word]:
        """Make a command run inside. All that leads there replaces itself: the pid is its own."""
        return [*self._entrance, "--", *words]

    def run(
        self,
        *words: Word,
        env: dict[str, str] | None = None,
        timeout: float = 40,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end and capture what it says."""
        done = subprocess.run(
            self.command(words),
            capture_output=True,
            text=True,
            env=env,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stderr}"
        return done
