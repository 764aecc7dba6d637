"""After a crash `clean` removes what is dead, all of it, and not a byte of what is alive."""

from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.kinds import either
from tests.e2e.node import Node
from tests.e2e.scene import BARE, EMPTIED, crashed
from tests.e2e.snapshot import Snapshot, remains, tree

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

BLOCKED = 75


@pytest.mark.fault(
    "I6",
    "live container",
    "stopped task",
    "shared pod shim with a dead member",
    "shim killed, init alive",
    "bundle being created slowly",
)
@pytest.mark.parametrize(
    ("kubernetes", "also_lost"),
    [
        pytest.param(False, (), id="plainly"),
        pytest.param(False, ("runtime",), id="at every bundle"),
        pytest.param(True, ("runtime",), id="at every bundle, cgroup2 alone"),
    ],
    indirect=["kubernetes"],
)
def test_what_containerds_restart_left_is_removed_and_the_living_untouched(
    kubernetes: Node, also_lost: tuple[str, ...]
) -> None:
    node = kubernetes
    with crashed(node, also_lost=also_lost, restart=True) as scene:
        left = [task for task in scene.dead if node.bundle(task.id).exists()]
        before = scene.living_part()
        told = product.clean(node)
        assert before.changes(scene.living_part()) == []
        assert product.results(told) == {task.id: "cleaned" for task in left}
        assert [one for task in left for one in remains(node, task.id)] == []
        again = product.clean(node)
        assert again["results"] == []
        assert before.changes(scene.living_part()) == []


@pytest.mark.fault("I6", "containerd stopped, containers live")
@either("kubernetes")
def test_the_dead_are_removed_while_containerd_is_down(kubernetes: Node) -> None:
    node = kubernetes
    with crashed(node, restart=False) as scene:
        # What says neither its shim nor its pod may be a stopped member of a pod that lives; as
        # long as containerd cannot be asked nobody knows.
        nameless = [task for task in scene.dead if task.id in (BARE, EMPTIED)]
        named = [task for task in scene.dead if task not in nameless]
        before = scene.living_part()
        kept = Snapshot.take(node, nameless)
        told = product.clean(node)
        assert before.changes(scene.living_part()) == []
        assert kept.changes(Snapshot.take(node, nameless)) == []
        assert product.results(told) == {task.id: "cleaned" for task in named}
        assert [one for task in named for one in remains(node, task.id)] == []
    node.containerd.start()
    product.clean(node)
    assert not [task.id for task in scene.dead if node.bundle(task.id).exists()]


def test_scan_tells_the_dead_from_every_kind_of_living(kubernetes: Node) -> None:
    node = kubernetes
    with crashed(node, also_lost=("runtime",), restart=True) as scene:
        told = product.scan(node)
        spared = {task.id for task in scene.living}
    # What containerd's own restart leaves of those it has removed, and nothing of a living one.
    # From 2.1 on the scene hides them all from it: their bundles are there, and own it.
    removed = {EMPTIED} if node.containerd.version < (2, 1) else set[str]()
    outside = {(one["kind"], one.get("id", "")) for one in told["debris"] if "namespace" not in one}
    named = {(one["kind"], one["id"]) for one in told["debris"] if "namespace" in one}
    assert outside == {("fifo-dir", id_) for id_ in removed}
    assert named == {
        (kind, id_) for kind in ("runc-state", "cgroup", "shim-socket") for id_ in removed
    }
    assert not [one for one in told["debris"] if one.get("id") in spared]
    mine = product.verdicts(told, node.namespace)
    dead = {task.id for task in scene.dead if task.id in mine}
    assert {mine[name] for name in dead} <= {"leftover"}
    living = {name: verdict for name, verdict in mine.items() if name not in dead}
    assert living.pop("orphan") == "orphaned"
    assert living.pop("slow") in {"starting", "stopped"}
    assert living == {
        "web": "running",
        "stopped": "stopped",
        "pod": "running",
        "member": "running",
        "ended": "stopped",
    }
    assert set(product.verdicts(told, "k8s.io").values()) == {"running"}


@pytest.mark.fault("I13", "busy rootfs", "foreign mount")
def test_what_is_in_the_way_is_left_alone_named_and_removed_later(node: Node) -> None:
    busy, foreign, free = node.run_all(("busy", "foreign", "free"))
    canary = node.root / "canary"
    canary.mkdir()
    (canary / "data").write_text("not a leftover")
    node.crash(busy, foreign, free)
    node.restart(unseen=[busy, foreign, free])
    holder = node.occupy(busy)
    extra = f"{node.inside('foreign')}/extra"
    node.bundle("foreign").joinpath("extra").mkdir()
    node.apart.run("mount", "--bind", canary, extra)
    planted = dict(tree(canary))

    told = product.clean(node, code=BLOCKED)
    assert product.results(told) == {"busy": "blocked", "foreign": "blocked", "free": "cleaned"}
    why = {one["id"]: one for one in told["results"]}
    assert [who["pid"] for who in why["busy"]["holders"]] == [holder.pid]
    assert "extra" in why["foreign"]["detail"]
    assert dict(tree(canary)) == planted
    assert remains(node, "free") == []
    # Nothing of a blocked one may be half gone: its id would be in use without its resources.
    assert any("/rootfs #" in one for one in remains(node, "busy"))
    assert any("/rootfs #" in one for one in remains(node, "foreign"))

    holder.communicate()
    node.apart.run("umount", extra)
    assert product.results(product.clean(node)) == {"busy": "cleaned", "foreign": "cleaned"}
    assert remains(node, "busy") == remains(node, "foreign") == []
    assert dict(tree(canary)) == planted


@pytest.mark.fault("hidden .id")
def test_a_removal_of_containerds_that_was_cut_short_is_found(node: Node) -> None:
    task = node.run("cut")
    node.crash(task)
    inside = node.inside("cut")
    node.apart.run("umount", f"{inside}/rootfs")
    node.bundle("cut").rename(node.bundle(".cut"))
    node.containerd.start()
    found = [one for one in product.scan(node)["debris"] if one["kind"] == "hidden-bundle"]
    assert [Path(one["path"]).name for one in found] == [".cut"]


def test_a_node_of_the_same_name_elsewhere_is_another_node(tmp_path: Path) -> None:
    """Nodes in containers have containerd's usual paths, and this machine sees their processes."""
    state = "/run/twin/containerd"
    with Node(tmp_path, state=state) as other, Node(tmp_path, state=state) as node:
        theirs = other.run("theirs")
        keeper, dead = node.run("keeper"), node.run("dead")
        node.crash(dead)
        before = Snapshot.take(other, [theirs]), Snapshot.take(node, [keeper])
        assert product.results(product.clean(node)) == {"dead": "cleaned"}
        assert remains(node, "dead") == []
        after = Snapshot.take(other, [theirs]), Snapshot.take(node, [keeper])
        assert [one.changes(two) for one, two in zip(before, after, strict=True)] == [[], []]
