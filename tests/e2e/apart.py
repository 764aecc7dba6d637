"""A place apart: a mount namespace with a /run of its own, held open by one small process.

Everything a node runs enters it through :meth:`Apart.command`; everything a test reads there goes
through :meth:`Apart.path`. It ends with the process that made it, also if that one is killed.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_MAKE: Final = "mount -t tmpfs -o size=256m,mode=755 tmpfs /run && echo made && exec cat"
"""`cat` ends with the pipe it reads, and so does the namespace once nobody else is in it."""

Word = str | bytes | Path


class Apart:
    """Holds a private mount namespace."""

    def __init__(self) -> None:
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", _MAKE]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"made\n":
            self.close()
            raise AssertionError("no mount namespace with its own /run could be made")
        self._name = os.readlink(f"/proc/{self.pid}/ns/mnt")

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

    def holds(self, pid: int) -> bool:
        """Whether a process lives in here; containers have mount namespaces of their own."""
        try:
            return os.readlink(f"/proc/{pid}/ns/mnt") == self._name
        except OSError:
            return False

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
