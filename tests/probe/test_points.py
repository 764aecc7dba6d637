"""Mount points below one directory: what the kernel lists is what its table says."""

import os
from collections.abc import Callable
from errno import ENOMEM, ENOSYS, EPERM
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import SystemClock
from reconciler.kernel.mounts import Mounted, list_mounts, stat_mount
from reconciler.probe import mounts, points
from reconciler.probe.points import MountPoints
from tests.support.clock import VirtualClock
from tests.support.mountns import MNT_DETACH, bind, mount, private_mounts, tmpfs, umount

MS_MOVE = 8192


def lists() -> bool:
    try:
        list_mounts()
    except OSError:
        return False
    return True


def failing(errno: int) -> Callable[[], NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno, os.strerror(errno))

    return fail


def by_text(path: Path) -> list[Mounted]:
    asked = MountPoints(SystemClock())
    asked._lists = False
    return asked.below(bytes(path))


def both_ways(path: Path, asked: MountPoints) -> list[bytes]:
    found = asked.below(bytes(path))
    assert found == by_text(path)
    cut = len(bytes(path))
    return [one.point[cut:] for one in found]


@private_mounts
def test_the_kernels_list_is_its_table(tmp_path: Path) -> None:
    if not lists():
        pytest.skip("the kernel has no listmount (before 6.8)")
    odd = tmp_path / "a b\nc\\d\udcff"
    odd.mkdir()
    bound, gone = tmp_path / "bound", tmp_path / "gone"
    for name in (bound, gone):
        name.mkdir()
    bind(gone, bound)
    gone.rmdir()  # its root has no name any more
    tmpfs(odd)
    told = [stat_mount(number) for number in list_mounts()]
    table = mounts.parse(Path("/proc/self/mountinfo").read_bytes())
    assert told == [entry.mount for entry in table]
    assert told[-1].device == odd.stat().st_dev
    assert told[-1].point == bytes(odd)


@private_mounts
def test_what_is_at_or_below_is_found_and_nothing_beside_it(tmp_path: Path) -> None:
    asked = MountPoints(SystemClock())
    bundle, beside = tmp_path / "c1", tmp_path / "c10"
    for place in (bundle / "rootfs", beside / "rootfs"):
        place.mkdir(parents=True)
        tmpfs(place)
    (bundle / "rootfs" / "proc").mkdir()
    tmpfs(bundle / "rootfs" / "proc")
    assert both_ways(bundle, asked) == [b"/rootfs", b"/rootfs/proc"]
    tmpfs(bundle / "rootfs")
    assert both_ways(bundle, asked) == [b"/rootfs", b"/rootfs/proc", b"/rootfs"]
    tmpfs(bundle)
    assert both_ways(bundle, asked)[-1] == b""


@private_mounts
def test_what_came_or_went_is_known_at_once(tmp_path: Path) -> None:
    asked = MountPoints(VirtualClock())  # time stands still: nothing is forgotten
    assert both_ways(tmp_path, asked) == []
    place = tmp_path / "extra"
    place.mkdir()
    for _ in range(3):
        tmpfs(place)
        assert both_ways(tmp_path, asked) == [b"/extra"]
        umount(place)
        assert both_ways(tmp_path, asked) == []


@pytest.mark.parametrize("call", ["list_mounts", "stat_mount"])
@pytest.mark.parametrize("errno", [ENOSYS, EPERM])
def test_a_kernel_without_these_calls_is_asked_for_the_table(
    monkeypatch: pytest.MonkeyPatch, call: str, errno: int
) -> None:
    monkeypatch.setattr(points, call, failing(errno))
    asked = MountPoints(SystemClock())
    assert asked.below(b"/") == by_text(Path("/")) != []


@pytest.mark.parametrize("call", ["list_mounts", "stat_mount"])
def test_a_call_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(points, call, failing(ENOMEM))
    if not lists():
        pytest.skip("the kernel has no listmount (before 6.8)")
    asked = MountPoints(SystemClock())
    for _ in range(2):
        with pytest.raises(OSError, match=r".*"):
            asked.below(b"/")


@private_mounts
def test_what_could_not_be_told_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not lists():
        pytest.skip("the kernel has no listmount (before 6.8)")
    asked = MountPoints(VirtualClock())
    asked.below(bytes(tmp_path))
    tmpfs(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(points, "stat_mount", failing(ENOMEM))
        for _ in range(2):
            with pytest.raises(OSError, match=r".*"):
                asked.below(bytes(tmp_path))
    assert both_ways(tmp_path, asked) == [b""]


POINTS = st.lists(st.sampled_from([b"c1", b"c10", b"c1-x", b"c1\n", b"a", b"\xff"]), max_size=3)
PATHS = POINTS.map(lambda parts: b"/" + b"/".join(parts))


@given(mounted=st.lists(PATHS, max_size=30), gone=st.sets(st.integers(0, 29)), path=PATHS)
def test_what_is_below_is_found_as_if_each_was_asked(
    mounted: list[bytes], gone: set[int], path: bytes
) -> None:
    known = points.Mounts()
    rows = {
        number: Mounted(number, point, b"cgroup2" if point.endswith(b"a") else b"tmpfs")
        for number, point in enumerate(mounted)
    }
    for number, row in rows.items():
        known.add(number, row)
    there = [number for number in rows if number not in gone]
    assert known.lacks([*there, 100]) == [100]
    left = [rows[number] for number in there]
    assert known.groups == [row for row in left if row.fstype == b"cgroup2"]
    inside = path + b"/"
    wanted = [row for row in left if row.point == path or row.point.startswith(inside)]
    assert known.below(path) == wanted


@private_mounts
def test_what_was_moved_is_known_a_moment_later(tmp_path: Path) -> None:
    clock = VirtualClock()
    asked = MountPoints(clock)
    old, new = tmp_path / "old", tmp_path / "new"
    for place in (old, new):
        place.mkdir()
    tmpfs(old)
    assert both_ways(old, asked) == [b""]
    mount(old, new, None, MS_MOVE)
    clock.now += points.FRESH_SECONDS
    assert both_ways(new, asked) == [b""]
    assert both_ways(old, asked) == []
    umount(new, MNT_DETACH)
