"""Processes of the demo: real ones, which end by themselves when the demo ends, however it ends.

Each reads from a pipe whose other end only this process holds: if we are killed, they read the end
of it and are gone. A session of their own keeps Ctrl-C from reaching them before us.
"""

import contextlib
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

_WAIT: Final = 5.0
_SHIM: Final = "containerd-shim-runc-v2"

_LIVE: Final = 'printf %.15s "$NAME" >/proc/$$/comm; echo; exec >&-; read _'
"""Take the short name that being executed under that name would have given, and live."""


class Process:
    """One child process."""

    def __init__(
        self, args: Sequence[str], listener: socket.socket | None = None, cwd: bytes = b"/"
    ) -> None:
        """Start it; return once it has its name.

        Args:
            args: Its command line as others see it: the name, then arguments nothing reads.
            listener: A socket it inherits, and nothing else of ours.
            cwd: The directory it works in.
        """
        self._child = subprocess.Popen(
            [args[0], "-c", _LIVE, *args[1:]],
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=() if listener is None else (listener.fileno(),),
            start_new_session=True,
            cwd=cwd,
            env={"NAME": args[0]},
        )
        if self._child.stdout is not None:
            with self._child.stdout as said:
                said.readline()

    @property
    def pid(self) -> int:
        """Its pid; ours until :meth:`end` has returned."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    @property
    def start_ticks(self) -> int:
        """When it started, as field 22 of /proc/PID/stat has it, and runc's state with it."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self._child.kill()
        self._child.wait(_WAIT)
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()


class Processes:
    """All processes of a demo; a context manager that ends every one it started."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.end()

    @property
    def living(self) -> list[Process]:
        """Those that still run."""
        return [process for process in self._all if process.alive]

    def init(self, name: str) -> Process:
        """Start something to be a container's init."""
        return self._started(Process([name]))

    def shim(self, namespace: str, group: str, address: str, path: bytes, bundle: bytes) -> Process:
        """Start something that looks like a shim, in its bundle, with its socket at ``path``."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(128)
            return self._started(
                Process(
                    [_SHIM, "-namespace", namespace, "-id", group, "-address", address],
                    listener,
                    bundle,
                )
            )

    def _started(self, process: Process) -> Process:
        self._all.append(process)
        return process
