"""A place apart: a mount namespace with a /run of its own, held open by one small process.

Everything a node runs enters it through :meth:`Apart.command`; everything a test reads there goes
through :meth:`Apart.path`. It ends with the process that made it, also if that one is killed, and
then takes along whatever is inside (`tests.e2e.warden`).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e.belongings import Belongings

REPOSITORY: Final = Path(__file__).resolve().parents[2]

Word = str | bytes | Path


class Apart:
    """Holds a private mount namespace.

    Args:
        name: Names what belongs to it, and ends with it should this process be killed.
    """

    def __init__(self, name: str) -> None:
        command = ["unshare", "-m", "--propagation", "private"]
        self._holder = subprocess.Popen(
            [*command, sys.executable, "-m", "tests.e2e.warden", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.fspath(REPOSITORY)},
            start_new_session=True,  # Ctrl-C is for the tests
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"made\n":
            self.close()
            raise AssertionError("no mount namespace with its own /run could be made")
        namespace = os.readlink(f"/proc/{self.pid}/ns/mnt")
        self.belongings = Belongings(name, namespace, self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Pid of the holder, which is in no cgroup of the node and has no other business."""
        return self._holder.pid

    def close(self) -> None:
        """Let go; the mounts end with the last process inside."""
        self._holder.kill()
        self._holder.communicate()

    def path(self, inside: Word) -> Path:
        """Say under which name a path of the inside is seen from the outside."""
        return Path(f"/proc/{self.pid}/root{os.fsdecode(inside)}")

    def mountinfo(self) -> list[str]:
        """List the mounts inside, one row each."""
        table = Path(f"/proc/{self.pid}/mountinfo").read_bytes()
        return [os.fsdecode(row) for row in table.splitlines()]

    def command(self, words: Sequence[Word]) -> list[Word]:
        """Make a command run inside. `nsenter` replaces itself: the pid is the command's own."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *words]

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
