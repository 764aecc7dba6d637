"""How long an operator waits: for the version, a small `scan`, and a `run` to know every bundle."""

import sys
from collections.abc import Iterator
from functools import partial

from tests.bench.figure import MS, Cost, Plan, Row, middle, several, spend
from tests.bench.pile import Pile, with_pile
from tests.bench.running import running

_BUNDLES = 1_000
_FEW = 10


def measure(plan: Plan) -> Iterator[Row]:
    """The version and a small scan beside Python's own start; then a run."""
    times = 4 * plan.rounds
    ours = middle(
        several(times, lambda: spend([sys.executable, "-m", "reconciler", "--version"])[0])
    )
    python = middle(several(times, lambda: spend([sys.executable, "-c", "pass"])[0]))
    yield Row(
        "`--version`",
        f"{ours.wall * MS:.0f} ms ({ours.cpu * MS:.0f} ms CPU)",
        f"`python -c pass`: {python.wall * MS:.0f} ms ({python.cpu * MS:.0f} ms CPU)",
        f"{python.cpu / ours.cpu:.2f} (CPU)",
        "80 ms",
        values={"wall_s": ours.wall, "cpu_s": ours.cpu},
    )
    small = with_pile(partial(_scan, times=times))
    yield Row(
        f"`scan` of {_FEW} dead bundles",
        f"{small.wall:.2f} s ({small.cpu:.2f} s CPU)",
        design="0.22 s",
        values={"wall_s": small.wall, "cpu_s": small.cpu},
    )
    ready = with_pile(partial(_start, rounds=plan.rounds))
    yield Row(
        f"from start to ready, {_BUNDLES:,} bundles judged and logged",
        f"{ready.wall:.2f} s ({ready.cpu:.2f} s CPU)",
        design="0.6 s",
        values={"wall_s": ready.wall, "cpu_s": ready.cpu},
    )


def _scan(pile: Pile, times: int) -> Cost:
    pile.heap(_FEW)
    return middle(several(times, lambda: spend(pile.words("scan"))[0]))


def _start(pile: Pile, rounds: int) -> Cost:
    pile.heap(_BUNDLES)
    ready = []
    for _ in range(rounds):
        with running(pile, _BUNDLES) as one:
            ready.append(one.ready)
    return middle(ready)
