"""Very many dead sockets, FIFO directories and cgroups: an inventory of all, and their removal."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from reconciler.clock import SystemClock
from reconciler.model.debris import DebrisKind, Place
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.outcome import Result
from reconciler.worker.context import WorkerContext
from reconciler.worker.debris import clean
from reconciler.worker.inventory import take
from reconciler.worker.messages import DebrisJob, WorkerScope
from tests.bench.figure import MS, Plan, Row, several
from tests.bench.pile import Pile, with_pile
from tests.support.bundles import CGROUPS, new_mark, remove_cgroups, top_cgroup

_SIZE: Final = 10_000
_BATCH: Final = 50
_REMOVED: Final = 200
_TRIES: Final = 50
_KINDS: Final = (DebrisKind.CGROUP, DebrisKind.SHIM_SOCKET, DebrisKind.FIFO_DIR)
"""Groups first: a socket shows that the one of its name was a container's."""


class _Spent(NamedTuple):
    """Seconds of processor time: an inventory, and the removal of one place of each kind."""

    inventory: float
    each: dict[DebrisKind, float]


def measure(plan: Plan) -> Iterator[Row]:
    """One row for the inventory, one for the removal."""
    spent = with_pile(partial(_spend, rounds=plan.rounds))
    yield Row(
        f"an inventory of {_SIZE:,} dead sockets, FIFO directories and cgroups each",
        f"{spent.inventory:.2f} s CPU",
        design="1 s CPU",
    )
    each = ", ".join(f"{kind.value} {cpu * MS:.1f} ms" for kind, cpu in spent.each.items())
    yield Row(f"their removal, in batches of {_BATCH}, each", f"{each} CPU")


def _spend(pile: Pile, rounds: int) -> _Spent:
    name = top_cgroup(new_mark())
    try:
        _leave(pile, name)
        context = WorkerContext(
            WorkerScope(pile.layout), SystemClock(), lambda _: None, lambda: "", lambda: False
        )
        inventory = sorted(several(rounds, lambda: _cpu(lambda: take(context))))[rounds // 2]
        return _Spent(inventory, {kind: _remove(context, kind) for kind in _KINDS})
    finally:
        remove_cgroups(name)


def _leave(pile: Pile, name: str) -> None:
    sockets, fifos = (Path(os.fsdecode(one)) for one in (pile.layout.sockets, pile.layout.fifos))
    for directory in (sockets, fifos, Path(os.fsdecode(pile.layout.tasks)) / name):
        directory.mkdir(parents=True, exist_ok=True)
    group = min(CGROUPS.iterdir()) / name
    handle = os.open(sockets, os.O_PATH)
    for number in range(_SIZE):
        with socket.socket(socket.AF_UNIX) as dead:
            path = Path(os.fsdecode(pile.layout.shim_socket(name, f"c{number}")))
            dead.bind(f"/proc/self/fd/{handle}/{path.name}")
        own = fifos / str(10**9 + number)
        own.mkdir()
        for end in ("stdin", "stdout", "stderr"):
            os.mkfifo(own / f"c{number}-{end}")
        (group / f"c{number}").mkdir(parents=True)
    os.close(handle)


def _remove(context: WorkerContext, kind: DebrisKind) -> float:
    places: tuple[Place, ...] = ()
    for _ in range(_TRIES):  # a shim of whoever that ends just now leaves it open who owns what
        places = tuple(one for one in take(context).places if _is_dead(one, kind))
        if len(places) >= _REMOVED:
            break
    assert len(places) >= _REMOVED
    places = places[:_REMOVED]

    def remove() -> None:
        for first in range(0, len(places), _BATCH):
            _clean(context, places[first : first + _BATCH])

    return _cpu(remove) / len(places)


def _is_dead(place: Place, kind: DebrisKind) -> bool:
    return place.key.kind is kind and (place.lives, place.owned) == (Answer.NO, Answer.NO)


def _clean(context: WorkerContext, places: tuple[Place, ...]) -> None:
    results = clean(context, DebrisJob(places, Containerd(ContainerdState.DOWN)))
    assert {one.result for one in results} == {Result.CLEANED}, results


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
