"""Cleaning: a real pile beside containerd's own restart, and a made-up one step by step."""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.bench import floor
from tests.bench.figure import MS, Cost, Plan, Row, middle, several, spend, times
from tests.bench.pile import Pile, with_pile
from tests.e2e import product
from tests.e2e.node import Node

_MADE_UP = 300


def measure(plan: Plan) -> Iterator[Row]:
    """The real pile, then the made-up one, and what its removal takes at the least."""
    yield _real(plan)
    yield _steps(plan)
    bare = statistics.median(several(plan.rounds, lambda: with_pile(_floor)))
    yield Row(
        f"the removal of {_MADE_UP} made-up bundles alone, each",
        f"{bare * MS:.2f} ms CPU",
        values={"cpu_ms": bare * MS},
    )


def _floor(pile: Pile) -> float:
    made = pile.heap(_MADE_UP, mounted=True, cgroups=True)
    took = floor.clean(made)
    assert not [path for bundle in made for path in bundle.left()], "the floor left something"
    return took / _MADE_UP


# ------------------------------------------------------------------------------- a real pile


def _real(plan: Plan) -> Row:
    """Both are measured on equal piles, less what they take where there is nothing to do."""
    with tempfile.TemporaryDirectory() as directory, Node(Path(directory)) as node:
        node.run("keeper")  # the guards compare with a living shim while containerd is down
        idle = [(_restart(node), _clean(node, 0)) for _ in range(plan.rounds)]
        theirs, ours = [], []
        for number in range(plan.rounds):
            _crash(node, plan.pile, f"theirs{number}")
            theirs.append(_restart(node))
            assert _left(node) == ["keeper"], "containerd left something"
            _crash(node, plan.pile, f"ours{number}")
            ours.append(_clean(node, plan.pile))
            assert _left(node) == ["keeper"], "clean left something"
            node.containerd.start()
    start_up = middle(one for _, one in idle)
    peer = middle(theirs).less(middle(one for one, _ in idle), plan.pile)
    mine = middle(ours).less(start_up, plan.pile)
    whole = middle(ours).each(plan.pile)
    return Row(
        f"clean {plan.pile} real dead bundles, each",
        f"{mine.wall * MS:.2f} ms ({mine.cpu * MS:.2f} ms CPU)",
        f"containerd's restart: {peer.wall * MS:.1f} ms",
        times(peer.wall, mine.wall),
        "20",
        (
            f"Cleaning: start and end of either program are taken off; with ours "
            f"({start_up.wall:.2f} s, {start_up.cpu:.2f} s CPU) in this pile it is "
            f"{whole.wall * MS:.1f} ms a bundle.",
        ),
        {"wall_ms": mine.wall * MS, "cpu_ms": mine.cpu * MS, "containerd_ms": peer.wall * MS},
    )


def _crash(node: Node, count: int, name: str) -> None:
    tasks = [node.run(f"{name}-{number}") for number in range(count)]
    node.crash(*tasks)


def _restart(node: Node) -> Cost:
    node.containerd.kill()
    began = time.monotonic()
    node.containerd.start()
    return Cost(time.monotonic() - began, 0.0)


def _clean(node: Node, count: int) -> Cost:
    node.containerd.kill()
    words = product.words(node, "clean", "-q", "-o", "json", *product.NOW)
    cost, said = spend(node.apart.command(words))
    results = json.loads(said)["results"]
    assert [one["result"] for one in results] == ["cleaned"] * count, results
    if not count:
        node.containerd.start()
    return cost


def _left(node: Node) -> list[str]:
    return sorted(path.name for path in node.bundle("keeper").parent.iterdir())


# --------------------------------------------------------------------------- a made-up pile


def _steps(plan: Plan) -> Row:
    both = [with_pile(_clean_made_up) for _ in range(plan.rounds)]
    cost = middle(one for one, _ in both)
    steps: dict[str, list[float]] = defaultdict(list)
    for _, found in both:
        for step, seconds in found.items():
            steps[step].append(seconds)
    shares = ", ".join(f"{name} {sorted(of)[len(of) // 2] * MS:.2f}" for name, of in steps.items())
    return Row(
        f"clean {_MADE_UP} made-up bundles (overlay, cgroups, runc state, socket), each",
        f"{cost.wall * MS:.2f} ms ({cost.cpu * MS:.2f} ms CPU)",
        notes=(f"Wall time of each step of a made-up bundle, eight at a time, in ms: {shares}.",),
        values={"wall_ms": cost.wall * MS, "cpu_ms": cost.cpu * MS},
    )


def _clean_made_up(pile: Pile) -> tuple[Cost, dict[str, float]]:
    words = pile.words("clean", "-q", "-o", "json", *product.NOW)
    empty = middle(several(3, lambda: spend(words)[0]))
    made = pile.heap(_MADE_UP, mounted=True, cgroups=True)
    cost, said = spend(words)
    results = json.loads(said)["results"]
    assert [one["result"] for one in results] == ["cleaned"] * _MADE_UP, results[0]
    left = [path for bundle in made for path in bundle.left()]
    # Where a shim of anybody's works in no tree of a containerd, groups stay: it may have the name.
    kept = {
        step["detail"] for one in results for step in one["steps"] if step["result"] == "warning"
    }
    assert not left, f"clean left something: {sorted(kept)[:5]}"
    steps: dict[str, float] = defaultdict(float)
    for one in results:
        for step in one["steps"]:
            steps[step["step"]] += step["seconds"] / _MADE_UP
    return cost.less(empty, _MADE_UP), dict(steps)
