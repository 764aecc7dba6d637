"""Shims that are alive and answer nobody: named, left alone, and in nobody's way."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import Process
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

SOON: Final = 20.0
"""Seconds in which a node with wedged shims is cleaned; containerd's list alone takes six."""

SAYS: Final = "the shim gives containerd no answer"
ENFORCE: Final = ("--enforce", "--grace", "1s", "--threshold", "0s")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose containerd waits for a shim as long as it does where nothing is configured."""
    with Node(tmp_path, patience="2s") as made:
        yield made


def one_pod(node: Node) -> list[Task]:
    return [node.run(name, pod="pod") for name in ("pod", "member", "second")]


@contextlib.contextmanager
def wedged(tasks: Sequence[Task]) -> Iterator[set[Process]]:
    """Stop the shims of some tasks for a while."""
    shims = {task.shim for task in tasks}
    try:
        for shim in shims:
            os.kill(shim.pid, signal.SIGSTOP)
        yield shims
    finally:
        for shim in shims:
            os.kill(shim.pid, signal.SIGCONT)


def dead(node: Node) -> list[Task]:
    """Leave dead bundles that containerd has forgotten about."""
    tasks = node.run_all(f"dead-{number}" for number in range(4))
    node.crash(*tasks)
    node.restart(unseen=tasks)
    return tasks


@pytest.mark.fault("wedged shims beside dead bundles")
def test_the_dead_beside_three_wedged_shims_are_cleaned(node: Node) -> None:
    keeper, gone = node.run("keeper"), dead(node)
    stuck = node.run_all(f"stuck-{number}" for number in range(3))
    before = Snapshot.take(node, [keeper, *stuck])
    with wedged(stuck):
        assert product.results(product.clean(node)) == {task.id: "cleaned" for task in gone}
    assert [left for task in gone for left in remains(node, task.id)] == []
    assert before.changes(Snapshot.take(node, [keeper, *stuck])) == []


@pytest.mark.fault("wedged shim", "wedged shims beside dead bundles")
def test_a_wedged_pod_is_named_and_hides_nobody(node: Node) -> None:
    keeper, gone, stuck = node.run("keeper"), dead(node), one_pod(node)
    with wedged(stuck) as shims:
        rows = {row["id"]: row for row in product.scan(node)["bundles"]}
        told = product.run(node, *product.words(node, "explain", stuck[1].name))
    assert {rows[task.id]["verdict"] for task in gone} == {"leftover"}
    assert {rows[task.id]["verdict"] for task in (keeper, *stuck)} == {"running"}
    named = {name: row["shim"]["pid"] for name, row in rows.items() if row["shim"]["wedged"]}
    assert named == {task.id: shim.pid for task in stuck for shim in shims}
    assert all(SAYS in rows[name]["reason"] for name in named)
    assert SAYS in told.out, told
    after = product.scan(node)["bundles"]
    assert [row["id"] for row in after if row["shim"]["wedged"]] == []
    assert all(task.init.alive for task in (keeper, *stuck))


@pytest.mark.fault("wedged shims beside dead bundles")
def test_a_run_cleans_who_dies_while_others_are_wedged(node: Node) -> None:
    keeper, stuck = node.run("keeper"), one_pod(node)
    gone = dead(node)
    with wedged(stuck), product.watching(node, *ENFORCE) as watching:
        began = time.monotonic()
        for task in gone:
            watching.wait_for("bundle.cleaned", task, SOON)
        assert time.monotonic() - began < SOON
        watching.wait_since(
            0.0, {"event": "containerd.asked", "wedged": sorted(t.name for t in stuck)}
        )
        assert [left for task in gone for left in remains(node, task.id)] == []
        watching.stop()
    assert all(task.init.alive for task in (keeper, *stuck))
