"""The tree of sandboxes of a real containerd 2, whose shims serve sandboxes (`sandboxer`).

What 2.1.9 does, as seen here and when this was written:

- Its own CRI plugin ends with a panic where such a pod has the host's network (containerd issue
  12983), and leaves a bundle of `rootfs` and `work` alone. With another network it asks for a shim
  that serves `containerd.runtime.sandbox.v1.Sandbox`. runc's does not: `tests.e2e.sandboxer`
  stands in.
- A bundle holds bootstrap.json, config.json (if the sandbox has a spec), log, rootfs,
  shim-binary-path and work; there is no init. A member's is in the tree of tasks, names its sandbox
  in a file `sandbox`, and has no shim-binary-path.
- Where the shim ends, or at its next start, containerd removes the bundle and its work directory.
  The sockets stay, and its store still has the sandbox.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import anyio
import pytest
from google.protobuf.message import Message
from grpclib.client import Channel, UnaryUnaryMethod
from typing_extensions import override

from tests.e2e import image, product, sandboxer
from tests.e2e.containerd import RUNTIME_DIR, Containerd
from tests.e2e.cri import compiled
from tests.e2e.node import BINARIES, Node
from tests.e2e.processes import Process, kill_all, until
from tests.e2e.snapshot import Snapshot, remains, tree
from tests.e2e.test_record import ENFORCE, INTERRUPTED, alike, kept

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

_SERVICE: Final = "/containerd.services.sandbox.v1."
_SPEC: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
NO_CONTAINERD: Final = 69
_SHIM: Final = "containerd-shim-runc-v2"


class SandboxNode(Node):
    """A node whose shim serves sandboxes, and what there is of one."""

    @override
    def _service(self, state: str, first: list[Path]) -> Containerd:
        real = Path(os.environ[BINARIES]) / _SHIM
        served = sandboxer.install(self._directory / "sandboxer", real)
        return super()._service(state, [served, *first])

    def sandbox(self, id_: str) -> Process:
        """Make and start a sandbox; give its shim."""
        anyio.run(_create, self, id_)
        return self.shim(id_)

    def member(self, pod: str, id_: str) -> Process:
        """Run a container of a sandbox; give its init."""
        self.ctr("run", "-d", "--sandbox", pod, image.NAME, id_, *image.FOR_EVER)
        return self.apart.process(int((self.bundle(id_) / "init.pid").read_text()))

    def place(self, id_: str) -> Path:
        """Where a sandbox's bundle is."""
        inside = f"{self.state}/{sandboxer.TREE}/{self.namespace}/{id_}"
        return self.apart.path(inside)

    def work(self, id_: str) -> Path:
        """Where its work directory is."""
        return self.root / sandboxer.TREE / self.namespace / id_

    def sockets(self) -> list[str]:
        """Name the sockets of all shims."""
        return sorted(one.name for one in self.apart.path(f"{RUNTIME_DIR}/s").iterdir())

    def forget(self, pod: str, member: str) -> None:
        """Have containerd forget a pod of which nothing lives that it could see."""
        self.ctr("containers", "delete", member)
        anyio.run(_forget, self, pod)

    def unseen(self, *ids: str, forgotten: bool = False) -> None:
        """Start containerd, and have it see none of these bundles, of either tree.

        ``forgotten``: they are those of a pod and its member, of which it forgets all it knows.
        """
        aside = self.apart.path(f"{self.state}-aside")
        aside.mkdir()
        both = [place for id_ in ids for place in (self.place(id_), self.bundle(id_))]
        moved = [(one, aside / str(number)) for number, one in enumerate(both) if one.exists()]
        for one, place in moved:
            one.rename(place)
        self.containerd.start()
        if forgotten:
            self.forget(*ids)
        for one, place in moved:
            one.parent.mkdir(exist_ok=True)
            place.rename(one)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxNode]:
    # What is there of a sandbox is there from its creation on: no file ends that.
    monkeypatch.setenv("CONTAINERD_RECONCILER_CLEANUP_SETTLE", "100ms")
    if BINARIES not in os.environ:
        pytest.skip(f"needs containerd 2, which {BINARIES} names (make versions)")
    # Without the plugin for Kubernetes it serves no sandboxes at all.
    with SandboxNode(tmp_path, cri=True) as made:
        if made.containerd.version < (2, 1):
            pytest.skip("needs containerd 2.1: older ones have no such tree")
        yield made


def message(kind: str, **fields: object) -> Message:
    """Make a message of `sandbox.proto`."""
    return compiled(Path(__file__).with_name("sandbox.proto"))[f"sandbox.{kind}"](**fields)


async def _forget(node: SandboxNode, id_: str) -> None:
    """Delete the record; `ctr sandboxes remove --force` leaves it where the shim is gone."""
    await _call(node, {"Store/Delete": message("StoreDelete", sandbox_id=id_)})


async def _create(node: SandboxNode, id_: str) -> None:
    spec = message("Any", type_url=_SPEC, value=b'{"ociVersion": "1.0.0", "annotations": {}}')
    runtime = message("Runtime", name="io.containerd.runc.v2")
    sandbox = message("Sandbox", sandbox_id=id_, runtime=runtime, spec=spec, sandboxer="shim")
    named = {"sandbox_id": id_, "sandboxer": "shim"}
    await _call(
        node,
        {
            "Store/Create": message("StoreCreate", sandbox=sandbox),
            "Controller/Create": message("ControllerCreate", sandbox=sandbox, **named),
            "Controller/Start": message("ControllerStart", **named),
        },
    )


async def _call(node: SandboxNode, calls: Mapping[str, Message]) -> None:
    answer = type(message("Ignored"))
    channel = Channel(path=os.fspath(node.apart.path(node.address)))
    try:
        with anyio.fail_after(30):
            for method, request in calls.items():
                call = UnaryUnaryMethod(channel, _SERVICE + method, type(request), answer)
                await call(request, metadata={"containerd-namespace": node.namespace})
    finally:
        channel.close()


def verdicts(node: Node) -> dict[str, str]:
    """Give the verdict of each bundle by its name as `explain` takes it."""
    told = product.scan(node)["bundles"]
    return {f"{one.get('tree', 'task')}:{one['id']}": one["verdict"] for one in told}


def results(told: product.Clean) -> dict[str, str]:
    return {f"{one.get('tree', 'task')}:{one['id']}": one["result"] for one in told["results"]}


def living(node: SandboxNode, id_: str) -> Snapshot:
    """Describe all there is of a living pod of one member."""
    member = node.task(f"{id_}-member")
    own = {k: v for one in (node.place(id_), node.work(id_)) for k, v in tree(one)}
    return Snapshot({**Snapshot.take(node, [member]).things, **own})


def test_a_dead_sandbox_goes_after_its_members_and_once_containerd_lets_it_go(
    node: SandboxNode,
) -> None:
    node.sandbox("sbx-alive")
    node.member("sbx-alive", "sbx-alive-member")
    shim = node.sandbox("sbx-dead")
    before = node.sockets()
    init = node.member("sbx-dead", "sbx-dead-member")
    assert verdicts(node) == {
        "task:sbx-alive-member": "running",
        "sandbox:sbx-alive": "running",
        "task:sbx-dead-member": "running",
        "sandbox:sbx-dead": "running",
    }
    kept = living(node, "sbx-alive")

    # Both are killed, and containerd: what it knew of sandboxes nobody can tell.
    node.containerd.kill()
    kill_all({shim, init})
    assert results(product.clean(node, code=NO_CONTAINERD)) == {"task:sbx-dead-member": "cleaned"}
    assert verdicts(node)["sandbox:sbx-dead"] == "unknown"
    assert product.clean(node, code=NO_CONTAINERD)["results"] == []
    assert remains(node, "sbx-dead-member") == []

    # It is there again, has not seen the bundle, and still knows the sandbox.
    node.unseen("sbx-dead")
    assert verdicts(node)["sandbox:sbx-dead"] == "stopped"
    assert product.clean(node)["results"] == []
    assert node.place("sbx-dead").exists()

    # Whoever made it lets it go.
    node.forget("sbx-dead", "sbx-dead-member")
    assert verdicts(node)["sandbox:sbx-dead"] == "leftover"
    assert results(product.clean(node)) == {"sandbox:sbx-dead": "cleaned"}
    assert not node.place("sbx-dead").exists()
    assert not node.work("sbx-dead").exists()
    assert len(node.sockets()) < len(before)
    assert kept.changes(living(node, "sbx-alive")) == []
    assert verdicts(node) == {"task:sbx-alive-member": "running", "sandbox:sbx-alive": "running"}
    node.sandbox("sbx-dead")  # its id is free


def test_a_run_that_watches_removes_them_and_is_replayed_alike(
    node: SandboxNode, tmp_path: Path
) -> None:
    journal = tmp_path / "sandboxes.jsonl"
    with product.watching(node, *ENFORCE, "--record", journal) as watching:
        watching.wait_ready("up")
        shim = node.sandbox("sbx-pod")
        init = node.member("sbx-pod", "sbx-pod-member")
        node.sandbox("sbx-alive")
        node.containerd.kill()
        kill_all({shim, init})
        node.unseen("sbx-pod", "sbx-pod-member", forgotten=True)
        until(lambda: not node.place("sbx-pod").exists(), "the pod is gone", 120)
        watching.wait_quiet(2.0)
        assert watching.stop() == INTERRUPTED
    assert node.place("sbx-alive").exists()
    told = alike(journal).summaries
    assert {(one.tree, one.id) for one in told if one.action == "clean"} == {
        ("", "sbx-pod-member"),
        ("sandbox", "sbx-pod"),
    }
    kept(node, journal, "containerd-sandboxes")


def test_members_whose_sandbox_lost_its_shim_keep_it(node: SandboxNode) -> None:
    shim = node.sandbox("sbx-pod")
    init = node.member("sbx-pod", "sbx-pod-member")
    node.containerd.kill()
    kill_all({shim})
    node.unseen("sbx-pod", "sbx-pod-member", forgotten=True)
    assert verdicts(node) == {"task:sbx-pod-member": "orphaned", "sandbox:sbx-pod": "stopped"}
    assert product.clean(node)["results"] == []
    assert init.alive
    kill_all({init})

    def emptied() -> bool:  # the member first, and then its sandbox
        product.clean(node)
        return not (node.place("sbx-pod").exists() or node.bundle("sbx-pod-member").exists())

    until(emptied, "the pod is gone")


def test_what_containerd_does_about_a_dead_shim_is_as_it_was(node: SandboxNode) -> None:
    shim = node.sandbox("sbx-pod")
    sockets = node.sockets()
    kill_all({shim})
    until(lambda: not node.place("sbx-pod").exists(), "containerd removes the bundle")
    assert not node.work("sbx-pod").exists()
    assert node.sockets() == sockets
    assert "sbx-pod" in node.ctr("sandboxes", "list")

    # The same at its start.
    other = node.sandbox("other")
    node.containerd.kill()
    kill_all({other})
    assert node.place("other").exists()
    node.containerd.start()
    until(lambda: not node.place("other").exists(), "containerd removes the bundle")
    assert "other" in node.ctr("sandboxes", "list")


def test_the_same_id_may_stand_in_both_trees(node: SandboxNode) -> None:
    node.sandbox("twin")
    node.containerd.kill()
    kill_all({node.shim("twin")})
    node.unseen("twin")
    task = node.run("twin")  # of that name, and alive
    kept = Snapshot.take(node, [task])
    left = dict(tree(node.place("twin")))
    assert verdicts(node) == {"task:twin": "running", "sandbox:twin": "running"}
    assert product.clean(node)["results"] == []
    assert kept.changes(Snapshot.take(node, [task])) == []
    assert dict(tree(node.place("twin"))) == left
