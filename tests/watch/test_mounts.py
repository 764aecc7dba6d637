"""Mounts give no inotify event; the mount table tells of them, for bundles and for the root."""

import os
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path

import anyio
import pytest

from reconciler.clock import SystemClock
from reconciler.model.ids import BundleKey
from reconciler.model.observations import HintKind, Resync, ResyncKind
from reconciler.probe.points import BundleMounts, MountPoints, TreeMounts
from reconciler.watch.inotify import InotifyBackend
from reconciler.watch.mounts import MountWatch, watch_mounts
from tests.support.handles import open_files
from tests.support.mountns import MNT_DETACH, bind, mount, private_mounts, tmpfs, umount
from tests.watch.support import Inbox, Tree, running

MS_MOVE = 8192


def mounting(test: Callable[[Tree], Awaitable[None]]) -> Callable[[Path], None]:
    """Run an async test on a tree whose state directory is a tmpfs, in private mounts."""

    @wraps(test)
    def wrapper(tmp_path: Path) -> None:
        state = tmp_path / "run"
        state.mkdir()
        tmpfs(state)
        anyio.run(test, Tree(state))

    del wrapper.__wrapped__  # pytest reads the arguments of that one
    wrapper.__annotations__ = {"tmp_path": Path, "return": None}
    return private_mounts(wrapper)


def reader(tree: Tree) -> Callable[[], TreeMounts]:
    points = MountPoints(SystemClock())
    return lambda: BundleMounts(points.now(anew=True), tree.layout.tasks).all()


@mounting
async def test_a_mount_and_its_end_are_hinted_at(tree: Tree) -> None:
    rootfs = tree.bundle("c1") / "rootfs"
    tree.bundle("c2")
    rootfs.mkdir()
    inbox = Inbox()
    async with running(MountWatch(reader(tree)), inbox):
        for change in (partial(tmpfs, rootfs), partial(tmpfs, rootfs), partial(umount, rootfs)):
            inbox.forget()
            change()
            await inbox.hint("ns", "c1", HintKind.MOUNT)
            assert inbox.hints(HintKind.MOUNT) == [BundleKey("ns", "c1")]


@mounting
async def test_a_mount_that_is_moved_is_hinted_at_where_it_was_and_is(tree: Tree) -> None:
    """It keeps its number, so that a list of numbers alone does not tell."""
    old, new = (tree.bundle(name) / "rootfs" for name in ("c1", "c2"))
    for place in (old, new):
        place.mkdir()
    tmpfs(old)
    inbox = Inbox()
    async with running(MountWatch(reader(tree)), inbox):
        mount(old, new, None, MS_MOVE)
        for name in ("c1", "c2"):
            await inbox.hint("ns", name, HintKind.MOUNT)


@mounting
async def test_mounts_elsewhere_are_not_hinted_at(tree: Tree) -> None:
    elsewhere = tree.state / "elsewhere"
    elsewhere.mkdir()
    (tree.bundle("c1") / "rootfs").mkdir()
    inbox = Inbox()
    async with running(MountWatch(reader(tree)), inbox):
        tmpfs(elsewhere)
        umount(elsewhere)
        tmpfs(tree.root / "ns" / "c1" / "rootfs")
        await inbox.hint("ns", "c1", HintKind.MOUNT)
    assert inbox.received == inbox.received[:1]


@mounting
async def test_a_mount_over_a_namespace_is_a_doubt_about_it(tree: Tree) -> None:
    namespace = tree.namespace()
    inbox = Inbox()
    async with running(MountWatch(reader(tree)), inbox):
        tmpfs(namespace)
        await inbox.resync(ResyncKind.NAMESPACE, "ns")


@mounting
async def test_a_mount_made_before_it_runs_is_hinted_at(tree: Tree) -> None:
    rootfs = tree.bundle("c1") / "rootfs"
    rootfs.mkdir()
    watch = MountWatch(reader(tree))
    tmpfs(rootfs)
    inbox = Inbox()
    async with running(watch, inbox):
        await inbox.hint("ns", "c1", HintKind.MOUNT)


@mounting
async def test_no_mount_is_swallowed_at_whatever_moment_it_happens(tree: Tree) -> None:
    """Nested in the loop's epoll, the kernel's signal is lost if it comes just before a wait."""
    rootfs = tree.bundle("c1") / "rootfs"
    rootfs.mkdir()
    inbox = Inbox()
    read = reader(tree)
    depth = 0

    def read_and_mount() -> TreeMounts:
        nonlocal depth
        found = read()
        if depth < 40:  # right after the table was read, and before the next wait
            tmpfs(rootfs)
            depth += 1
        return found

    async with running(MountWatch(read_and_mount), inbox):
        await inbox.until(lambda: len(inbox.hints(HintKind.MOUNT)) >= 40)
    assert len(read().of(BundleKey("ns", "c1"))) == 40


@mounting
async def test_a_table_that_does_not_change_is_not_read(tree: Tree) -> None:
    rootfs = tree.bundle("c1") / "rootfs"
    rootfs.mkdir()
    read, reads = reader(tree), 0

    def counted() -> TreeMounts:
        nonlocal reads
        reads += 1
        return read()

    inbox = Inbox()
    async with running(MountWatch(counted), inbox):
        tmpfs(rootfs)
        await inbox.hint("ns", "c1", HintKind.MOUNT)
        before = reads
        with anyio.move_on_after(0.3):
            await anyio.sleep_forever()
        assert reads == before


@mounting
async def test_the_listener_rings_for_every_change_it_waits_for(tree: Tree) -> None:
    place = tree.state / "place"
    place.mkdir()
    rung = anyio.Event()

    def ring() -> None:
        rung.set()

    async with anyio.create_task_group() as tasks:
        await tasks.start(watch_mounts, ring)
        for _ in range(20):
            for change in (partial(tmpfs, place), partial(umount, place)):
                rung = anyio.Event()
                change()
                with anyio.fail_after(5):
                    await rung.wait()
        tasks.cancel_scope.cancel()


@mounting
async def test_nothing_is_left_open(tree: Tree) -> None:
    watch = MountWatch(TreeMounts)
    before = open_files()
    async with running(watch, Inbox()):
        pass
    assert open_files() <= before


async def test_an_unreadable_table_is_a_doubt_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconciler.watch.mounts.MOUNTINFO", b"/proc/self/no-such-table")
    inbox = Inbox()
    with anyio.fail_after(5):
        await MountWatch(TreeMounts).run(inbox)
    assert inbox.received == [Resync(ResyncKind.WATCH_LOST)]


# ---------------------------------------------------------------------- the root, for inotify


@mounting
async def test_watching_does_not_hinder_unmounting(tree: Tree) -> None:
    tree.bundle("c1")
    inbox = Inbox()
    backend = InotifyBackend(tree.layout)
    async with running(backend, inbox):
        backend.follow(tree.listed())
        umount(tree.state)  # EBUSY if anything were held open
        await inbox.resync(ResyncKind.ROOT_CHANGED)


@pytest.mark.fault("I17", "root unmounted")
@mounting
async def test_a_root_unmounted_and_mounted_again_is_watched(tree: Tree) -> None:
    tree.bundle("c1")
    inbox = Inbox()
    async with running(InotifyBackend(tree.layout), inbox):
        umount(tree.state)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        inbox.forget()
        tmpfs(tree.state)
        os.makedirs(tree.root / "ns" / "c2")
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        (tree.root / "ns" / "c2" / "file").touch()
        await inbox.hint("ns", "c2")
        assert BundleKey("ns", "c1") not in inbox.hints()


@pytest.mark.fault("I17", "root over-mounted")
@mounting
async def test_a_root_mounted_over_and_bared_again_is_noticed(tree: Tree) -> None:
    bundle = tree.bundle("below")
    inbox = Inbox()
    async with running(InotifyBackend(tree.layout), inbox):
        tmpfs(tree.root)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        inbox.forget()
        above = tree.bundle("above")
        (above / "file").touch()
        await inbox.hint("ns", "above")
        inbox.forget()
        umount(tree.root)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        (bundle / "file").touch()
        await inbox.hint("ns", "below")


@mounting
async def test_a_tree_bound_over_an_ancestor_is_noticed(tree: Tree) -> None:
    other = Tree(tree.state.parent / "other")
    other.bundle("c2")
    inbox = Inbox()
    async with running(InotifyBackend(tree.layout), inbox):
        bind(other.state, tree.state)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        (tree.root / "ns" / "c2" / "file").touch()
        await inbox.hint("ns", "c2")


@mounting
async def test_a_root_detached_while_busy_is_noticed(tree: Tree) -> None:
    held = os.open(tree.root, os.O_PATH)
    inbox = Inbox()
    async with running(InotifyBackend(tree.layout), inbox):
        umount(tree.state, MNT_DETACH)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        os.close(held)


@mounting
async def test_what_is_mounted_over_a_bundle_is_not_watched(tree: Tree) -> None:
    bundle = tree.bundle("c1")
    tmpfs(bundle)
    inbox = Inbox()
    backend = InotifyBackend(tree.layout)
    async with running(backend, inbox):
        backend.follow(tree.listed())
        (bundle / "file").touch()
        tree.bundle("last")
        await inbox.hint("ns", "last")
        assert BundleKey("ns", "c1") not in inbox.hints()
