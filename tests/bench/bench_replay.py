"""Replaying the journal of a scan: the engine's own pace, reading and comparing included."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.figure import Cost, Plan, Row, middle, several, spend
from tests.bench.pile import Pile, with_pile

_BUNDLES = 5_000


def measure(plan: Plan) -> Iterator[Row]:
    """One row."""
    cost, count = with_pile(partial(_replay, rounds=plan.rounds))
    yield Row(
        f"replay of {count:,} observations",
        f"{count / cost.cpu:,.0f} a CPU second",
        design="100,000 a second",
    )


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
