"""The DaemonSet of contrib/kubernetes, run as a kubelet would: a pod that cleans its own node."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.running import free_port
from tests.e2e import cri, kubelet, product
from tests.e2e.apart import REPOSITORY
from tests.e2e.kinds import either
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

MANIFEST: Final = REPOSITORY / "contrib/kubernetes/base/daemonset/daemonset.yaml"
CONFIG: Final = REPOSITORY / "config/kubernetes.toml"
REFUSED: Final = 77
ENFORCE: Final = ("run", "--enforce", "--once", "--grace", "0s", "--threshold", "0s")


@pytest.fixture
def usual(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with containerd's usual state directory and, as under systemd, shared mounts."""
    unified = bool(getattr(request, "param", False))
    with Node(tmp_path, cri=True, unified=unified, state="/run/containerd") as made:
        made.apart.run("mount", "--make-rshared", "/")
        yield made


@contextmanager
def deployed(
    node: Node, pod: kubelet.Pod, port: int, *, with_image: bool = False
) -> Iterator[Task]:
    """Run the manifest's pod, in a hurry; what it logged is told with a failure."""
    config = node.root.parent / "config"
    config.mkdir()
    (config / "config.toml").write_text(CONFIG.read_text())
    hurry = {
        "CONTAINERD_RECONCILER_MODE": "enforce",
        "CONTAINERD_RECONCILER_CLEANUP_GRACE": "0s",
        "CONTAINERD_RECONCILER_CLEANUP_THRESHOLD": "0s",
        "CONTAINERD_RECONCILER_CONTAINERD_ROOT": str(node.root),
        "CONTAINERD_RECONCILER_HTTP_LISTEN": f"127.0.0.1:{port}",  # the machine's network, here
    }
    moved = {"/var/lib/containerd": node.root}
    try:
        yield kubelet.run(node, pod, config, moved=moved, env=hurry, with_image=with_image)
    except AssertionError as error:
        error.add_note(cri.log_of(node, pod.containers[0].name).read_text()[-8000:])
        raise


def probe(pod: kubelet.Pod, port: int, which: str) -> bool:
    """Ask as a probe of the manifest does."""
    (container,) = pod.containers
    asked = {"live": container.liveness_probe, "ready": container.readiness_probe}[which].http_get
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{asked.path}") as answer:
            return bool(answer.status == 200)
    except OSError:  # an answer that is no success, or nobody listens
        return False


def blocked(node: Node) -> dict[str, int]:
    """Count what is blocked, by reason."""
    counts = product.status(node)["summary"]["blocked"]
    return {reason: count for reason, count in counts.items() if count}


@either("usual")
@pytest.mark.fault("I4", "I6", "I20", "live container", "busy rootfs")
def test_a_pod_of_the_manifest_cleans_its_node_and_nothing_that_lives(usual: Node) -> None:
    node, port, pod = usual, free_port(), kubelet.read(MANIFEST)
    keeper, dead, busy = node.run_all(("keeper", "dead", "busy"))
    living = [keeper, *cri.pod(node, "web", members=1)]
    before = Snapshot.take(node, living)
    with deployed(node, pod, port) as daemon:
        until(lambda: probe(pod, port, "ready"), "it is ready")
        assert probe(pod, port, "live")
        told = product.status(node)
        assert (told["mode"], told["refused"], told["ready"]) == ("enforce", [], True)

        # Nobody acts beside the pod; the node's own clean asks it, and there is nothing to ask for.
        refused = product.run(node, *product.words(node, *ENFORCE, "-q"))
        assert refused.code == REFUSED, refused
        assert "already acts on" in refused.complaint()
        asked = product.run(node, *product.words(node, "clean", *product.NOW))
        assert (asked.code, asked.out) == (0, ""), asked
        assert asked.err.startswith("nothing to do; "), asked

        holder = node.occupy(busy)
        node.crash(dead, busy)
        until(lambda: remains(node, "dead") == [], "the dead one is gone")
        until(lambda: blocked(node) == {"mount busy": 1}, "the other is busy")
        assert node.bundle("busy").is_dir()
        holder.communicate()
        until(lambda: remains(node, "busy") == [], "the other is gone once it is free")

        assert before.changes(Snapshot.take(node, living)) == []
        assert daemon.init.alive
        assert daemon.shim.alive


def without_propagation(pod: kubelet.Pod) -> None:
    (container,) = pod.containers
    for mount in container.volume_mounts:
        mount.mount_propagation = "None"


def without_host_pid(pod: kubelet.Pod) -> None:
    pod.host_pid = False


@pytest.mark.fault("I4")
@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        (without_propagation, "own mount namespace is not that of containerd"),
        (without_host_pid, "own pid namespace is not that of containerd"),
    ],
)
def test_a_pod_that_lacks_what_the_guards_ask_for_ends_and_says_why(
    usual: Node, lack: Callable[[kubelet.Pod], None], reason: str
) -> None:
    node, pod = usual, kubelet.read(MANIFEST)
    lack(pod)
    dead = node.run("dead")
    node.crash(dead)
    node.restart(unseen=[dead])
    left = remains(node, "dead")
    with deployed(node, pod, free_port()) as daemon:
        until(lambda: not daemon.init.alive, "it has ended")
        log = cri.log_of(node, pod.containers[0].name).read_text()
        assert f"containerd-reconciler: {reason}" in log.splitlines()[-1]
    assert remains(node, "dead") == left != []
