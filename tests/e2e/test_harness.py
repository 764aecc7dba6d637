"""The harness proves itself: it makes what it says, sees what changes, and leaves nothing.

What containerd does by itself is measured here too; the other tests rely on it.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import cri
from tests.e2e.apart import REPOSITORY
from tests.e2e.belongings import Belongings
from tests.e2e.kinds import either
from tests.e2e.node import Node
from tests.e2e.processes import Process, everyone, until
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.unified import CGROUPS

pytestmark = pytest.mark.containerd


@either("node")
def test_a_running_task_has_a_shim_an_init_a_mount_and_cgroups(node: Node) -> None:
    task = node.run("web")
    assert task.init.alive
    assert task.shim == node.shim("web")
    assert node.status("web") == "RUNNING"
    found = remains(node, "web")
    assert any("/rootfs #" in one for one in found)
    assert sum(one.startswith(str(CGROUPS)) for one in found) == len(node.cgroups()) > 0
    assert any("/runc/" in one for one in found)


def test_a_shim_stands_in_its_bundle(node: Node) -> None:
    task = node.run("web")
    assert Path(f"/proc/{task.shim.pid}/cwd").samefile(node.bundle("web"))


def test_a_stopped_task_keeps_its_shim(node: Node) -> None:
    task = node.stopped("done")
    assert not task.init.alive
    assert task.shim.alive
    assert node.bundle("done").is_dir()


def test_members_of_a_pod_share_one_shim(node: Node) -> None:
    first = node.run("pod", pod="pod")
    second = node.run("member", pod="pod")
    third = node.stopped("dead", pod="pod")
    assert first.shim == second.shim == third.shim
    assert first.shim.alive
    assert not third.init.alive


def test_an_orphan_runs_without_a_shim(node: Node) -> None:
    task = node.orphan("lost")
    assert task.init.alive
    assert not task.shim.alive


def test_a_creation_waits_half_way_and_then_succeeds(node: Node) -> None:
    with node.creating("slow") as shim:
        assert shim.alive
        assert not (node.bundle("slow") / "init.pid").exists()
        assert (node.bundle("slow") / "rootfs" / "bin").is_dir()
    assert node.status("slow") == "RUNNING"


def test_a_real_pod_survives_a_restart(kubernetes: Node) -> None:
    sandbox, *members = cri.pod(kubernetes, "web")
    assert all(member.shim == sandbox.shim for member in members)
    kubernetes.containerd.kill()
    kubernetes.containerd.start()
    for task in (sandbox, *members):
        assert kubernetes.status(task.id, cri.NAMESPACE) == "RUNNING"
        assert kubernetes.task(task.id, cri.NAMESPACE) == task


def test_a_snapshot_sees_every_kind_of_change(node: Node) -> None:
    task = node.run("web")

    def seen() -> str:
        return "\n".join(before.changes(Snapshot.take(node, [task])))

    before = Snapshot.take(node, [task])
    assert seen() == ""
    (node.bundle("web") / "rootfs" / "data" / "new").touch()
    assert "rootfs/data/new" in seen()
    before = Snapshot.take(node, [task])
    os.utime(node.bundle("web") / "config.json")
    assert "config.json" in seen()
    before = Snapshot.take(node, [task])
    (node.cgroups()[0] / "web" / "inner").mkdir()
    assert "/web/inner" in seen()
    before = Snapshot.take(node, [task])
    inside = node.inside("web")
    node.apart.run("mount", "-t", "tmpfs", "none", f"{inside}/rootfs/data")
    assert "mount" in seen()
    before = Snapshot.take(node, [task])
    task.init.kill()
    assert "init of" in seen()


def test_a_node_ends_with_its_test_run_however_that_ends(tmp_path: Path) -> None:
    make = (
        "import pathlib, sys, tests.e2e.node as n\n"
        "node = n.Node(pathlib.Path(sys.argv[1])).__enter__()\n"
        "node.run('web'), node.stopped('done')\n"
        "print(node.namespace, node.apart.pid, node.apart.warden, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", make, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.fspath(REPOSITORY)},
    ) as doomed:
        assert doomed.stdout is not None
        name, pid, warden_pid = doomed.stdout.readline().split()
        warden = Process.at(int(warden_pid))
        orphaned = Belongings(name, os.readlink(f"/proc/{pid}/ns/mnt"), int(pid))
        assert len(orphaned.processes()) == 4  # containerd, two shims, an init
        # Held, or its number could be another's by the time it is looked for.
        with open(f"/proc/{pid}/ns/mnt", "rb"):
            doomed.kill()
            until(lambda: not warden.alive, "the warden has done its work")
            assert orphaned.processes() == []
            assert orphaned.cgroups() == []


def test_nothing_is_left_of_a_node_whatever_happened_on_it(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), Node(tmp_path, cri=True) as node:
        cri.pod(node, "web")
        node.stopped("done")
        node.occupy(node.orphan("lost"))
        node.containerd.start()
        mine = node.processes()
        assert len(mine) > 5
        with node.creating("slow"):
            raise ZeroDivisionError
    assert not [one for one in mine if one.alive]
    assert not [one for one in everyone() if node.namespace in " ".join(one.cmdline)]
    assert node.apart.belongings.cgroups() == []
    assert node.namespace not in Path("/proc/self/mountinfo").read_text()
    assert list(tmp_path.iterdir()) == []
