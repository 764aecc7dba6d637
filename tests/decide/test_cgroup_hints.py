"""What living processes in cgroups of some name mean for the verdicts on bundles."""

import pytest
from msgspec.structs import replace

from reconciler.model.cgroups import CgroupSource
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import CgroupState, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from tests.decide.world import World, dead, leftover


def test_a_name_of_which_an_old_journal_tells_no_path_still_counts() -> None:
    world = World()
    world.listed(a=1)
    world.look(replace(dead(), cgroup_source=CgroupSource.RUNTIME))
    world.node(scan=ProcessScan(answered=True, cgroup_names=frozenset({"a"})))
    assert world.view().judgement.verdict is Verdict.ORPHANED


@pytest.mark.safety
@pytest.mark.fault("an id that is a word of somebody's cgroup path")
def test_a_word_in_anybodys_cgroup_path_is_not_told_from_life_only_where_nothing_is_named() -> None:
    for path in ("/user.slice/user-0.slice/session-a.scope", "/a/web", "/other/a"):
        world = leftover()
        named = replace(dead(), cgroup=CgroupState.EMPTY, cgroup_source=CgroupSource.RUNTIME)
        world.node(scan=ProcessScan(answered=True, cgroup_paths=frozenset({path})))
        world.look(named)
        assert world.view().judgement.verdict is Verdict.LEFTOVER
        world.look(replace(named, cgroup_source=CgroupSource.NONE))
        assert world.view().judgement.verdict is Verdict.ORPHANED
        world.node(scan=ProcessScan(answered=True))
        assert world.view().judgement.verdict is Verdict.LEFTOVER


@pytest.mark.safety
@pytest.mark.fault("a cgroup made by another driver than config.json asks")
def test_a_workload_in_a_cgroup_of_another_driver_lives_though_the_one_asked_for_is_gone() -> None:
    world = leftover()
    asked = replace(
        dead(),
        cgroup=CgroupState.GONE,
        cgroup_source=CgroupSource.CONFIG,
        cgroup_paths=("/pods.slice/cri-containerd-a.scope",),
    )
    path = "/system.slice/pods.slice:cri-containerd:a"
    for source in (CgroupSource.CONFIG, CgroupSource.NONE):
        world.node(scan=ProcessScan(answered=True, cgroup_paths=frozenset({path})))
        world.look(replace(asked, cgroup_source=source))
        assert world.view().judgement.verdict is Verdict.ORPHANED
        world.node(scan=ProcessScan(answered=True))
        assert world.view().judgement.verdict is Verdict.LEFTOVER


@pytest.mark.safety
@pytest.mark.fault("an id that lives in another namespace")
def test_a_namesake_whose_shim_lives_explains_its_cgroup_for_as_long_as_it_does() -> None:
    world = leftover()
    path = frozenset({"/other/a"})
    namesake = ShimProcess(BundleKey("other", "a"), 9)
    world.node(scan=ProcessScan(True, cgroup_paths=path))
    assert world.view().judgement.verdict is Verdict.ORPHANED
    world.node(scan=ProcessScan(True, shims=(namesake,), cgroup_paths=path))
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    world.node(scan=ProcessScan(True, cgroup_paths=path))
    assert world.view().judgement.verdict is Verdict.ORPHANED
