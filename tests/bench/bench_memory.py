"""Memory of a `run` that watches piles of several sizes, and how often it wakes for nothing."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from tests.bench.figure import Plan, Row
from tests.bench.pile import Pile, with_pile
from tests.bench.running import running

_SIZES = (1_000, 10_000)
_IDLE_SECONDS = 15.0
_MIB = 1 << 20
_KIB = 1 << 10


class _Held(NamedTuple):
    rss: float
    pss: float
    wake_ups: float


def measure(plan: Plan) -> Iterator[Row]:
    """What it holds at each size, what a further bundle adds, and how quiet it is."""
    sizes = (0, *_SIZES) if plan.large else _SIZES
    held = {size: with_pile(partial(_hold, size=size, rounds=plan.rounds)) for size in sizes}
    for size, one in held.items():
        yield Row(
            f"memory of `run` at {size:,} bundles",
            f"{one.rss / _MIB:.1f} MiB RSS, {one.pss / _MIB:.1f} MiB PSS with its fork server",
            design="45 MiB with endpoints" if size == _SIZES[0] else "",
            values={"rss_mib": one.rss / _MIB, "pss_mib": one.pss / _MIB},
        )
    few, many = _SIZES
    each = (held[many].rss - held[few].rss) / (many - few)
    yield Row(
        "memory of each further bundle",
        f"{each / _KIB:.2f} KiB",
        design="1.5 KiB",
        values={"kib": each / _KIB},
    )
    yield Row(
        f"wake-ups a minute at {many:,} bundles while nothing changes",
        f"{held[many].wake_ups:.0f}",
        design="0",
    )


def _hold(pile: Pile, size: int, rounds: int) -> _Held:
    pile.heap(size)
    found: list[_Held] = []
    for number in range(rounds):
        with running(pile, size) as one:
            one.wait_alone()
            wakes = 0.0
            if number == 0:  # nothing happens then, for however long
                wakes = one.wake_ups(_IDLE_SECONDS) * 60.0 / _IDLE_SECONDS
            found.append(_Held(one.rss, one.pss, wakes))
    middle = _Held(*(statistics.median(values) for values in zip(*found, strict=True)))
    return middle._replace(wake_ups=found[0].wake_ups)
