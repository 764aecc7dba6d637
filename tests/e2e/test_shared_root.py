"""What two containerds share of one name is left to whoever of them lives, however hard to see."""

from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.containerd import RUNTIME_DIR
from tests.e2e.node import Node
from tests.e2e.processes import kill_all
from tests.e2e.twins import Twin

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

LOST = {
    "its options and its spec": ("options.json", "config.json"),
    "its init.pid, too": ("options.json", "config.json", "init.pid"),
    "its spec": ("config.json",),
    "its options": ("options.json",),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
@pytest.mark.fault("I6", "shim killed, init alive", "the same name in another containerd")
def test_a_living_orphan_is_not_disproved_by_the_state_of_another(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    with Node(tmp_path) as one, Twin(one) as other:
        one.run("keeper")
        place = ("--runc-root", f"/run/{one.namespace}/own-runc")
        orphan = one.run("wq8x", *place, "--cgroup", f"/{one.namespace}/own/qq")
        other.run("pod", pod="pod")
        other.stop(other.run("wq8x", pod="pod"))
        one.containerd.kill()
        kill_all([orphan.shim])
        one.lose(orphan, *lost)
        product.clean(one)
        assert orphan.init.alive
        assert one.bundle("wq8x").exists()


def fifos(node: Node, id_: str) -> dict[str, list[str]]:
    """List the FIFO directories of an id."""
    top = node.apart.path(f"{RUNTIME_DIR}/fifo")
    found = {one.name: sorted(fifo.name for fifo in one.iterdir()) for one in top.iterdir()}
    return {name: names for name, names in found.items() if f"{id_}-stdout" in names}


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.fault(
    "I6", "the same name in another containerd", "shared pod shim with a dead member"
)
def test_a_member_whose_sandbox_was_deleted_keeps_what_it_shares(
    tmp_path: Path, stopped: bool
) -> None:
    """Its shim works in a directory that is gone, and still shows whose it is."""
    id_ = "wq9x"
    with Node(tmp_path) as one, Twin(one) as other:
        one.run("keeper")
        sandbox = other.run("pod", pod="pod")
        how = ["--runc-root", f"/run/{one.namespace}/own-runc"]
        if not stopped:
            how += ["--cgroup", f"/{one.namespace}/own/{id_}"]
        alive = other.run(id_, *how, pod="pod")
        before = fifos(one, id_)
        dead = one.run(id_)
        one.containerd.kill()
        kill_all([dead.shim, dead.init])
        if stopped:
            other.stop(alive)
        other.stop(sandbox)
        other.ctr("tasks", "delete", "pod")
        groups = [path for top in one.cgroups() if (path := top / id_).exists()]
        product.clean(one)
        after = fifos(one, id_)
        assert {name: after.get(name) for name in before} == before
        if stopped:
            assert all(path.exists() for path in groups)
