"""What nobody has seen refutes nobody: a cgroup that was only asked for, or is another's."""

import shutil
from collections.abc import Collection

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.cgroups import CgroupSource
from reconciler.model.evidence import CgroupState, InitState
from reconciler.model.ids import BundleKey
from reconciler.probe import documents
from reconciler.probe.cgroups import CgroupMounts, Cgroups
from reconciler.probe.context import NodeContext
from reconciler.probe.evidence import BundleFiles, ask_cgroups, ask_init
from reconciler.probe.folder import Folder
from reconciler.probe.listings import Listings
from reconciler.probe.runc import Runc
from tests.probe.world import KEY, World

pytestmark = [
    pytest.mark.safety,
    pytest.mark.fault("a cgroup made by another driver than config.json asks"),
]


def test_an_init_is_not_dead_for_a_cgroup_that_was_only_asked_for(world: World) -> None:
    pid = world.child()
    world.bundle(pid=pid, cgroup="pods.slice:cri-containerd:c1")
    shutil.rmtree(world.state_dir())
    look = world.look()
    assert (look.cgroup, look.cgroup_source) == (CgroupState.GONE, CgroupSource.CONFIG)
    assert (look.init.state, look.init.pid) == (InitState.NONE, pid)


@pytest.mark.parametrize("cgroup", CgroupState)
def test_only_a_cgroup_that_was_seen_tells_that_an_init_is_another_process(
    world: World, cgroup: CgroupState
) -> None:
    folder = Folder(files={"init.pid": b"%d" % world.child()})
    asked = Cgroups(cgroup, names=frozenset({"/nowhere/c1"}), source=CgroupSource.CONFIG)
    around = NodeContext(world.layout)
    init = ask_init(
        BundleFiles(KEY, KEY.path, folder, None, None), around, Runc(b"/nowhere"), asked
    )
    around.close()
    seen = cgroup in {CgroupState.EMPTY, CgroupState.POPULATED}
    assert init.state is (InitState.DEAD if seen else InitState.NONE)


def test_a_cgroup_of_another_bundles_state_does_not_say_that_the_one_asked_for_was_made(
    world: World,
) -> None:
    asked, other = frozenset({"/nowhere/c1"}), frozenset({"/theirs"})

    class Mounts(CgroupMounts):
        @override
        def look(
            self,
            key: BundleKey,
            named: Collection[str],
            inner: Collection[str],
            listings: Listings | None = None,
        ) -> Cgroups:
            if named:
                return Cgroups(CgroupState.EMPTY, (), asked | other, CgroupSource.RUNTIME)
            return Cgroups(CgroupState.GONE, (), asked, CgroupSource.CONFIG)

    folder = Folder(files={"init.pid": b"%d" % world.child()})
    spec = documents.parse_spec(b'{"linux": {"cgroupsPath": "/nowhere/c1"}}')
    own, theirs = (
        BundleFiles(KEY, KEY.path, folder, spec, None),
        Runc(b"/", bundle=b"/x", cgroup_dirs=("/theirs",)),
    )
    around = NodeContext(world.layout)
    around.cgroups = Mounts(())
    found = ask_cgroups(own, around, theirs)
    assert (found.state, found.source) == (CgroupState.GONE, CgroupSource.CONFIG)
    seen = replace(found, state=CgroupState.EMPTY)
    assert ask_init(own, around, theirs, seen).state is InitState.NONE
    around.close()
