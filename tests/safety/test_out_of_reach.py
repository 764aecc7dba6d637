"""What a file names may hang whoever looks at it: that is never the process that must not hang.

Each place is on a filesystem whose server never answers. The parent's own look leaves it out; a
worker looks there, is given up in time, and that piece of evidence is "no answer".
"""

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from reconciler.containerd import health
from reconciler.model.evidence import (
    Answer,
    ContainerdState,
    InitState,
    Look,
    PartialLook,
    ShimState,
)
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState
from reconciler.probe.tree import TreeInspector
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import Limits, WorkerPool
from tests.safety.elsewhere import (
    ARMED,
    DEAD,
    MOUNTED,
    SHARED,
    dead,
    dead_at,
    its_address,
    its_bootstrap_address,
    its_runtime_root,
    its_runtime_root_behind_a_symlink,
    its_socket_is_a_symlink,
)
from tests.safety.ground import ground
from tests.support.bundles import Bundle
from tests.support.deadfuse import end_if_it_hangs
from tests.support.forked import in_a_child
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

SECONDS = 5


def looked_at(layout: Layout, key: BundleKey) -> Look | PartialLook | None:
    """Look at a bundle in a process that is ended if it hangs."""

    def look() -> Look | PartialLook | None:
        end_if_it_hangs(SECONDS)
        inspector = TreeInspector(layout)
        with inspector.moment():
            found = inspector.look(key)
        inspector.close()
        return found

    return in_a_child(look)


@pytest.mark.fault("I18", "I25", "a file names a place on a dead filesystem")
@pytest.mark.parametrize("arm", ARMED, ids=lambda arm: arm.__name__)
@private_mounts
def test_our_own_look_goes_nowhere_a_file_names(
    tmp_path: Path, arm: Callable[[Bundle], None]
) -> None:
    with ground(tmp_path) as on:
        bundle = on.dead("named", mounted=False)
        arm(bundle)
        with dead():
            found = looked_at(on.site.layout, bundle.key)
        if arm in {its_runtime_root, its_runtime_root_behind_a_symlink}:
            assert isinstance(found, PartialLook)
            assert found.places == {str(DEAD)}
            assert found.look.init.state is InitState.NONE
            assert f"{DEAD} (fuse)" in found.look.init.detail
            return
        assert isinstance(found, Look), "it needs nothing that lies there"
        unasked = {its_address, its_bootstrap_address, its_socket_is_a_symlink}
        assert found.shim.state is (ShimState.NONE if arm in unasked else ShimState.DEAD)


@pytest.mark.fault("I18", "dead FUSE on rootfs")
@pytest.mark.parametrize("what", MOUNTED)
@private_mounts
def test_our_own_look_enters_nothing_that_is_mounted(tmp_path: Path, what: str) -> None:
    with ground(tmp_path) as on:
        bundle = on.dead("covered", mounted=False)
        with dead_at(MOUNTED[what](bundle)):
            found = looked_at(on.site.layout, bundle.key)
        assert isinstance(found, Look)


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@pytest.mark.parametrize("what", SHARED)
@private_mounts
def test_our_own_look_begins_nowhere_that_may_hang(tmp_path: Path, what: str) -> None:
    with ground(tmp_path) as on:
        bundle = on.dead("shared", mounted=False)
        place = SHARED[what](on)
        Path(os.fsdecode(place)).mkdir(exist_ok=True)
        with dead_at(Path(os.fsdecode(place))):
            found = looked_at(on.site.layout, bundle.key)
        assert isinstance(found, PartialLook)
        assert found.places == {escape(place)}
        look = found.look
        assert (look.shim.state is ShimState.NONE) == (what == "sockets")
        assert (look.init.state is InitState.NONE) == (what == "runtime root")


@private_mounts
def test_a_worker_sees_what_was_left_out(tmp_path: Path) -> None:
    """A filesystem that might hang, and does not: by name, since no server is at hand."""

    async def main(layout: Layout, key: BundleKey) -> None:
        inspector = TreeInspector(layout)
        before = inspector.look(key)
        assert isinstance(before, Look)
        inspector._around._reach.refresh(None, None)  # type: ignore[union-attr]  # it is there
        partly = inspector.look(key)
        assert isinstance(partly, PartialLook)
        assert partly.look.created is Answer.YES, "init.pid says so"
        async with WorkerPool(WorkerScope(layout)) as pool:
            whole = await pool.look_far([key], frozenset(), partly.places)
        inspector.close()
        assert whole == (before,)

    with ground(tmp_path) as on:
        anyio.run(main, on.site.layout, on.dead("whole").key)


@pytest.mark.fault("I18", "a file names a place on a dead filesystem")
@private_mounts
def test_a_worker_that_hangs_is_given_up_and_another_bundle_is_looked_at(tmp_path: Path) -> None:
    async def main(layout: Layout, stuck: BundleKey, other: BundleKey) -> None:
        places = frozenset({str(DEAD)})
        async with WorkerPool(WorkerScope(layout), limits=Limits(look=1.0)) as pool:
            assert await pool.look([other], frozenset()) is not None  # it is warm
            with dead():
                with anyio.fail_after(SECONDS):
                    assert await pool.look_far([stuck], frozenset(), places) is None
                    found = await pool.look_far([other], frozenset(), frozenset())
            assert found is not None
            assert isinstance(found[0], Look)

    with ground(tmp_path) as on:
        stuck, other = on.dead("stuck", mounted=False), on.dead("other", mounted=False)
        its_runtime_root(stuck)
        anyio.run(main, on.site.layout, stuck.key, other.key)


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@pytest.mark.parametrize("root", [".", "lib/containerd", "../dead-link"])
@private_mounts
def test_whose_the_tree_is_is_not_looked_up_by_ourselves(tmp_path: Path, root: str) -> None:
    """A moment ago a worker could look there; the root has died since."""

    async def read_lock(*, owner: bool = False) -> Lock:
        return Lock(LockState.FREE, doubt="" if owner else "not asked")

    with ground(tmp_path) as on:
        on.dead("some", mounted=False)
        (DEAD.parent / "dead-link").symlink_to(DEAD)
        path = os.path.normpath(DEAD / root)
        end_if_it_hangs(SECONDS)
        with dead():
            layout = replace(on.site.layout, root=os.fsencode(path))
            said = anyio.run(health.ask, layout, read_lock)
    assert said.state is ContainerdState.DOWN


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@private_mounts
def test_a_worker_that_hangs_over_whose_the_tree_is_proves_nothing(tmp_path: Path) -> None:
    async def main(layout: Layout) -> None:
        async with WorkerPool(WorkerScope(layout), limits=Limits(processes=1.0)) as pool:
            assert (await health.ask(layout, pool.lock)).state is ContainerdState.DOWN
            with dead_at(Path(os.fsdecode(layout.tasks))), anyio.fail_after(SECONDS):
                said = await health.ask(layout, pool.lock)
        assert said.state is ContainerdState.NONE
        assert "no answer in 1 s" in said.detail

    with ground(tmp_path) as on:
        on.dead("some", mounted=False)
        end_if_it_hangs(SECONDS * 2)
        anyio.run(main, on.site.layout)


@pytest.mark.fault("a wrong root with a stale database")
@pytest.mark.parametrize("root", [None, "/elsewhere"], ids=["its own", "another"])
@private_mounts
def test_a_worker_tells_whose_the_tree_is_if_it_is_asked(tmp_path: Path, root: str | None) -> None:
    async def main(layout: Layout) -> None:
        async with WorkerPool(WorkerScope(layout)) as pool:
            assert (await pool.lock()).doubt, "it was not asked"
            found = await pool.lock(owner=True)
            said = await health.ask(layout, pool.lock)
        assert found.state is LockState.FREE
        assert found.doubt == "" if root is None else f"root {root}" in found.doubt
        assert said.state is (ContainerdState.DOWN if root is None else ContainerdState.NONE)

    with ground(tmp_path) as on:
        link = on.dead("some", mounted=False).path / "work"
        if root is not None:
            target = os.readlink(link).replace(os.fsdecode(on.site.layout.root), root)
            link.unlink()
            link.symlink_to(target)
        anyio.run(main, on.site.layout)
