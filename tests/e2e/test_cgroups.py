"""A container's cgroups: removed with all it made below, left alone while somebody lives there."""

from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.kinds import either
from tests.e2e.node import Node
from tests.e2e.processes import Process, until
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

ENFORCE = ("--enforce", "--grace", "0s", "--threshold", "0s")
INTERRUPTED = 130

WRITABLE = ("--privileged", "--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=rw")
NEST = """
tops=/sys/fs/cgroup/*
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    tops=/sys/fs/cgroup$(busybox sed -n s/^0:://p /proc/self/cgroup)
fi
for top in $tops; do
    busybox mkdir -p $top/system/inner/deep $top/system/other
done
exec sleep 1000000
"""
"""What systemd does in a container: cgroups of its own below that of the container."""


def nested(node: Node, name: str) -> Task:
    """Run a container that has made cgroups below its own."""
    task = node.run(name, *WRITABLE, command=["/bin/sh", "-c", NEST])
    until(lambda: "sleep" in task.init.cmdline, f"{name} has made its cgroups")
    return task


def depths(node: Node, name: str) -> list[int]:
    """Count a container's cgroups in each hierarchy."""
    return [sum(1 for _ in (top / name).rglob("cgroup.procs")) for top in node.cgroups()]


def deepest(cgroup: Path) -> Path:
    """Find the cgroup furthest below one."""
    return max(cgroup.rglob("cgroup.procs"), key=lambda path: len(path.parts)).parent


@pytest.mark.fault("I14")
@either("node")
def test_cgroups_that_a_container_made_below_its_own_are_removed_leaf_first(node: Node) -> None:
    keeper, dead = nested(node, "keeper"), nested(node, "dead")
    assert max(depths(node, "dead")) == 5
    node.crash(dead)
    assert max(depths(node, "dead")) == 5
    before = Snapshot.take(node, [keeper])
    with product.watching(node, *ENFORCE) as watching:
        watching.wait_for("bundle.cleaned", dead)
        assert watching.stop() == INTERRUPTED
    assert remains(node, "dead") == []
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.fault("I14", "cgroup populated")
@either("node")
def test_whoever_lives_in_a_cgroup_of_the_dead_is_left_alone(node: Node) -> None:
    keeper, dead = node.run("keeper"), nested(node, "dead")
    guest = Process.at(node.occupy(keeper).pid)
    for top in node.cgroups():
        # cgroups of cpuset without processors take nobody in
        lowest = top / "dead" if "cpuset" in top.parts else deepest(top / "dead")
        (lowest / "cgroup.procs").write_text(str(guest.pid))
    node.crash(dead)
    before = Snapshot.take(node, [keeper, dead])
    (row,) = [row for row in product.scan(node)["bundles"] if row["id"] == "dead"]
    assert row["verdict"] == "orphaned"
    assert "its cgroup holds processes" in row["reason"]
    assert product.clean(node)["results"] == []
    assert before.changes(Snapshot.take(node, [keeper, dead])) == []
    assert guest.alive
    guest.kill()
    assert product.results(product.clean(node)) == {"dead": "cleaned"}
    assert remains(node, "dead") == []
