"""Ending orphans, where the operator wants that: whoever names another's cgroup ends nobody."""

import os
from pathlib import Path

import anyio
import pytest

from reconciler.model.outcome import BlockReason, Outcome, Result
from tests.safety.attacks import name_cgroups
from tests.safety.ground import Ground, ground, name_init
from tests.safety.populated import populate
from tests.safety.working import working
from tests.support.bundles import CGROUPS, DOWN, Bundle
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]


def end(on: Ground, bundle: Bundle) -> Outcome:
    async def main() -> Outcome:
        async with working(on, "whole") as work:
            return await work.executor.kill(bundle.key, bundle.identity, DOWN)

    return anyio.run(main)


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
