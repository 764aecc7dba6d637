"""A worker holds what a cleanup needs and nothing else: without any one of them it fails."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from reconciler.kernel import confine
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Answer
from reconciler.model.observations import Guard
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.probe.privileges import PARENT, WORKER, Privilege, numbers
from reconciler.worker.guards import Preflight, refusals
from reconciler.worker.messages import PreflightReport, WorkerScope
from reconciler.worker.pool import WorkerPool
from reconciler.worker.preflight import lacking_capabilities
from tests.support.bundles import DOWN, Bundle, Site, listen, site
from tests.support.cgroups import join
from tests.support.forked import in_a_child, mask, status_of
from tests.support.mountns import private_mounts
from tests.worker.test_orphans import name_init

T = TypeVar("T")

MAPPED, OTHER = 100_000, 100_001
"""Users of a container with a user namespace, as the machine sees them."""

ALL = numbers(WORKER)
BY_NAME = {one.name: one for one in WORKER}


def granted(
    capabilities: frozenset[int],
    made: Site,
    ask: Callable[[WorkerPool], Awaitable[T]],
    *,
    runc: str = "runc",
    no_new_privileges: bool = False,
) -> T:
    """Ask a pool whose workers are granted no more than these, as by a unit."""

    async def whole() -> T:
        async with WorkerPool(WorkerScope(made.layout, runc=runc)) as pool:
            return await ask(pool)

    def body() -> T:
        if no_new_privileges:
            confine.no_new_privileges()
        confine.drop_capabilities(capabilities)  # the bounding set, so that root's exec is limited
        return anyio.run(whole)

    return in_a_child(body)


def clean(bundle: Bundle) -> Callable[[WorkerPool], Awaitable[Outcome]]:
    return lambda pool: pool.clean(bundle.key, bundle.identity, DOWN)


def kill(bundle: Bundle) -> Callable[[WorkerPool], Awaitable[Outcome]]:
    return lambda pool: pool.clean(bundle.key, bundle.identity, DOWN, wanted=Verdict.ORPHANED)


def is_cleaned(bundle: Bundle, outcome: Outcome) -> bool:
    return (outcome.result, bundle.left(), bundle.mounts()) == (Result.CLEANED, [], [])


Task = tuple[Callable[[WorkerPool], Awaitable[Outcome]], Callable[[Outcome], bool]]
"""What is asked for, and whether all of it was done."""


@contextmanager
def a_mounted_rootfs(made: Site) -> Iterator[Task]:
    bundle = made.bundle()
    yield clean(bundle), partial(is_cleaned, bundle)


@contextmanager
def a_bundle_of_another_user(made: Site) -> Iterator[Task]:
    bundle = made.bundle(mounted=False)
    for path in (bundle.path, *bundle.path.rglob("*")):
        os.chown(path, MAPPED, MAPPED, follow_symlinks=False)
    bundle.path.chmod(0o700)
    yield clean(bundle), partial(is_cleaned, bundle)


@contextmanager
def a_sticky_directory_in_it(made: Site) -> Iterator[Task]:
    bundle = made.bundle(mounted=False)
    sticky = bundle.path / "sticky"
    sticky.mkdir()
    (sticky / "file").write_text("")
    os.chown(sticky, MAPPED, MAPPED)
    os.chown(sticky / "file", OTHER, OTHER)
    sticky.chmod(0o1777)
    yield clean(bundle), partial(is_cleaned, bundle)


@contextmanager
def a_rootfs_that_somebody_uses(made: Site) -> Iterator[Task]:
    bundle = made.bundle()
    with sleeping(cwd=bundle.rootfs) as holder:

        def is_told(outcome: Outcome) -> bool:
            assert (outcome.result, outcome.reason) == (Result.BLOCKED, BlockReason.MOUNT_BUSY), (
                outcome
            )
            return [one.pid for one in outcome.holders] == [holder.pid]

        yield clean(bundle), is_told


@contextmanager
def an_orphan_of_another_user(made: Site) -> Iterator[Task]:
    bundle = made.bundle()
    with sleeping(cwd=Path("/")) as init:
        join(init.pid, bundle.cgroups)
        name_init(bundle, init.pid)

        def is_killed(outcome: Outcome) -> bool:
            assert outcome.result is not Result.SKIPPED, outcome
            return outcome.result is Result.KILLED and init.poll() is not None

        yield kill(bundle), is_killed


@contextmanager
def sleeping(cwd: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of another user; ended whatever happens."""
    child = subprocess.Popen(["sleep", "600"], cwd=cwd, user=65534, start_new_session=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


SCENES = {
    "CAP_SYS_ADMIN": a_mounted_rootfs,
    "CAP_DAC_OVERRIDE": a_bundle_of_another_user,
    "CAP_FOWNER": a_sticky_directory_in_it,
    "CAP_SYS_PTRACE": a_rootfs_that_somebody_uses,
    "CAP_KILL": an_orphan_of_another_user,
}


def test_there_is_a_reason_to_hold_each_and_a_scene_that_shows_it() -> None:
    assert set(SCENES) == set(BY_NAME)


@private_mounts
@pytest.mark.parametrize("name", SCENES)
def test_with_exactly_these_a_worker_does_it_all(tmp_path: Path, name: str) -> None:
    with site(tmp_path) as made, SCENES[name](made) as (ask, is_done):
        outcome = granted(ALL, made, ask)
        assert is_done(outcome), outcome


@private_mounts
@pytest.mark.parametrize("name", SCENES)
def test_without_one_of_them_it_does_not(tmp_path: Path, name: str) -> None:
    with site(tmp_path) as made, SCENES[name](made) as (ask, is_done):
        outcome = granted(ALL - {BY_NAME[name].number}, made, ask)
        assert not is_done(outcome), outcome


@pytest.mark.fault("missing CAP_SYS_PTRACE")
@private_mounts
@pytest.mark.parametrize("missing", WORKER, ids=lambda one: one.name)
def test_a_guard_names_the_one_that_is_missing(tmp_path: Path, missing: Privilege) -> None:
    with site(tmp_path) as made:
        stood = granted(ALL - {missing.number}, made, WorkerPool.preflight)
        assert isinstance(stood, PreflightReport)
        assert stood.lacking == ((missing.name,) if missing.needed else ())
        found = {one.guard for one in refusals(Preflight(stood, made.layout.tasks, True))}
        assert (Guard.PRIVILEGES in found) == missing.needed


@pytest.mark.fault("missing CAP_SYS_PTRACE")
@pytest.mark.parametrize(
    ("effective", "lacking"),
    [
        ("000001ffffffffff", ()),
        ("0000000000000000", tuple(one.name for one in WORKER if one.needed)),
        ("000001ffffdfffff", ("CAP_SYS_ADMIN",)),
        ("garbage", None),
    ],
)
def test_missing_capabilities_are_named(
    tmp_path: Path, effective: str, lacking: tuple[str, ...] | None
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\tx\nCapEff:\t{effective}\n")
    assert lacking_capabilities(os.fsencode(tmp_path)) == lacking
    assert lacking_capabilities(os.fsencode(tmp_path / "absent")) is None


@private_mounts
def test_namespaces_of_a_containerd_with_more_power_need_ptrace(tmp_path: Path) -> None:
    def answers(stood: PreflightReport | str) -> set[Answer]:
        assert isinstance(stood, PreflightReport)
        assert stood.reference == f"containerd (pid {os.getpid()})"
        return {stood.same_pids, stood.same_time, stood.same_mounts}

    with site(tmp_path) as made, listen(Path(os.fsdecode(made.layout.address))):
        assert answers(granted(ALL, made, WorkerPool.preflight)) == {Answer.YES}
        without = ALL - {BY_NAME["CAP_SYS_PTRACE"].number}
        assert answers(granted(without, made, WorkerPool.preflight)) == {Answer.NONE}


@private_mounts
@pytest.mark.parametrize("shipped", [False, True], ids=["with the drop-in", "unit as shipped"])
def test_poststop_hooks_get_what_the_unit_grants(tmp_path: Path, shipped: bool) -> None:
    """With NoNewPrivileges that is what the worker has; the drop-in for hooks takes both away."""
    runc, said = tmp_path / "runc", tmp_path / "said"
    runc.write_text(f'#!/bin/sh\ncat /proc/self/status > {said}\nrm -r "$2/$5"\n')
    runc.chmod(0o755)
    unit = ALL | numbers(PARENT) if shipped else frozenset(range(64))
    with site(tmp_path) as made:
        bundle = made.bundle(hooks=[{"path": "/bin/true"}], cgroups=False)
        outcome = granted(unit, made, clean(bundle), runc=str(runc), no_new_privileges=shipped)
        assert outcome.result is Result.CLEANED, outcome
    permitted = int(said.read_text().split("CapPrm:\t")[1].split()[0], 16)
    assert permitted == (mask(ALL) if shipped else status_of()["CapBnd"])
