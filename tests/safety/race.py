"""Race a remover against attackers who mount, unmount and swap while it works.

    python -m tests.safety.race                      20,000 mounts
    python -m tests.safety.race --mounts 0           until interrupted
    python -m tests.safety.race --remover rmtree     one that loses data; see `removers`

One process takes bundles apart, again and again. Others mount canaries on and below them (same
filesystem, other filesystem, directories and files), unmount them, swap entries for symlinks to
canaries, and exchange the whole bundle for a living one. They hold on to the bundle, so hiding it
does not shake them off. What a remover does to a canary or to the living bundle is a loss. All of
it happens in a private mount namespace.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from reconciler.worker.blocked import Blocked
from tests.safety.arena import VICTIMS, Arena
from tests.safety.attackers import EXCHANGES, MOUNTS, SWAPS, Attackers
from tests.safety.removers import REMOVERS, Job, Remover
from tests.support.mountns import MNT_DETACH, in_private_mounts, umount

EVERY_ATTACK = frozenset({"mount", "swap", "exchange"})
_LOOK_EVERY = 8
_AT_MOST = 4
"""So many times as long a slow machine may take."""


@dataclass
class Report:
    """What happened."""

    seed: int
    seconds: float = 0.0
    removed: int = 0
    blocked: dict[str, int] = field(default_factory=dict)
    mounts: int = 0
    swaps: int = 0
    exchanges: int = 0
    lost: list[Path] = field(default_factory=list)

    @override
    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(self.blocked.items()))
        return (
            f"{self.seconds:.1f} s, seed {self.seed}: {self.mounts} mounts, {self.swaps} symlink "
            f"swaps, {self.exchanges} exchanges against {self.removed} removals (blocked in "
            f"between: {reasons or 'never'}); lost: {', '.join(map(str, self.lost)) or 'nothing'}"
        )


def race(
    top: Path,
    remover: Remover,
    *,
    mounts: int,
    seconds: float,
    at_least: int = 0,
    attacks: frozenset[str] = EVERY_ATTACK,
    seed: int | None = None,
) -> Report:
    """Race until so many mounts were made or so much time has passed, or something is lost.

    With ``at_least`` so many mounts it goes on for longer where the machine is slow.

    The caller must have left the machine's mount namespace.
    """
    report = Report(seed=random.randrange(1 << 32) if seed is None else seed)  # noqa: S311 -- a seed
    arena = Arena(top)
    begin = time.monotonic()
    with Attackers(arena, attacks, report.seed) as attackers, suppress(KeyboardInterrupt):
        jobs = {name: arena.new_job(name) for name in VICTIMS}
        for number, name in enumerate(itertools.cycle(VICTIMS)):
            if _remove(remover, jobs[name], report):
                jobs[name] = arena.new_job(name)
            if number % _LOOK_EVERY == 0 and (
                arena.missing()
                or (made := attackers.done(MOUNTS)) >= mounts
                or (time.monotonic() - begin > seconds and made >= at_least)
                or time.monotonic() - begin > _AT_MOST * seconds
            ):
                break
    report.seconds = time.monotonic() - begin
    report.mounts = attackers.done(MOUNTS)
    report.swaps = attackers.done(SWAPS)
    report.exchanges = attackers.done(EXCHANGES)
    unmount_below(arena.top)  # a mount over a canary is not a loss
    report.lost = sorted(set(arena.lost()))
    return report


def _remove(remover: Remover, job: Job, report: Report) -> bool:
    try:
        if not remover(job):
            return False
    except (Blocked, OSError) as why:
        reason = why.reason.value if isinstance(why, Blocked) else str(why.strerror)
        report.blocked[reason] = report.blocked.get(reason, 0) + 1
        return False
    report.removed += 1
    return True


def unmount_below(top: Path) -> None:
    """Take off every mount below a directory; what is covered by another only after that."""
    below = os.fsencode(top) + b"/"
    while True:
        table = Path("/proc/self/mountinfo").read_bytes().splitlines()
        points = [point for line in table if (point := line.split(b" ")[4]).startswith(below)]
        if not points:
            return
        for point in points:
            with suppress(OSError):
                umount(point, MNT_DETACH)


def main() -> int:
    """Run one race as a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.race", description=__doc__)
    parser.add_argument("--mounts", type=int, default=20_000, help="0: until interrupted")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--remover", choices=REMOVERS, default="ours")
    asked = parser.parse_args()

    def run() -> Report:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return race(
            top,
            REMOVERS[asked.remover],
            mounts=asked.mounts or sys.maxsize,
            seconds=asked.seconds,
            seed=asked.seed,
        )

    # The directory is removed out here, where none of those mounts has ever been.
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child answers an interrupt by reporting
        report = in_private_mounts(run, timeout=threading.TIMEOUT_MAX)
    sys.stdout.write(f"{report}\n")
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
