"""Kill a worker at each of its system calls, then run the program once: what is left, what is lost?

    python -m tests.safety.killing               at every call that changes or opens anything
    python -m tests.safety.killing --every       at every call whatsoever
    python -m tests.safety.killing --times 5     five workers at the same place, one after the other
    python -m tests.safety.killing --shard 1/2   the second half

A bundle is cleaned once under strace to learn which calls a cleanup makes and how often. Then for
the n-th call of each a bundle of its own is cleaned by a worker that is killed right there. In the
end one run of the program must have removed all of them, and nothing else may have changed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from reconciler.model.outcome import Result
from tests.safety import straced
from tests.safety.ground import NOW, Ground, ground
from tests.safety.working import KINDS, Work, left_of, working
from tests.support.bundles import Bundle
from tests.support.mountns import in_private_mounts

TRACES = 6
MISSES = 3
"""Cleans that were over before their n-th call, after which no later one of that call is tried."""


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        shard, of: Which part, of how many.
        every: At every call, not only at those that change or open something.
        times: Workers to kill at the same place, one after the other.
    """

    shard: int = 0
    of: int = 1
    every: bool = False
    times: int = 1


@dataclass
class Report:
    """What happened.

    Attributes:
        calls: How often a clean run of each kind makes each call.
        attempts: Places that were tried.
        killed: Workers killed.
        missed: How often a clean of each kind was over before its n-th such call.
        skipped: Places that were not tried, as the trace was of a longer clean.
        left: What the last run left of bundles it should have removed.
        lost: Canaries and live tasks that are not as they were.
    """

    calls: dict[str, dict[str, int]] = field(default_factory=dict)
    attempts: int = 0
    killed: int = 0
    missed: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: int = 0
    left: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def kill_at(work: Work, bundle: Bundle, call: str, number: int, *, again: bool) -> bool:
    """Clean with a worker that is killed at its n-th call; false if it made less of them.

    Args:
        work, bundle, call, number: What to clean, and where to kill.
        again: One was killed at it before, which may have come so far that its name is free.
    """
    inject = f"inject={call}:signal=KILL:when={number}"
    with straced.attached(await work.worker(), "-e", f"trace={call}", "-e", inject):
        outcome = await work.do(bundle)
    if outcome.result is Result.FAILED:
        assert "SIGKILL" in outcome.detail, outcome
        return True
    allowed = {Result.CLEANED, Result.SKIPPED} if again and _is_away(bundle) else {Result.CLEANED}
    assert outcome.result in allowed, outcome
    return False


def _is_away(bundle: Bundle) -> bool:
    return not os.path.lexists(bundle.path)


async def _undisturbed(work: Work, bundles: list[Bundle]) -> list[straced.Call]:
    """Give the calls of a clean by a worker as each kill has it: a new one.

    Whoever comes to the machine meanwhile makes the worker look once more; the shortest is taken.
    """
    traces = []
    for number in range(TRACES):
        to = work.on.site.base / f"trace-{number}"
        traces.append(await work.trace(await work.bundle(f"{work.kind}-traced-{number}"), to))
        bundles.append(await work.bundle(f"{work.kind}-killed-{number}"))
        assert await kill_at(work, bundles[-1], "pwrite64", 1, again=False)
    return min(traces, key=len)


async def _kill_everywhere(work: Work, report: Report, plan: Plan) -> list[Bundle]:
    bundles: list[Bundle] = []
    traced = await _undisturbed(work, bundles)
    wanted = straced.OPENING | straced.MUTATING
    counts = report.calls[work.kind] = {
        name: count
        for name, count in sorted(straced.counted(traced).items())
        if straced.injectable(name) and (plan.every or name in wanted)
    }
    places = [(name, n) for name, count in counts.items() for n in range(1, count + 1)]
    missed: Counter[str] = Counter()
    for call, number in places[plan.shard :: plan.of]:
        if missed[call] == MISSES:
            report.skipped += 1
            continue
        bundle = await work.bundle(f"{work.kind}-{call}-{number}")
        bundles.append(bundle)
        report.attempts += 1
        for time in range(plan.times):
            if not await kill_at(work, bundle, call, number, again=time > 0):
                if time == 0:
                    missed[call] += 1
                break
            report.killed += 1
    report.missed[work.kind] = dict(missed)
    return bundles


async def _work(on: Ground, report: Report, plan: Plan) -> list[Bundle]:
    bundles = []
    for kind in KINDS:
        async with working(on, kind) as work:
            bundles += await _kill_everywhere(work, report, plan)
    return bundles


def kill(base: Path, plan: Plan) -> Report:
    """Kill at each place of a shard, run the program once, and look. In private mounts only."""
    straced.needed()
    report = Report()
    with ground(base) as on:
        bundles = anyio.run(_work, on, report, plan)
        ran = on.run("clean", *NOW, seconds=300)
        if ran.code != 0:
            report.left.append(f"exit {ran.code}: {ran.err}")
        left = left_of(on, bundles)
        report.left += [*left, ran.out] if left else []  # what it said of them tells why
        report.lost = on.harm()
    return report


def main() -> int:
    """Run one shard and write its report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.killing", description=__doc__)
    parser.add_argument("--every", action="store_true", help="at every call whatsoever")
    parser.add_argument("--times", type=int, default=1, help="workers killed at the same place")
    parser.add_argument("--shard", default="0/1", help="which part, of how many")
    asked = parser.parse_args()
    shard, of = (int(word) for word in asked.shard.split("/"))
    plan = Plan(shard, of, asked.every, asked.times)
    # The directory is removed out here, where none of those mounts has ever been.
    with tempfile.TemporaryDirectory() as name:
        report = in_private_mounts(lambda: kill(Path(name), plan), timeout=3600)
    sys.stdout.write(json.dumps(asdict(report)) + os.linesep)
    return 1 if report.left or report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
