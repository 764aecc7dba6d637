"""What a figure is made of: what it cost, a row of the table, and how much to measure."""

import ast
import contextlib
import ctypes
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

MS: Final = 1e3
US: Final = 1e6
_PR_SET_CHILD_SUBREAPER: Final = 36
REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: Measurements of which the median is told.
        pile: Bundles of a real pile.
        large: Also what takes minutes.
    """

    rounds: int = 3
    pile: int = 40
    large: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; what there is nothing to say about stays empty.

    Attributes:
        work: What was done.
        ours, peer: What it took us, and who else does it and what it took them.
        ratio: Peer over ours: above one we are faster.
        design: The figure to design for.
        notes: Lines below the table.
        values: The figures as numbers, by name, for who plots or compares them.
    """

    work: str
    ours: str
    peer: str = ""
    ratio: str = ""
    design: str = ""
    notes: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took, its children included.

    Attributes:
        wall: Seconds on the clock; other people's work is in it.
        cpu: Seconds of processor time, the kernel's included.
        peak: Most memory a single process of it held, in bytes.
    """

    wall: float
    cpu: float
    peak: int = 0

    def less(self, other: "Cost", share: int) -> "Cost":
        """Take away what it costs anyway and give what is left for each of so many."""
        return Cost((self.wall - other.wall) / share, (self.cpu - other.cpu) / share)

    def each(self, share: int) -> "Cost":
        """Give the part of each of so many."""
        return Cost(self.wall / share, self.cpu / share)


def middle(costs: Iterable[Cost]) -> Cost:
    """Give the medians."""
    walls, cpus, peaks = zip(*((one.wall, one.cpu, one.peak) for one in costs), strict=True)
    return Cost(statistics.median(walls), statistics.median(cpus), int(statistics.median(peaks)))


def environment() -> dict[str, str]:
    """The environment an operator has: this checkout, its byte code kept."""
    other = {"CONTAINERD_ADDRESS", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in other}
    return {**kept, "PYTHONPATH": os.fspath(REPOSITORY)}


def spend(words: Sequence[str | bytes | Path]) -> tuple[Cost, bytes]:
    """Run a command to its end; give what it took and what it printed on standard output."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ours, theirs = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            with contextlib.suppress(OSError):
                os.write(theirs, repr(_keep(words, out.fileno(), err.fileno())).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as told:
            said = told.read()
        os.waitpid(keeper, 0)
        code, wall, cpu, peak = ast.literal_eval(said)
        out.seek(0)
        err.seek(0)
        assert code == 0, f"{words}: {code}\n{err.read()!r}"
        return Cost(wall, cpu, peak << 10), out.read()


def _keep(words: Sequence[str | bytes | Path], out: int, err: int) -> tuple[int, float, float, int]:
    """Run a command, and take in the children it leaves behind, which have used processors, too.

    In a process of its own, so that all it has ever waited for is this command's.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment()
    )
    code = process.wait()
    wall = time.monotonic() - began
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, wall, used.ru_utime + used.ru_stime, used.ru_maxrss


def several(rounds: int, once: Callable[[], T]) -> list[T]:
    """Do it so many times."""
    return [once() for _ in range(rounds)]


def percentile(values: Iterable[float], share: float) -> float:
    """Give the value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def times(peer: float, ours: float) -> str:
    """Say how many times less ours is."""
    return f"{peer / ours:.1f}"


def table(rows: Iterable[Row]) -> str:
    """Give the rows as a Markdown table."""
    lines = ["| work | ours | peer | peer / ours | design |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.work, row.ours, row.peer or "-", row.ratio or "-", row.design or "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
