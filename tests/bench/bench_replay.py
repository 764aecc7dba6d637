"""Replaying the journal of a scan as a command, and that of a busy node stage by stage."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.journal.lines import Given
from reconciler.journal.reader import Journal
from reconciler.journal.replay import Repeater
from reconciler.model.policy import Brakes, Policies, Policy
from reconciler.testing.journals import JournalBuilder
from tests.bench import floor
from tests.bench.figure import Cost, Plan, Row, middle, several, spend
from tests.bench.pile import Pile, with_pile

_BUNDLES = 5_000
_TASKS = 500
_LIVING = 30
_DESIGN = "100,000 a second"


def measure(plan: Plan) -> Iterator[Row]:
    """A scan's journal, then a busy node's: its lines alone, decoded, and decided again."""
    cost, count = with_pile(partial(_replay, rounds=plan.rounds))
    yield Row(
        f"replay of the {count:,} observations of a scan",
        f"{count / cost.cpu:,.0f} a CPU second",
        design=_DESIGN,
        values={"a_second": count / cost.cpu},
    )
    yield from _busy(plan.rounds)


def _busy(rounds: int) -> Iterator[Row]:
    """Decode, then decode and decide again, the journal of a node where tasks come and go."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "busy.jsonl")
        _record(path)
        bare = _pace(rounds, lambda: floor.decode(path))
        decoding = _pace(rounds, lambda: _decoded(path))
        deciding = _pace(rounds, lambda: _decided(path))
        each = path.stat().st_size / _decoded(path)
    yield Row(
        "a busy node's journal, its lines decoded to plain values",
        f"{bare:,.0f} a CPU second",
        values={"a_second": bare},
    )
    yield Row(
        f"decoding a busy node's journal, {each:.0f} bytes an observation",
        f"{decoding:,.0f} a CPU second",
        values={"a_second": decoding, "bytes": each},
    )
    yield Row(
        "the same, decided again",
        f"{deciding:,.0f} a CPU second",
        design=_DESIGN,
        values={"a_second": deciding},
    )


def _record(path: Path) -> None:
    """Every other second a task starts, and an older one ends: in order, or, one of five, not."""
    policies = Policies(Policy(enforce=True, grace=60.0), brakes=Brakes(mass_deaths=_TASKS))
    names = [f"k8s.io/{number:064x}" for number in range(_TASKS)]
    with JournalBuilder(path, policies) as node:
        for number, name in enumerate(names):
            node.start(name)
            node.wait("2s")
            if number < _LIVING:
                continue
            old = names[number - _LIVING]
            if number % 5 == 0:
                node.crash(old)
            else:
                node.stop(old)
                node.delete(old)


def _pace(rounds: int, once: Callable[[], int]) -> float:
    """Observations a CPU second, the median of some rounds."""
    paces = []
    for _ in range(rounds):
        began = time.process_time()
        count = once()
        paces.append(count / (time.process_time() - began))
    return statistics.median(paces)


def _decoded(path: Path) -> int:
    items = Journal(path, print).items()
    return sum(isinstance(item, Given) and item.observation is not None for item in items)


def _decided(path: Path) -> int:
    """Decide again; a replay that differs would measure something else."""
    count = 0
    for turn in Repeater().play(Journal(path, print).items()):
        assert turn.recorded == turn.replayed
        count += turn.observation is not None
    return count


def _replay(pile: Pile, rounds: int) -> tuple[Cost, int]:
    """Replay a short journal and a long one; the difference is what observations cost."""
    few, _ = _journal(pile, "few")
    pile.heap(_BUNDLES)
    many, count = _journal(pile, "many")
    costs = []
    for journal in (few, many):
        words = pile.words("-q", "replay", str(journal))
        costs.append(middle(several(rounds, partial(_spend, words))))
    return costs[1].less(costs[0], 1), count


def _journal(pile: Pile, name: str) -> tuple[Path, int]:
    """Record a scan; give the journal and how many looks are in it."""
    _, said = spend(pile.words("-q", "scan", "-o", "journal"))
    journal = pile.base / name
    journal.write_bytes(said)
    return journal, said.count(b"\n")


def _spend(words: list[str | bytes | Path]) -> Cost:
    return spend(words)[0]
