"""Debris of a real containerd goes, all of it and nothing else: listings agree before and after."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from reconciler.model.debris import DebrisKind, DebrisResult
from reconciler.model.outcome import Result
from tests.e2e import product, strace
from tests.e2e.containerd import RUNTIME_DIR, TASKS
from tests.e2e.emptying import empty
from tests.e2e.kinds import either
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.scene import EMPTIED, damage
from tests.e2e.snapshot import Snapshot, listing, tree
from tests.e2e.task import Task
from tests.e2e.twins import Place, Twin

pytestmark = [pytest.mark.containerd, pytest.mark.safety, pytest.mark.timeout(240)]

ROWS: Final = ("whole", EMPTIED, "hidden", "stateless", "workless")
"""What the dead are left as."""

AT_ONCE: Final = "\n".join(f'[debris.{kind.value}]\nage = "0s"' for kind in DebrisKind)
"""A configuration by which nothing is too young."""

OWN: Final = Place("own-runc", "own")
"""Where the other containerd's container has what is named by its id."""


def dead(node: Node, rows: Sequence[str] = ROWS, orphans: Sequence[Task] = ()) -> list[Task]:
    """Crash containers, and have containerd leave of them what it leaves."""
    tasks = node.run_all(f"dead-{row}" for row in rows)
    node.crash(*tasks)
    for task, row in zip(tasks, rows, strict=True):
        if row in {EMPTIED, "stateless", "workless"}:
            damage(node, task, EMPTIED)
        if row == "stateless":
            node.apart.run("rm", "-r", f"{RUNTIME_DIR}/runc/{node.namespace}/{task.id}")
        if row == "hidden":
            bundle = node.bundle(task.id)
            bundle.rename(bundle.with_name(f".{task.id}"))
    node.restart(unseen=orphans if node.containerd.version >= (2, 1) else [])  # those end them
    until(lambda: not any(node.bundle(task.id).exists() for task in tasks), "containerd gives up")
    return tasks


def delete(node: Node, name: str) -> None:
    node.ctr("tasks", "delete", "--force", name)
    node.ctr("containers", "delete", name)


def in_all(results: list[DebrisResult]) -> Counter[DebrisKind]:
    """Count what was removed by kind; nothing may be in the way of any."""
    assert {one.result for one in results} <= {Result.CLEANED}, results
    return Counter(one.key.kind for one in results)


@either("node")
def test_nothing_of_the_dead_is_left_and_nothing_of_the_living_is_touched(
    node: Node, tmp_path: Path
) -> None:
    without = listing(node)
    living = [node.run("web"), node.run("pod", pod="pod"), node.run("member", pod="pod")]
    orphan = node.orphan("orphan")
    node.lose(orphan, "runtime")
    node.restart(unseen=[orphan])
    if node.containerd.version < (1, 7):
        living.append(node.stopped("stopped"))  # later ones delete it when they restart
    before = listing(node)
    tasks = dead(node, orphans=[orphan])
    kept = Snapshot.take(node, [*living, orphan])
    assert listing(node) != before
    results: list[DebrisResult] = []
    changed: list[str] = []

    def emptied() -> bool:
        record = tmp_path / "strace"
        results.extend(empty(node, *strace.tracing(record)))
        changed.extend(strace.mutations(record))
        return listing(node) == before

    # A shim of somebody else's that ends just now leaves it open who owns what.
    until(emptied, "nothing of the dead is left")
    counted = in_all(results)
    assert counted[DebrisKind.SHIM_SOCKET] == counted[DebrisKind.FIFO_DIR] == len(tasks)
    for kind in (DebrisKind.RUNC_STATE, DebrisKind.CGROUP, DebrisKind.HIDDEN_BUNDLE):
        assert counted[kind] > 0, counted
    assert kept.changes(Snapshot.take(node, [*living, orphan])) == []
    done = [call for call in changed if " = -1 " not in call and " flock(" not in call]
    assert len(done) == sum(step.mutations for one in results for step in one.steps), done
    for task in tasks:  # the ids are free
        node.ctr("containers", "delete", task.id)
        node.run(task.id)
    for name in [*(task.id for task in (*living, *tasks))]:
        delete(node, name)
    node.crash(orphan)
    damage(node, orphan, EMPTIED)
    node.restart()

    config = tmp_path / "config.toml"
    config.write_text(AT_ONCE)

    def nothing() -> bool:
        product.clean(node, "--debris", "--config", config)
        return [one for one in listing(node) if one not in without] == _namespaces(node)

    until(nothing, "nothing but the namespaces is there as before the first container")


def _namespaces(node: Node) -> list[str]:
    """The directories of a namespace stay for whoever comes next, as containerd leaves them."""
    runc = node.apart.path(f"{RUNTIME_DIR}/runc/{node.namespace}")
    tops = (runc, node.bundle("x").parent, node.root / TASKS / node.namespace)
    return sorted(os.fspath(top) for top in tops if top.exists())


def test_what_another_containerd_may_use_stays_until_that_is_done_with_it(tmp_path: Path) -> None:
    with Node(tmp_path) as node, Twin(node) as twin:
        keeper = node.run("keeper")
        before = listing(node)
        tasks = dead(node, ROWS[:3])
        for task in tasks:
            twin.run(task.id, *OWN.options(twin, task.id))
        theirs = [twin.apart.path(twin.state), twin.root / TASKS]

        def of_the_twin() -> Snapshot:
            return Snapshot(dict(line for top in theirs for line in tree(top)))

        kept, both = of_the_twin(), Snapshot.take(node, [keeper])
        shared = listing(node)
        results = empty(node)
        assert in_all(results).keys() <= {DebrisKind.SHIM_SOCKET, DebrisKind.HIDDEN_BUNDLE}, results
        assert kept.changes(of_the_twin()) == []
        assert both.changes(Snapshot.take(node, [keeper])) == []
        gone = [one for one in shared if one not in listing(node)]
        assert all("/s/" in one or "/.dead-hidden" in one for one in gone), gone
        for task in tasks:
            assert twin.status(task.id) == "RUNNING"
            delete(twin, task.id)

        def left() -> list[str]:
            in_all(empty(node))  # nothing, as long as a shim is on its way out
            # What the twin's containers left is another's to judge.
            own = f"/{OWN.cgroup}"
            return [one for one in listing(node) if one not in before and own not in one]

        until(lambda: not left(), "what the other containerd has done with goes")
