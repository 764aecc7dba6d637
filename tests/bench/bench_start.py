"""How long an operator waits: for the version, and for a `run` to know every bundle."""

import sys
from collections.abc import Iterator
from functools import partial

from tests.bench.figure import MS, Cost, Plan, Row, middle, several, spend
from tests.bench.pile import Pile, with_pile
from tests.bench.running import running

_BUNDLES = 1_000


def measure(plan: Plan) -> Iterator[Row]:
    """The version, less and with Python's own start; then a run."""
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
    )
    ready = with_pile(partial(_start, rounds=plan.rounds))
    yield Row(
        f"from start to ready, {_BUNDLES:,} bundles judged and logged",
        f"{ready.wall:.2f} s ({ready.cpu:.2f} s CPU)",
        design="0.6 s",
    )


def _start(pile: Pile, rounds: int) -> Cost:
    pile.heap(_BUNDLES)
    ready = []
    for _ in range(rounds):
        with running(pile, _BUNDLES) as one:
            ready.append(one.ready)
    return middle(ready)
