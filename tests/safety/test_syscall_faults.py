"""Each system call of a cleanup fails in each way: never a traceback, never harm, the right word.

What was blocked is cleaned by the next attempt without the fault, in the same worker. `make soak`
adds every fault at every call that only looks.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from reconciler import kernel
from reconciler.demo.node import Process
from reconciler.model.outcome import BlockReason, Outcome, Result
from tests.safety import straced
from tests.safety.faulting import REASONS, Report
from tests.safety.ground import Ground, ground
from tests.safety.working import Work, hidden_of, in_shards, working
from tests.support.bundles import Bundle
from tests.support.canary import plant
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

RENAME_EXCHANGE = 2
SLOW = 800_000  # microseconds; long enough beside two busy processors


def failed(record: Callable[[str, object], None], *options: str) -> int:
    """Let everything fail; give how often something did."""
    reports = in_shards(Report, *options)
    faults, looks = sum(one.faults for one in reports), sum(one.looks for one in reports)
    ends: dict[str, int] = {}
    for one in reports:
        for result, count in one.results.items():
            ends[result] = ends.get(result, 0) + count
    sys.stdout.write(f"{faults} faults, {looks} of them in looks; ends: {ends}\n")  # for -rP
    record("faults", faults)
    record("losses", sum(len(one.lost) for one in reports))
    assert [one.lost for one in reports] == [[], []]
    assert [one.wrong for one in reports] == [[], []]
    assert [one.left for one in reports] == [[], []]
    assert {reason.value for reason in REASONS.values()} <= ends.keys(), "too few were met"
    return faults


@pytest.mark.fault("I6", "EIO on one entry", "openat2 ENOSYS, EAGAIN", "read-only filesystem")
@pytest.mark.timeout(240)
def test_no_failing_call_breaks_or_harms_anything(
    record_property: Callable[[str, object], None],
) -> None:
    assert failed(record_property) > 800


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_failing_call_whatsoever_breaks_or_harms_anything(
    record_property: Callable[[str, object], None],
) -> None:
    assert failed(record_property, "--every") > 4000


def on_ground(base: Path, test: Callable[[Work], Awaitable[None]]) -> None:
    """Do something to a worker, and see that nobody else was harmed."""
    straced.needed()

    async def main(on: Ground) -> None:
        async with working(on, "whole") as work:
            await test(work)

    with ground(base) as on:
        anyio.run(main, on)
        assert on.harm() == []


async def faulty(work: Work, bundle: Bundle, *inject: str) -> Outcome:
    options = [word for one in inject for word in ("-e", f"inject={one}")]
    with straced.attached(await work.worker(), *options):
        return await work.do(bundle)


@pytest.mark.fault("EBUSY twice, then success")
@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("umount2", "1..2"),  # of rootfs
        ("unlinkat", "1..2"),  # the rmdir of rootfs
        ("renameat2", "3..4"),  # the bundle's; those of runc's state and the socket are warnings
    ],
)
@private_mounts
def test_busy_twice_and_then_not(tmp_path: Path, call: str, when: str) -> None:
    async def main(work: Work) -> None:
        bundle = await work.bundle("busy")
        inject = f"inject={call}:error=EBUSY:when={when}"
        with straced.attached(await work.worker(), "-e", inject):
            outcomes = [await work.do(bundle) for _ in range(3)]
        assert [one.result for one in outcomes] == [Result.BLOCKED, Result.BLOCKED, Result.CLEANED]
        assert {one.reason for one in outcomes[:2]} == {BlockReason.MOUNT_BUSY}
        assert (bundle.left(), bundle.mounts()) == ([], [])

    on_ground(tmp_path, main)


@pytest.mark.fault("slow filesystem")
@private_mounts
def test_slow_calls_change_nothing_but_the_time(tmp_path: Path) -> None:
    async def main(work: Work) -> None:
        bundle = await work.bundle("slow")
        calls = "openat2,unlinkat,renameat2,umount2,statx,getdents64,read"
        outcome = await faulty(work, bundle, f"{calls}:delay_enter=2000:delay_exit=2000")
        assert outcome.result is Result.CLEANED, outcome
        assert outcome.seconds > 0.1
        assert (bundle.left(), bundle.mounts()) == ([], [])

    on_ground(tmp_path, main)


async def meanwhile(work: Work, bundle: Bundle, call: str, change: Callable[[], None]) -> Outcome:
    """Clean with one call that strace holds back, and change the world before it is made."""
    outcomes: list[Outcome] = []
    pid = await work.worker()

    async def clean() -> None:
        inject = f"inject={call}:delay_enter={SLOW}"
        with straced.attached(pid, "-e", inject):
            attached.set()
            outcomes.append(await work.do(bundle))

    attached = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clean)
        await attached.wait()
        with anyio.fail_after(10):
            held = 0
            while held < 10:  # other stops of the tracee take microseconds
                held = held + 1 if straced.is_stopped(pid) else 0
                await anyio.sleep(0.005)
        change()
        assert outcomes == [], "it was not held back for long enough"
    return outcomes[0]


def create_again(work: Work, bundle: Bundle) -> None:
    """Let containerd remove the bundle and give its id to a new task, whose data are canaries."""
    os.rename(bundle.path, bundle.path.parent / "aside")
    for place in (bundle.runc_state, bundle.work):
        if place.exists():
            os.rename(place, place.parent / "aside")
        work.on.canaries.append(plant(place))
    work.on.canaries.append(plant(bundle.path))


@pytest.mark.fault("I8", "id created again between look and action")
@private_mounts
def test_an_id_created_again_before_the_rename_gets_its_name_back(tmp_path: Path) -> None:
    """Between the look and the rename: what has the name then is another object."""

    async def main(work: Work) -> None:
        bundle = await work.bundle("again")
        outcome = await meanwhile(
            work,
            bundle,
            "renameat2:when=3",  # those before are of runc's state and of the socket
            lambda: create_again(work, bundle),
        )
        assert outcome.reason is BlockReason.CHANGED, outcome
        assert "renamed back" in outcome.detail

    on_ground(tmp_path, main)


@pytest.mark.fault("I8")
@pytest.mark.parametrize("level", ["bundle", "namespace"])
@pytest.mark.parametrize(
    "call",
    [
        "umount2:when=1",  # of rootfs
        "unlinkat:when=1",  # the rmdir of rootfs
        "unlinkat:when=2",  # of the first cgroup
        "renameat2:when=2",  # of the bundle
        "getdents64:when=9",  # in the removal
    ],
)
@private_mounts
def test_exchanged_for_a_live_one_between_look_and_act(
    tmp_path: Path, call: str, level: str
) -> None:
    """The live one is in the dead one's place while the worker goes on, and back after that."""

    async def main(work: Work) -> None:
        bundle = await work.bundle("exchanged")
        live = work.on.live[0].bundle.path
        pairs: list[tuple[Path, Path]] = []

        def exchange() -> None:
            dead = hidden_of(bundle) or bundle.path
            pair = (dead, live) if level == "bundle" else (dead.parent, live.parent)
            pairs.append(pair)
            swap(*pair)

        outcome = await meanwhile(work, bundle, call, exchange)
        swap(*pairs[0])
        assert outcome.result in {Result.BLOCKED, Result.CLEANED, Result.SKIPPED}, outcome

    on_ground(tmp_path, main)


def swap(one: Path, other: Path) -> None:
    """Exchange two directories; one that is gone by now is made again for that."""
    one.mkdir(exist_ok=True)
    here = kernel.AT_FDCWD
    kernel.renameat2(here, os.fsencode(one), here, os.fsencode(other), RENAME_EXCHANGE)


@pytest.mark.fault("I8", "id created again between look and action")
@private_mounts
def test_what_a_new_task_of_the_same_id_owns_is_not_taken_for_the_old_ones(tmp_path: Path) -> None:
    """Once the bundle is another one nothing that goes by the id may be removed any more."""

    async def main(work: Work) -> None:
        bundle = work.on.dead("again", cgroups=False)
        outcome = await meanwhile(
            work,
            bundle,
            "unlinkat:when=1",  # the rmdir of rootfs
            lambda: create_again(work, bundle),
        )
        assert outcome.reason is BlockReason.CHANGED, outcome

    on_ground(tmp_path, main)


@pytest.mark.fault("I14", "cgroup populated")
@private_mounts
def test_a_populated_cgroup_is_seen_though_every_cheap_question_fails(tmp_path: Path) -> None:
    async def main(work: Work) -> None:
        bundle = await work.bundle("populated")
        child = Process(["lonely"])
        try:
            for group in bundle.cgroups:
                if "pids" in group.parts:
                    (group / "cgroup.procs").write_text(str(child.pid))
                else:
                    group.rmdir()
            outcome = await faulty(work, bundle, "faccessat,faccessat2,access:error=EIO")
            assert outcome.result is Result.SKIPPED, outcome
            assert child.alive
        finally:
            child.end()

    on_ground(tmp_path, main)
