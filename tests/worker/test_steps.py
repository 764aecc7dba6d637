"""The steps of a cleanup, in one process, against real mounts, cgroups, sockets and files."""

import errno
import os
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.outcome import BlockReason, Result
from reconciler.probe.points import MountPoints
from reconciler.worker.messages import CleanupOptions
from tests.probe import world
from tests.support import canary, mountns
from tests.support.bundles import Bundle, Site, identify, listen
from tests.support.inline import (
    assert_blocked,
    assert_cleaned,
    assert_untouched,
    inline_worker,
    step,
)
from tests.support.mountns import private_mounts


@pytest.mark.fault("idle overlay")
@private_mounts
def test_takes_the_steps_in_the_order_that_keeps_the_id_locked(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        outcome = inline.clean(bundle)
        assert_cleaned(outcome, bundle)
        order = "guards hooks unmount rootfs cgroup runc-state shim-socket fifo work-dir bundle"
        assert inline.began == order.split()
        assert [one.step for one in outcome.steps] == order.split()


FILES = [*world.FILES, "work"]


@pytest.mark.parametrize("missing", [[name] for name in FILES] + [FILES])
@private_mounts
def test_cleans_whatever_file_is_missing(tmp_path: Path, missing: list[str]) -> None:
    with inline_worker(tmp_path) as (made, inline):
        inline.options = CleanupOptions(settle=0.0)
        bundle = made.bundle()
        for name in missing:
            (bundle.path / name).unlink()
        assert_cleaned(inline.clean(bundle), bundle)


@pytest.mark.parametrize("missing", ["runc_state", "work", "socket", "cgroups", "rootfs"])
@private_mounts
def test_cleans_what_is_left_if_something_outside_is_gone(tmp_path: Path, missing: str) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(cgroups=missing != "cgroups", mounted=missing != "rootfs")
        match missing:
            case "runc_state":
                (bundle.runc_state / "state.json").unlink()
                bundle.runc_state.rmdir()
            case "work":
                bundle.work.rmdir()
            case "socket":
                bundle.socket.unlink()
            case "rootfs":
                bundle.rootfs.rmdir()
            case "cgroups":
                pass  # they were never made
            case _:
                raise AssertionError(missing)
        assert_cleaned(inline.clean(bundle), bundle)


@private_mounts
def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        assert_cleaned(inline.clean(bundle), bundle)
        again = inline.clean(bundle)
        assert again.result is Result.SKIPPED
        assert (again.look, again.steps) == (None, ())


@pytest.mark.fault("busy rootfs")
@private_mounts
def test_a_busy_rootfs_blocks_names_its_holder_and_is_cleaned_once_free(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        left = bundle.left()
        with subprocess.Popen(["sleep", "60"], cwd=bundle.rootfs) as holder:
            try:
                outcome = inline.clean(bundle)
                assert_blocked(outcome, BlockReason.MOUNT_BUSY)
                assert [one.pid for one in outcome.holders] == [holder.pid]
                assert bundle.mounts() == [str(bundle.rootfs)]
                assert_untouched(outcome, bundle, left)
            finally:
                holder.kill()
        assert_cleaned(inline.clean(bundle), bundle)


@private_mounts
def test_detaches_a_busy_rootfs_only_where_that_is_configured(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        inline.options = CleanupOptions(lazy_unmount=True)
        with subprocess.Popen(["sleep", "60"], cwd=bundle.rootfs) as holder:
            try:
                outcome = inline.clean(bundle)
            finally:
                holder.kill()
        assert_cleaned(outcome, bundle)
        assert "detached" in step(outcome, "unmount").detail


@pytest.mark.fault("I13", "foreign mount", "file bind over config.json")
@pytest.mark.parametrize("where", ["extra", "rootfs/etc", "config.json"])
@private_mounts
def test_a_foreign_mount_blocks_before_anything_is_touched(tmp_path: Path, where: str) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        precious = canary.plant(tmp_path / "precious")
        target = bundle.path / where
        if where == "config.json":
            mountns.bind(precious.root / "data-0", target)
        else:
            target.mkdir(exist_ok=True)
            mountns.bind(precious.root, target)
        left = bundle.left()
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
        assert where in outcome.detail
        assert_untouched(outcome, bundle, left)
        assert len(bundle.mounts()) == 2
        assert precious.intact()
        mountns.umount(target)
        assert_cleaned(inline.clean(bundle), bundle)


@private_mounts
def test_a_rootfs_that_lives_in_memory_is_not_unmounted(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(mounted=False)
        mountns.tmpfs(bundle.rootfs)
        precious = canary.plant(bundle.rootfs / "precious")
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
        assert "tmpfs" in outcome.detail
        assert precious.intact()


@pytest.mark.fault("I12", "stacked mounts")
@private_mounts
def test_takes_off_a_whole_stack(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        lower = tmp_path / "more"
        lower.mkdir()
        for _ in range(3):
            mountns.bind(lower, bundle.rootfs)
        outcome = inline.clean(bundle)
        assert_cleaned(outcome, bundle)
        assert step(outcome, "unmount").mutations == 4


@private_mounts
def test_a_rootfs_with_files_of_its_own_is_kept(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(mounted=False)
        precious = canary.plant(bundle.rootfs / "precious")
        left = bundle.left()
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.NOT_EMPTY)
        assert_untouched(outcome, bundle, left)
        assert precious.intact()


@pytest.mark.fault("I8")
@private_mounts
def test_another_object_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        bundle.path.rename(bundle.path.with_name("old"))
        bundle.path.mkdir()
        left = bundle.left()
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert outcome.look is not None
        assert outcome.look.identity == identify(bundle.path)
        assert_untouched(outcome, bundle, left)


@pytest.mark.fault("id or namespace replaced by a symlink")
@private_mounts
def test_a_bundle_replaced_by_a_symlink_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        precious = canary.plant(elsewhere / "precious")
        bundle.path.rename(bundle.path.with_name("old"))
        bundle.path.symlink_to(elsewhere)
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert precious.intact()
        assert bundle.path.is_symlink()


def occupy_cgroup(made: Site, bundle: Bundle) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["sleep", "60"])
    (bundle.cgroups[-1] / "cgroup.procs").write_text(str(process.pid))
    return process


@pytest.mark.fault("I14", "cgroup populated", "host-pid container whose init is gone")
@private_mounts
def test_a_bundle_whose_cgroup_holds_a_process_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        left = bundle.left()
        with occupy_cgroup(made, bundle) as process:
            try:
                outcome = inline.clean(bundle)
            finally:
                process.kill()
        assert outcome.result is Result.SKIPPED
        assert "orphaned" in outcome.detail
        assert_untouched(outcome, bundle, left)
        assert bundle.mounts() == [str(bundle.rootfs)]


@pytest.mark.fault("I14", "cgroup populated")
@private_mounts
def test_a_process_that_appears_in_a_cgroup_meanwhile_ends_the_attempt(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        started: list[subprocess.Popen[bytes]] = []
        begin = inline.began.append

        def occupy(name: str) -> None:
            begin(name)
            if name == "cgroup":
                started.append(occupy_cgroup(made, bundle))

        inline.place.note = lambda progress: occupy(progress.began)
        try:
            outcome = inline.clean(bundle)
        finally:
            for process in started:
                with process:
                    process.kill()
        assert_blocked(outcome, BlockReason.CGROUP)
        assert bundle.path.exists()
        assert bundle.runc_state.exists()


@private_mounts
def test_a_bundle_with_a_living_shim_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        bundle.socket.unlink()
        left = [path for path in bundle.left() if path != bundle.socket]
        with listen(bundle.socket):
            outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert "stopped" in outcome.detail
        assert_untouched(outcome, bundle, [*left[:3], bundle.socket, *left[3:]])


@pytest.mark.fault("I5")
@private_mounts
def test_silence_of_containerd_is_not_its_absence(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        inline.containerd = Containerd()
        bundle = made.bundle()
        left = bundle.left()
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert "unknown" in outcome.detail
        assert_untouched(outcome, bundle, left)


@private_mounts
def test_a_mount_table_that_could_not_be_read_is_read_again_for_the_next_attempt(
    tmp_path: Path,
) -> None:
    unreadable = OSError(errno.EIO, os.strerror(errno.EIO))
    with inline_worker(tmp_path) as (made, inline):
        dead = made.bundle()
        left = dead.left()
        with mock.patch.object(MountPoints, "now", side_effect=unreadable):
            outcome = inline.clean(dead)
        assert_blocked(outcome, BlockReason.IO)
        assert_untouched(outcome, dead, left)
        assert_cleaned(inline.clean(dead), dead)


@private_mounts
def test_a_young_bundle_without_a_sign_of_creation_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        inline.containerd = Containerd(ContainerdState.UP)
        bundle = made.bundle(cgroups=False)
        (bundle.path / "init.pid").unlink()
        (bundle.runc_state / "state.json").unlink()
        bundle.runc_state.rmdir()
        left = bundle.left()
        outcome = inline.clean(bundle)  # unlinking made it young
        assert outcome.result is Result.SKIPPED, outcome
        assert_untouched(outcome, bundle, left)
        long_ago = time.time() - 3600
        os.utime(bundle.path, (long_ago, long_ago))
        assert_cleaned(inline.clean(bundle), bundle)


@private_mounts
def test_told_to_stop_it_stops_before_the_next_step(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()

        def stop_at_cgroup(name: str) -> None:
            inline.stop = name == "cgroup"

        inline.place.note = lambda progress: stop_at_cgroup(progress.began)
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.INTERRUPTED)
        assert outcome.steps[-1].step == "cgroup"
        assert bundle.runc_state.exists()
        inline.place.note = lambda progress: None
        inline.stop = False
        assert_cleaned(inline.clean(bundle), bundle)
