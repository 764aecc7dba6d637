"""A cold scan of complete dead bundles, beside the `find` that operators use."""

import json
import os
import statistics
from collections.abc import Iterator
from functools import partial

from tests.bench import floor
from tests.bench.figure import US, Cost, Plan, Row, middle, several, spend, times
from tests.bench.pile import Pile, with_pile

_SIZES = (1_000, 10_000)
_LARGE = 100_000


def measure(plan: Plan) -> Iterator[Row]:
    """One row for each size, one for how flat the cost of a bundle is."""
    each: dict[int, Cost] = {}
    for size in (*_SIZES, _LARGE) if plan.large else _SIZES:
        rounds = plan.rounds if size < _LARGE else 1
        empty, ours, peer, bare = with_pile(partial(_compare, size=size, rounds=rounds))
        each[size] = ours.less(empty, size)
        yield Row(
            f"cold scan of {size:,} dead bundles, all evidence, per bundle",
            f"{_say(ours.each(size))}; {each[size].cpu * US:.0f} us CPU without the start",
            f"`find -mtime +7 -ls`: {_say(peer.each(size))}",
            f"{times(peer.wall, ours.wall)} ({times(peer.cpu, ours.cpu)} CPU)",
            "1" if size == _SIZES[1] else "",
            (
                f"A scan of {size:,} bundles: {ours.wall:.2f} s, {ours.cpu:.2f} s CPU of all its "
                f"processes, at most {ours.peak >> 20} MiB in one; start and end are "
                f"{empty.wall:.2f} s, {empty.cpu:.2f} s CPU of it. `find`: {peer.wall:.2f} s, "
                f"{peer.peak >> 20} MiB.",
            ),
            {
                "cpu_us": each[size].cpu * US,
                "wall_us": ours.wall / size * US,
                "find_wall_us": peer.wall / size * US,
                "mib": ours.peak / (1 << 20),
            },
        )
        yield Row(
            f"the system calls of looks at {size:,} dead bundles alone, per bundle",
            f"{bare * US:.0f} us CPU",
            f"a scan: {each[size].cpu * US:.0f} us CPU",
            times(each[size].cpu, bare),
            "2",
            values={"cpu_us": bare * US},
        )
    first, last = min(each), max(each)
    flat = each[last].cpu / each[first].cpu
    yield Row(f"CPU of a bundle at {last:,} over that at {first:,}", f"{flat:.2f}", design="1")


def _say(cost: Cost) -> str:
    return f"{cost.cpu * US:.0f} us CPU, {cost.wall * US:.0f} us wall"


def _compare(pile: Pile, size: int, rounds: int) -> tuple[Cost, Cost, Cost, float]:
    scan = pile.words("scan", "-o", "json", "-q")
    empty = middle(several(rounds, lambda: spend(scan)[0]))
    made = pile.heap(size)
    find = ["find", os.fspath(pile.tree), "-name", "*.json", "-mtime", "+7", "-ls"]
    ours, peer, bare = [], [], []
    for _ in range(rounds):
        cost, said = spend(find)
        assert said.count(b"\n") == 3 * size, "find saw something else"
        peer.append(cost)
        cost, said = spend(scan)
        assert json.loads(said)["summary"]["leftovers"] == size, "scan saw something else"
        ours.append(cost)
        bare.append(floor.scan(pile, made) / size)
    return empty, middle(ours), middle(peer), statistics.median(bare)
