"""What runs behind runc's shim need not be runc: its state goes with its bundle, its hooks run."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

CRUN = "/usr/bin/crun"
OWN = "own-crun"
UNIFIED = "/sys/fs/cgroup/unified"


@pytest.fixture
def crun_node(tmp_path: Path) -> Iterator[Node]:
    """A node on which crun works: 1.8 refuses a version 2 beside version 1."""
    if shutil.which(CRUN) is None:
        pytest.skip("needs crun")
    with Node(tmp_path) as node:
        if any(row.split()[4] == UNIFIED for row in node.apart.mountinfo()):
            node.apart.run("umount", UNIFIED)
        yield node


def states(node: Node, root: str) -> Path:
    """Where the runtime keeps what it knows of this node's containers."""
    top = f"/run/{node.namespace}/{OWN}" if root else "/run/containerd/runc"
    return node.apart.path(top) / node.namespace


def run(node: Node, name: str, root: str) -> Task:
    place = ("--runc-root", f"/run/{node.namespace}/{root}") if root else ()
    return node.run(name, "--runc-binary", CRUN, *place)


def hook(node: Node, name: str, root: str) -> Path:
    """Have crun call somebody once a container is gone, who notes it."""
    said = node.root.parent / f"{name}-said"
    script = node.root.parent / f"{name}-hook"
    script.write_text(f"#!/bin/sh\ncat >{said}\n")
    script.chmod(0o755)
    spec = states(node, root) / name / "config.json"
    told = json.loads(spec.read_text())
    told["hooks"] = {"poststop": [{"path": str(script)}]}
    spec.write_text(json.dumps(told))
    return said


@pytest.mark.parametrize("root", ["", OWN], ids=["usual root", "own root"])
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "with a hook"])
def test_a_dead_bundle_of_cruns_leaves_nothing_and_its_id_starts_again(
    crun_node: Node, root: str, hooked: bool
) -> None:
    node = crun_node
    keeper, dead = run(node, "keeper", root), run(node, "dead", root)
    said = hook(node, "dead", root) if hooked else None
    node.crash(dead)
    before = Snapshot.take(node, [keeper])
    kept = sorted(path.name for path in states(node, root).glob("keeper/*"))
    assert product.results(product.clean(node)) == {"dead": "cleaned"}
    assert before.changes(Snapshot.take(node, [keeper])) == []
    assert sorted(path.name for path in states(node, root).glob("keeper/*")) == kept != []
    assert remains(node, "dead") == []
    assert not (states(node, root) / "dead").exists()
    if said is not None:
        assert json.loads(said.read_text())["id"] == "dead"
    node.containerd.start()
    node.ctr("containers", "delete", "dead")
    assert run(node, "dead", root).init.alive


@pytest.fixture
def renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vendor's build of runc's shim, under the vendor's name."""
    name = "containerd-shim-acme-v2"
    found = shutil.which("containerd-shim-runc-v2")
    assert found is not None
    (tmp_path / "bin").mkdir()
    shutil.copy(found, tmp_path / "bin" / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return name


def test_a_shim_that_is_runcs_under_another_name_is_named_by_a_key(
    tmp_path: Path, renamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Node(tmp_path) as node:
        keeper = node.run("keeper", "--runtime", "io.containerd.acme.v2")
        dead = node.run("dead", "--runtime", "io.containerd.acme.v2")
        node.crash(dead)
        node.restart(unseen=[dead])
        before = Snapshot.take(node, [keeper])
        assert product.results(product.clean(node)) == {}
        told = product.scan(node)
        assert product.verdicts(told, node.namespace) == {"keeper": "running", "dead": "unknown"}
        (why,) = (one["reason"] for one in told["bundles"] if one["id"] == "dead")
        assert "not one whose leftovers are known; shim dead" in why
        scan = product.words(node, "scan", "--exit-code")
        assert product.run(node, *scan).code == 10
        monkeypatch.setenv("CONTAINERD_RECONCILER_CONTAINERD_RUNC_SHIMS", renamed)
        assert product.results(product.clean(node)) == {"dead": "cleaned"}
        assert remains(node, "dead") == []
        assert before.changes(Snapshot.take(node, [keeper])) == []


def test_hooks_wait_until_their_runtime_is_there(crun_node: Node, tmp_path: Path) -> None:
    """runc would say that it deleted the container, and nobody would ever call them."""
    node = crun_node
    elsewhere = tmp_path / "bin" / "crun"
    elsewhere.parent.mkdir()
    shutil.copy(CRUN, elsewhere)
    run(node, "keeper", "")
    dead = node.run("dead", "--runc-binary", str(elsewhere))
    said = hook(node, "dead", "")
    node.crash(dead)
    spec = states(node, "") / "dead" / "config.json"
    spec.chmod(0o666)  # anybody may have written it by now
    told = product.clean(node, code=75)
    assert product.results(told) == {"dead": "blocked"}
    assert "hooks" in told["results"][0]["detail"]
    assert not said.exists()
    spec.chmod(0o600)
    elsewhere.unlink()  # the one in PATH knows the same states
    assert product.results(product.clean(node)) == {"dead": "cleaned"}
    assert said.exists()
    assert not (states(node, "") / "dead").exists()
