"""Looks made by workers are the looks that the parent's own eyes would have made."""

import os
from pathlib import Path

import anyio

from reconciler.model.evidence import InitState, Look, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe.tree import TreeInspector
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import Limits, WorkerPool
from tests.support.bundles import Site, listen, site
from tests.support.mountns import private_mounts
from tests.worker.test_pool import first_worker, stopped

ABSENT = BundleKey("default", "absent")


def make(there: Site) -> list[BundleKey]:
    """Make a dead bundle with mounts and cgroups, one that is served, one of a pod, a symlink."""
    made = [
        there.bundle("dead"),
        there.bundle("served", mounted=False, cgroups=False),
        there.bundle("member", mounted=False, annotations={"io.kubernetes.cri.sandbox-id": "pod"}),
    ]
    (there.tree / "default" / "alias").symlink_to(made[0].path)
    return [*(one.key for one in made), BundleKey("default", "alias"), ABSENT]


@private_mounts
def test_a_worker_sees_what_we_see(tmp_path: Path) -> None:
    async def main(there: Site) -> None:
        keys = make(there)
        served = there.layout.shim_socket(keys[1].namespace, keys[1].id)
        os.unlink(served)
        with listen(Path(os.fsdecode(served))):
            inspector = TreeInspector(there.layout, annotation_keys=frozenset({"team"}))
            ours = [inspector.look(key) for key in keys]
            async with WorkerPool(WorkerScope(there.layout)) as pool:
                for _ in range(2):  # what it keeps makes no difference
                    assert await pool.look(keys, frozenset({"team"})) == tuple(ours)
            inspector.close()
        assert isinstance(ours[0], Look)
        assert isinstance(ours[1], Look)
        assert (ours[0].init.state, ours[0].mounts[0].path) == (InitState.DEAD, "rootfs")
        assert ours[1].shim.state is ShimState.ALIVE
        assert ours[-1] is None

    with site(tmp_path) as there:
        anyio.run(main, there)


@private_mounts
def test_a_worker_sees_what_has_come_alive_since_it_last_looked(tmp_path: Path) -> None:
    async def main(there: Site) -> None:
        bundle = there.bundle(mounted=False, cgroups=False)
        async with WorkerPool(WorkerScope(there.layout)) as pool:
            before = await pool.look([bundle.key], frozenset())
            assert before is not None
            assert isinstance(before[0], Look)
            assert before[0].shim.state is ShimState.DEAD
            bundle.socket.unlink()
            there.mount_rootfs(bundle)
            with listen(bundle.socket):
                after = await pool.look([bundle.key], frozenset())
        assert after is not None
        assert isinstance(after[0], Look)
        assert after[0].shim.state is ShimState.ALIVE
        assert [mount.path for mount in after[0].mounts] == ["rootfs"]

    with site(tmp_path) as there:
        anyio.run(main, there)


@private_mounts
def test_a_worker_that_hangs_gives_no_answer(tmp_path: Path) -> None:
    async def main(there: Site) -> None:
        bundle = there.bundle(mounted=False, cgroups=False)
        async with WorkerPool(WorkerScope(there.layout), limits=Limits(processes=5.0)) as pool:
            worker = await first_worker(pool)
            pool._limits = Limits(processes=0.2)
            with stopped(worker):
                assert await pool.look([bundle.key], frozenset()) is None
            pool._limits = Limits()
            again = await pool.look([bundle.key], frozenset())
            assert again is not None, "another worker looks"

    with site(tmp_path) as there:
        anyio.run(main, there)


@private_mounts
def test_a_worker_looks_at_no_tree_but_its_own(tmp_path: Path) -> None:
    async def main(there: Site) -> None:
        bundle = there.bundle(mounted=False, cgroups=False)
        async with WorkerPool(WorkerScope(there.layout)) as pool:
            pool._scope = WorkerScope(Layout(state=b"/run/other"))  # after its workers were told
            looks = await pool.look([bundle.key], frozenset())
            assert looks is not None
            assert isinstance(looks[0], Look)
            assert looks[0].identity == bundle.identity

    with site(tmp_path) as there:
        anyio.run(main, there)
