"""Looking changes nothing: no call of `scan` or of a dry run could (strace)."""

from pathlib import Path

import pytest

from tests.e2e import product, strace
from tests.e2e.node import Node
from tests.e2e.scene import crashed
from tests.e2e.snapshot import Snapshot, remains

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

NAME = "lacks-runtime"


@pytest.mark.fault("I11")
@pytest.mark.parametrize("restart", [True, False], ids=["containerd up", "containerd down"])
def test_no_call_of_a_look_changes_anything(
    kubernetes: Node, tmp_path: Path, restart: bool
) -> None:
    node = kubernetes
    looks = {
        "scan": ("scan",),
        "explain": ("explain", f"{node.namespace}/{NAME}"),
        "dry-run": ("clean", "--dry-run", *product.NOW),
    }
    with crashed(node, also_lost=("runtime",), restart=restart) as scene:
        dead = [task for task in scene.dead if node.bundle(task.id).exists()]
        before, leftovers = scene.living_part(), Snapshot.take(node, dead)
        for what, said in looks.items():
            record = tmp_path / what
            ran = product.run(node, *product.words(node, *said), before=strace.tracing(record))
            assert ran.code == 0, ran
            assert NAME in ran.out
            assert strace.mutations(record) == []
            assert "openat" in set(strace.calls(record))
        assert before.changes(scene.living_part()) == []
        assert leftovers.changes(Snapshot.take(node, dead)) == []


def test_the_trace_of_a_cleanup_is_full_of_changes(node: Node, tmp_path: Path) -> None:
    keeper, dead = node.run("keeper"), node.run("dead")
    node.crash(dead)
    record = tmp_path / "strace"
    words = product.words(node, "clean", *product.NOW)
    assert product.run(node, *words, before=strace.tracing(record)).code == 0
    assert remains(node, "dead") == []
    assert keeper.init.alive
    seen = {line.split("(")[0].split()[-1] for line in strace.mutations(record)}
    assert {"umount2", "unlinkat"} <= seen
    assert seen & {"renameat2", "renameat"}
