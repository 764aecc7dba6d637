"""Ending orphans, where the operator wants that: whoever names another's cgroup ends nobody."""

import json
import os
from pathlib import Path

import anyio
import pytest

from reconciler.model.decisions import Verdict
from reconciler.model.layout import TASKS
from reconciler.model.outcome import BlockReason, Outcome, Result
from tests.safety.attacks import name_cgroups
from tests.safety.ground import Ground, ground, name_init
from tests.safety.populated import populate
from tests.safety.working import working
from tests.support.bundles import CGROUPS, DOWN, Bundle
from tests.support.cgroups import freeze, join
from tests.support.mountns import private_mounts
from tests.support.shims import alive, child_of_a_shim

pytestmark = [pytest.mark.safety, pytest.mark.kernel]


def end(on: Ground, bundle: Bundle) -> Outcome:
    async def main() -> Outcome:
        async with working(on, "whole") as work:
            return await work.pool.clean(bundle.key, bundle.identity, DOWN, wanted=Verdict.ORPHANED)

    return anyio.run(main)


def elsewhere(on: Ground) -> Path:
    """Give another containerd's tree."""
    return on.site.base / "elsewhere" / TASKS.decode()


def point_at(bundle: Bundle, groups: tuple[Path, ...]) -> None:
    for group in bundle.cgroups:
        group.rmdir()
    path = "/" + "/".join(groups[0].parts[5:])
    name_cgroups(bundle, path, {group.parts[4]: str(group) for group in groups})


@pytest.mark.fault("I14", "I15")
@private_mounts
def test_a_task_of_the_same_id_in_another_namespace_lives(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        liar, other = on.dead("same"), on.dead("same", "other")
        innocent = populate(other.cgroups)
        try:
            point_at(liar, other.cgroups)
            outcome = end(on, liar)
            assert innocent.alive, outcome
            assert outcome.reason is BlockReason.CGROUP
        finally:
            innocent.end()
        assert on.harm() == []


@pytest.mark.fault("I14", "I15")
@private_mounts
def test_a_task_whose_id_ends_in_this_one_lives(tmp_path: Path) -> None:
    """`cri-containerd-x-c1.scope` is that of `x-c1`, though it ends in `-c1`."""
    with ground(tmp_path) as on:
        liar = on.dead("c1")
        other = on.dead("x-c1", cgroups=False)
        name = f"cri-containerd-{other.path.name}.scope"
        scopes = tuple(one / on.site.cgroup / name for one in sorted(CGROUPS.iterdir()))
        innocent = populate(scopes)
        try:
            point_at(other, scopes)
            point_at(liar, scopes)
            outcome = end(on, liar)
            assert innocent.alive, outcome
            assert outcome.reason is BlockReason.CGROUP
        finally:
            innocent.end()
            for scope in scopes:
                os.rmdir(scope)
        assert on.harm() == []


@pytest.mark.fault("I15", "init.pid of a reused PID")
@private_mounts
def test_an_init_that_a_state_file_borrowed_lives(tmp_path: Path) -> None:
    """Pid and start time of a live task's init, and nothing else of it."""
    with ground(tmp_path) as on:
        liar = on.dead("borrower", cgroups=False)
        init = on.live[0].init
        name_init(liar, init)
        outcome = end(on, liar)
        assert outcome.result is not Result.KILLED, outcome
        assert on.harm() == []


@private_mounts
def test_its_own_processes_are_ended_although_others_have_its_id(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        orphan, other = on.dead("same"), on.dead("same", "other")
        process = populate(orphan.cgroups)
        innocent = populate(other.cgroups)
        try:
            outcome = end(on, orphan)
            assert outcome.result is Result.KILLED, outcome
            assert not process.alive
            assert innocent.alive
        finally:
            process.end()
            innocent.end()
        assert on.harm() == []


# --------------------------------------------------------------------- whose it is, beyond doubt


def tell(bundle: Bundle, **changes: object) -> None:
    """Change what runc's state says."""
    path = bundle.runc_state / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def left_alone(outcome: Outcome, why: str) -> None:
    assert outcome.reason is BlockReason.CGROUP, outcome
    assert why in outcome.detail, outcome.detail
    assert sum(step.mutations for step in outcome.steps) == 0


@pytest.mark.fault("I15", "a container in or below another's cgroup")
@pytest.mark.parametrize("below", ["", "deep/down"])
@private_mounts
def test_a_container_that_was_started_in_the_cgroup_of_a_dead_one_lives(
    tmp_path: Path, below: str
) -> None:
    """`ctr run --cgroup` and `--cgroup-parent` do that; its shim is another containerd's here."""
    with ground(tmp_path) as on:
        dead = on.dead("dead")
        with child_of_a_shim(elsewhere(on) / "default" / "guest") as guest:
            join(guest, [group / below for group in dead.cgroups])
            outcome = end(on, dead)
            assert alive(guest)
            left_alone(outcome, f"pid {guest} belongs to a living shim")
        assert on.harm() == []


@pytest.mark.fault("I15", "a container in or below another's cgroup")
@pytest.mark.parametrize("below", ["", "deep"])
@private_mounts
def test_another_orphan_in_the_cgroup_of_a_dead_one_lives(tmp_path: Path, below: str) -> None:
    """Its own bundle may be protected, and is asked about nothing."""
    with ground(tmp_path) as on:
        dead, other = on.dead("dead"), on.dead("other", cgroups=False)
        groups = tuple(group / below for group in dead.cgroups)
        innocent = populate(groups)
        try:
            path = "/" + "/".join(groups[0].parts[5:])
            name_cgroups(other, path, {group.parts[4]: str(group) for group in groups})
            outcome = end(on, dead)
            assert innocent.alive
            left_alone(outcome, f"may be that of {other.key}")
        finally:
            innocent.end()
        assert on.harm() == []


@pytest.mark.fault("I15", "a reused pid whose cgroup path contains the id")
@private_mounts
def test_a_reused_pid_in_a_cgroup_whose_path_has_the_id_lives(tmp_path: Path) -> None:
    """As all that dockerd runs is below a cgroup called `docker`."""
    with ground(tmp_path) as on:
        dead = on.dead("docker")
        below = tuple(top / on.site.cgroup / dead.path.name / "abc" for top in CGROUPS.iterdir())
        innocent = populate(below)
        try:
            name_init(dead, innocent)
            tell(dead, init_process_start=innocent.start_ticks - 1)
            outcome = end(on, dead)
            assert innocent.alive, outcome
            assert sum(step.mutations for step in outcome.steps) == 0
            tell(dead, init_process_start=innocent.start_ticks)  # in the same tick, by chance
            outcome = end(on, dead)
            assert innocent.alive, outcome
            assert sum(step.mutations for step in outcome.steps) == 0
        finally:
            innocent.end()
        assert on.harm() == []


@pytest.mark.fault("I15", "the same name in another containerd")
@private_mounts
def test_a_member_of_the_same_name_in_another_containerd_lives(tmp_path: Path) -> None:
    """It is looked after by its pod's shim, which has another name."""
    with ground(tmp_path) as on:
        dead = on.dead("web")
        tree = on.site.base / "other" / TASKS.decode()
        namesake = tree / "default" / dead.path.name
        namesake.mkdir(parents=True)
        with child_of_a_shim(tree / "default" / "pod") as guest:
            join(guest, dead.cgroups)
            left_alone(end(on, dead), "another containerd, that of the shim with pid")
            assert alive(guest)
            orphan = populate(dead.cgroups)  # whose it is cannot be known from here, either
            try:
                left_alone(end(on, dead), "has one so named")
                assert orphan.alive
            finally:
                orphan.end()
        assert on.harm() == []


@pytest.mark.fault("I15", "the same name in another containerd")
@private_mounts
def test_a_state_that_is_another_containerds_speaks_for_nobody_here(tmp_path: Path) -> None:
    """Both keep it in the same directory: whoever started the id last wrote it."""
    with ground(tmp_path) as on:
        dead = on.dead("web")
        theirs = f"/run/other/{TASKS.decode()}/default/{dead.path.name}"
        innocent = populate(dead.cgroups)
        try:
            name_init(dead, innocent)
            for config in (
                {"labels": [f"bundle={theirs}"], "rootfs": str(dead.rootfs)},
                {"labels": None, "rootfs": f"{theirs}/rootfs"},
            ):
                tell(dead, config=config)
                left_alone(end(on, dead), f"is that of {theirs}")
            for silent in ({"labels": [str(dead.path)]}, {"rootfs": "/rootfs"}):
                tell(dead, config=silent)
                left_alone(end(on, dead), "which bundle")
            assert innocent.alive
            tell(dead, config={"labels": [f"bundle={dead.path}"], "rootfs": "/var/lib/docker/x"})
            assert end(on, dead).result is Result.KILLED
        finally:
            innocent.end()
        assert on.harm() == []


@pytest.mark.fault("I15", "cgroup frozen")
@private_mounts
def test_what_is_frozen_is_thawed_and_ended_only_if_it_is_its_own(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        orphan = on.dead("frozen")
        freezers = [group for group in orphan.cgroups if "freezer" in group.parts]
        if not freezers:
            pytest.skip("no freezer of cgroup version 1")
        inner = [group / "inner" for group in freezers]
        process = populate(orphan.cgroups)
        try:
            with child_of_a_shim(elsewhere(on) / "default" / "guest") as guest:
                join(guest, inner)
                with freeze(inner + freezers):
                    left_alone(end(on, orphan), "frozen, and not shown to be its own")
                    states = [(group / "freezer.state").read_text() for group in inner + freezers]
                    assert states == ["FROZEN\n"] * 2
                join(guest, [group.parent for group in freezers])
            with freeze(inner + freezers):
                outcome = end(on, orphan)
                assert outcome.result is Result.KILLED, outcome
                assert not process.alive
        finally:
            process.end()
        assert on.harm() == []


@pytest.mark.fault("cgroup frozen")
@private_mounts
def test_what_a_cgroup_above_freezes_is_said_to_be_frozen(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        orphan = on.dead("frozen")
        above = [group.parent for group in orphan.cgroups if "freezer" in group.parts]
        if not above:
            pytest.skip("no freezer of cgroup version 1")
        process = populate(orphan.cgroups)
        try:
            with freeze(above):
                left_alone(end(on, orphan), "frozen by a cgroup above it")
                assert process.alive
        finally:
            process.end()
        assert on.harm() == []
