"""What is mounted on or below debris: rootfs's stack goes, and nothing whose content would end."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.evidence import Answer
from reconciler.model.ids import Identity, escape, unescape
from reconciler.model.outcome import BlockReason, Result
from reconciler.worker.blocked import Blocked
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.debris.places import remove_mount
from reconciler.worker.debris.second_look import Judged
from reconciler.worker.objects import NOTHING
from tests.support import canary
from tests.support.inline import InlineWorker
from tests.support.mountns import bind, private_mounts, tmpfs, umount
from tests.worker.debris.leaving import (
    HIDDEN_BUNDLE,
    HIDDEN_WORK,
    WORK,
    Ground,
    Leaving,
    cleaned,
    ground,
)
from tests.worker.test_elsewhere import SCRIPT, elsewhere, seen_from

pytestmark = pytest.mark.safety


@private_mounts
def test_what_is_mounted_on_a_hidden_bundles_rootfs_goes_and_anything_else_keeps_it(
    tmp_path: Path,
) -> None:
    with ground(tmp_path) as here:
        path = HIDDEN_BUNDLE.leave(here)
        here.made.mount_rootfs(replace(here.made.bundle("x", mounted=False), path=path))
        place = here.one(DebrisKind.HIDDEN_BUNDLE)
        upper = next((here.made.base / "lib" / "layers").glob("*gone*/upper"))
        data = canary.snapshot(upper)
        (path / "extra").mkdir()
        place = here.one(DebrisKind.HIDDEN_BUNDLE)
        bind(upper, path / "extra")
        (blocked,) = here.clean((place,))
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
        assert sum(one.mutations for one in blocked.steps) == 0
        assert canary.snapshot(upper) == data
        umount(path / "extra")
        assert cleaned(here.clean((here.one(DebrisKind.HIDDEN_BUNDLE),)))
        assert not path.exists()
        assert canary.snapshot(upper) == data


@private_mounts
def test_a_tmpfs_on_a_hidden_bundles_rootfs_keeps_it(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = HIDDEN_BUNDLE.leave(here)
        place = here.one(DebrisKind.HIDDEN_BUNDLE)
        tmpfs(path / "rootfs")
        (path / "rootfs" / "data").write_text("precious")
        (blocked,) = here.clean((place,))
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
        assert (path / "rootfs" / "data").read_text() == "precious"


@private_mounts
def test_a_mount_below_a_work_directory_keeps_all_of_it(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = WORK.leave(here)
        place = here.one(DebrisKind.WORK_DIR)
        tmpfs(path / "below")
        (blocked,) = here.clean((place,))
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
        assert sum(one.mutations for one in blocked.steps) == 0


@pytest.mark.parametrize("leaving", [WORK, HIDDEN_WORK], ids=["work", "hidden-work"])
@private_mounts
def test_a_tmpfs_that_another_namespace_has_in_a_work_directory_keeps_all_of_it(
    tmp_path: Path, leaving: Leaving
) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        with elsewhere(SCRIPT, path / "below") as pid:
            (blocked,) = here.clean((place,))
            assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
            assert sum(one.mutations for one in blocked.steps) == 0
            assert seen_from(pid, path / "below" / "data") == "precious\n"
        here.worker = InlineWorker(here.made)
        assert cleaned(here.clean((place,)))


def _mounted(here: Ground, mount: Callable[[Path], None]) -> tuple[Path, Judged]:
    """Mount something in the tree, below a directory that was none of a bundle when judged."""
    point = here.made.tree / "default" / "was" / "rootfs"
    point.mkdir(parents=True, exist_ok=True)
    mount(point)
    number = kernel.statx(kernel.AT_FDCWD, os.fsencode(point)).mount_id
    key = PlaceKey(DebrisKind.MOUNT, escape(os.fsencode(point)))
    place = Place(key, Identity(0, 0, number), "default", "was", lives=Answer.NO, owned=Answer.NO)
    return point, Judged(place, NOTHING)


@private_mounts
def test_a_mount_goes_by_its_number_and_never_with_its_content(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_text("precious")
    (tmp_path / "node").mkdir()
    with ground(tmp_path / "node") as here:
        attempt = PlaceAttempt(here.worker.place)
        attempt.refuse_bundle = lambda key: None  # type: ignore[method-assign]  # that is another's
        point, judged = _mounted(here, lambda at: bind(source, at))
        remove_mount(attempt, judged)
        assert not os.path.ismount(point)
        assert list(point.iterdir()) == []
        assert (source / "data").read_text() == "precious"
        point, judged = _mounted(here, tmpfs)
        with pytest.raises(Blocked, match="would destroy"):
            remove_mount(attempt, judged)
        assert os.path.ismount(point)
        assert unescape(judged.place.key.path) == os.fsencode(point)


@private_mounts
def test_a_mount_to_which_no_path_leads_says_so(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "node").mkdir()
    with ground(tmp_path / "node") as here:
        point = here.made.tree / "default" / "was" / "rootfs"
        point.mkdir(parents=True)
        bind(source, point)
        (here.made.base / "empty").mkdir()
        bind(here.made.base / "empty", here.made.tree)
        (blocked,) = here.remove(DebrisKind.MOUNT)
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
        assert "no path leads to it" in blocked.detail
