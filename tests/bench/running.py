"""A `run` in the background, timed from outside: when it is ready, what it holds, when it wakes."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.present.events import LogEvent
from tests.bench.figure import Cost, environment
from tests.bench.pile import Pile

_PATIENCE: Final = 60.0
_STEP: Final = 0.002
_CHUNK: Final = 1 << 20
_PARENT, _TIMES = 1, slice(11, 15)  # fields of /proc/PID/stat behind the name
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Running:
    """One `run` on a pile of so many dead bundles, until it knows all of them.

    Attributes:
        ready: What it took from the start of the program to its last verdict on the pile.
    """

    def __init__(self, pile: Pile, count: int) -> None:
        self._leftovers: set[str] = set()
        self._guarded = self._asked = False
        self._count = count
        # A file and not a pipe: the program rather drops lines than wait for a reader.
        self._log = os.memfd_create("log")
        began = time.monotonic()
        self._process = subprocess.Popen(
            pile.words("run", "-v"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment(),
        )
        try:
            self._wait(began + _PATIENCE)
        except BaseException:
            self.close()
            raise
        self.ready = Cost(time.monotonic() - began, self.cpu)

    def close(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_PATIENCE)
        os.close(self._log)

    @property
    def rss(self) -> int:
        """Bytes of memory the program itself holds, shared pages included."""
        return _rollup(self._process.pid)["Rss"]

    @property
    def pss(self) -> int:
        """Bytes that it and its workers hold together, shared pages counted once."""
        return sum(_rollup(pid)["Pss"] for pid in self._family())

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it and its workers have taken so far."""
        return sum(map(_cpu, self._family()))

    def wait_idle(self) -> None:
        """Wait until it takes no processor time any more."""
        deadline, before = time.monotonic() + _PATIENCE, -1.0
        while (now := self.cpu) != before:
            assert time.monotonic() < deadline, "it is busy all the time"
            before = now
            time.sleep(0.5)

    def wake_ups(self, seconds: float) -> int:
        """Count how often it, or a worker of its own, wakes in a time in which nothing happens."""
        before = self._switches()
        time.sleep(seconds)
        after = self._switches()
        return sum(after[pid] - count for pid, count in before.items() if pid in after)

    def wait_alone(self) -> None:
        """Wait until its idle workers have ended; the fork server, which makes them, stays."""
        deadline = time.monotonic() + _PATIENCE
        while len(self._family()) > 2:
            assert time.monotonic() < deadline, "its workers stay"
            time.sleep(0.1)

    def _family(self) -> list[int]:
        parents = dict(_parents())
        mine = [self._process.pid]
        for pid in mine:
            mine += [child for child, parent in parents.items() if parent == pid]
        return mine

    def _switches(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for pid in self._family():
            for task in Path(f"/proc/{pid}/task").iterdir():
                for line in (task / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        found[int(task.name)] = int(line.split()[1])
        return found

    def _wait(self, deadline: float) -> None:
        """Read the log until it tells that the whole pile is known."""
        at = 0
        while not self._knows_all():
            assert time.monotonic() < deadline, "it does not get ready"
            text = os.pread(self._log, _CHUNK, at)
            lines = text[: text.rfind(b"\n") + 1]
            if not lines:
                time.sleep(_STEP)
            at += len(lines)
            for line in lines.splitlines():
                self._receive(json.loads(line))

    def _receive(self, line: dict[str, object]) -> None:
        if line["event"] == LogEvent.BUNDLE_JUDGED.value and line["verdict"] == "leftover":
            self._leftovers.add(str(line["id"]))
        self._guarded |= line["event"] == LogEvent.GUARDS_CHECKED.value
        self._asked |= line["event"] == LogEvent.CONTAINERD_ASKED.value

    def _knows_all(self) -> bool:
        asked = self._asked or not self._count  # nobody is asked about an empty tree
        return self._guarded and asked and len(self._leftovers) >= self._count


@contextlib.contextmanager
def running(pile: Pile, count: int) -> Iterator[Running]:
    """Keep a `run` going that has seen the whole pile."""
    made = Running(pile, count)
    try:
        yield made
    finally:
        made.close()


def _rollup(pid: int) -> dict[str, int]:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(size) << 10 for name, size, _ in (row.split() for row in rows)}


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), int(_stat(int(name))[_PARENT])


def _cpu(pid: int) -> float:
    """Give the processor time of a process and of the children it has reaped, in seconds."""
    return sum(map(int, _stat(pid)[_TIMES])) / _TICKS


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
