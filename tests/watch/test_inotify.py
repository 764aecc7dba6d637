"""The inotify backend tells of everything that happens at a name, and of nothing below."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from typing_extensions import override

from reconciler.model.ids import BundleKey, escape
from reconciler.model.observations import Hint, Resync, ResyncKind
from reconciler.watch.inotify import InotifyBackend
from reconciler.watch.inotify_fd import Event, Inotify
from reconciler.watch.table import SLICE, WatchTable
from tests.support.handles import open_files
from tests.watch.support import Inbox, Tree, eventually, running, turn, wake_ups, watches

pytestmark = pytest.mark.kernel

NAMESPACE = ResyncKind.NAMESPACE


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "run" / "containerd")
    tree.namespace()
    return tree


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def queue_limit() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


class Counting(Inotify):
    """The real thing, with its system calls counted."""

    def __init__(self) -> None:
        super().__init__()
        self.added = 0
        self.removed = 0

    @override
    def add_watch(self, path: bytes, mask: int) -> int:
        self.added += 1
        return super().add_watch(path, mask)

    @override
    def rm_watch(self, wd: int) -> None:
        self.removed += 1
        super().rm_watch(wd)


async def test_a_bundle_and_every_file_in_it_is_hinted_at(tree: Tree, inbox: Inbox) -> None:
    async with running(InotifyBackend(tree.layout), inbox):
        bundle = tree.bundle("c1")
        await inbox.hint("ns", "c1")
        for change in (
            (bundle / "init.pid").touch,
            lambda: (bundle / "init.pid").write_text("12"),
            lambda: (bundle / "init.pid").rename(bundle / "other"),
            (bundle / "other").unlink,
            (bundle / "rootfs").mkdir,
            (bundle / "rootfs").rmdir,
            bundle.rmdir,
        ):
            inbox.forget()
            change()
            await inbox.hint("ns", "c1")


async def test_the_pid_files_of_execs_are_not_hinted_at(tree: Tree, inbox: Inbox) -> None:
    bundle = tree.bundle("c1")
    async with running(InotifyBackend(tree.layout), inbox):
        for number in range(50):
            (bundle / f".{number}.pid").write_text("12")
            (bundle / f".{number}.pid").rename(bundle / f"{number}.pid")
        (bundle / "7.pid").unlink()
        tree.bundle("last")
        await inbox.hint("ns", "last")
        assert BundleKey("ns", "c1") not in inbox.hints()
        for evidence in ("init.pid", "shim.pid", "log.json"):
            inbox.forget()
            (bundle / evidence).touch()
            await inbox.hint("ns", "c1")
        inbox.forget()
        (bundle / "odd.pid").mkdir()
        await inbox.hint("ns", "c1")


async def test_nothing_below_a_bundle_is_watched(tree: Tree, inbox: Inbox) -> None:
    (tree.bundle("c1") / "rootfs" / "deep").mkdir(parents=True)
    async with running(InotifyBackend(tree.layout), inbox):
        (tree.root / "ns" / "c1" / "rootfs" / "deep" / "file").touch()
        (tree.root / "ns" / "c1" / "rootfs" / "file").touch()
        tree.bundle("last")
        await inbox.hint("ns", "last")
    assert set(inbox.hints()) == {BundleKey("ns", "last")}


@pytest.mark.fault("mkdir race")
async def test_directories_made_all_at_once_are_all_watched(tree: Tree, inbox: Inbox) -> None:
    async with running(InotifyBackend(tree.layout), inbox):
        os.makedirs(tree.root / "new" / "c1" / "rootfs")  # one event: the first of them
        await inbox.resync(NAMESPACE, "new")
        (tree.root / "new" / "c1" / "init.pid").touch()
        await inbox.hint("new", "c1")


async def test_a_renamed_bundle_is_told_by_both_names(tree: Tree, inbox: Inbox) -> None:
    bundle = tree.bundle("old")
    async with running(InotifyBackend(tree.layout), inbox):
        moved = bundle.rename(bundle.with_name("new"))
        await inbox.hint("ns", "old")
        await inbox.hint("ns", "new")
        inbox.forget()
        (moved / "file").touch()
        await inbox.hint("ns", "new")
        assert set(inbox.hints()) == {BundleKey("ns", "new")}


async def test_a_bundle_renamed_to_a_hidden_name_is_gone(tree: Tree, inbox: Inbox) -> None:
    bundle = tree.bundle("c1")
    async with running(InotifyBackend(tree.layout), inbox):
        hidden = bundle.rename(bundle.with_name(".c1"))
        await inbox.hint("ns", "c1")
        inbox.forget()
        (hidden / "file").touch()
        shutil.rmtree(hidden)
        tree.bundle("last")
        await inbox.hint("ns", "last")
        assert set(inbox.hints()) == {BundleKey("ns", "last")}


async def test_a_renamed_namespace_takes_its_bundles_along(tree: Tree, inbox: Inbox) -> None:
    tree.bundle("c1")
    async with running(InotifyBackend(tree.layout), inbox):
        (tree.root / "ns").rename(tree.root / "other")
        await inbox.resync(NAMESPACE, "ns")
        await inbox.resync(NAMESPACE, "other")
        inbox.forget()
        (tree.root / "other" / "c1" / "file").touch()
        await inbox.hint("other", "c1")
        assert set(inbox.hints()) == {BundleKey("other", "c1")}


async def test_a_deleted_namespace_is_one_doubt(tree: Tree, inbox: Inbox) -> None:
    async with running(InotifyBackend(tree.layout), inbox):
        (tree.root / "ns").rmdir()
        await inbox.resync(NAMESPACE, "ns")
        tree.bundle("c1")
        (tree.root / "ns" / "c1" / "file").touch()
        await inbox.hint("ns", "c1")
    assert set(inbox.resyncs()) == {Resync(NAMESPACE, "ns")}


async def test_an_id_used_again_is_watched_again(tree: Tree, inbox: Inbox) -> None:
    async with running(InotifyBackend(tree.layout), inbox):
        for _ in range(50):
            tree.bundle("c1").rmdir()
        bundle = tree.bundle("c1")
        tree.bundle("mark")
        await inbox.hint("ns", "mark")
        inbox.forget()
        (bundle / "file").touch()
        await inbox.hint("ns", "c1")


async def test_any_name_is_told(tree: Tree, inbox: Inbox) -> None:
    names = [b"new\nline", b"\xff\xfe", b"-rf", b"x" * 255, b"\\\"'"]
    root = os.fsencode(tree.root)
    async with running(InotifyBackend(tree.layout), inbox):
        for name in names:
            os.makedirs(b"/".join((root, name, name)))
        for name in names:
            await inbox.resync(NAMESPACE, escape(name))
            os.mkdir(b"/".join((root, name, name, b"rootfs")))
            await inbox.hint(os.fsdecode(name), os.fsdecode(name))


async def test_symlinks_are_not_followed(tree: Tree, inbox: Inbox, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "c1").mkdir(parents=True)
    (tree.root / "ns" / "link").symlink_to(elsewhere)
    (tree.root / "linked").symlink_to(elsewhere)
    backend = InotifyBackend(tree.layout)
    async with running(backend, inbox):
        backend.follow([BundleKey("ns", "link"), BundleKey("linked", "c1")])
        (elsewhere / "c2").mkdir()
        (elsewhere / "c1" / "file").touch()
        tree.bundle("last")
        await inbox.hint("ns", "last")
    touched = {key.id for key in inbox.hints()}
    assert touched <= {"last", "link"}


async def test_a_burst_is_one_hint(tree: Tree, inbox: Inbox) -> None:
    bundle = tree.bundle("c1")
    async with running(InotifyBackend(tree.layout), inbox):
        for number in range(300):  # the loop does not turn meanwhile
            (bundle / f"file-{number}").touch()
        await inbox.hint("ns", "c1")
        tree.bundle("last")
        await inbox.hint("ns", "last")
    assert inbox.hints().count(BundleKey("ns", "c1")) == 1


@pytest.mark.fault("mkdir race")
async def test_what_appears_between_listing_and_watching_is_hinted_at(
    tree: Tree, inbox: Inbox
) -> None:
    backend = InotifyBackend(tree.layout)
    tree.bundle("early")
    listed = tree.listed()
    tree.bundle("late")
    backend.open()
    backend.follow(listed)  # as the loop does before it runs its sources
    async with running(backend, inbox):
        await inbox.hint("ns", "late")
    assert inbox.hints() == [BundleKey("ns", "late")]


async def test_following_the_same_listing_costs_no_system_call(tree: Tree, inbox: Inbox) -> None:
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[-1]

    backend = InotifyBackend(tree.layout, make)
    for number in range(20):
        tree.bundle(f"c{number}")
    async with running(backend, inbox):
        backend.follow(tree.listed())
        before = made[0].added, made[0].removed
        backend.follow(tree.listed())
        assert (made[0].added, made[0].removed) == before
        tree.bundle("one-more")
        backend.follow(tree.listed())
        assert (made[0].added, made[0].removed) == (before[0] + 1, before[1])


async def test_more_bundles_than_one_slice_are_all_watched(tree: Tree, inbox: Inbox) -> None:
    count = 2 * SLICE + 10
    for number in range(count):
        tree.bundle(f"c{number}")
    backend = InotifyBackend(tree.layout)
    backend.open()
    backend.follow(tree.listed())
    async with running(backend, inbox):
        await inbox.until(lambda: len(set(inbox.hints())) >= count - 2 * SLICE)
        inbox.forget()
        for number in range(count):
            (tree.root / "ns" / f"c{number}" / "file").touch()
        await inbox.until(lambda: len(set(inbox.hints())) == count)


@pytest.mark.fault("I17", "overflow")
async def test_an_overflow_is_one_doubt_and_nothing_is_lost(tree: Tree, inbox: Inbox) -> None:
    kept = tree.bundle("kept")
    moved = tree.bundle("moved")
    again = tree.bundle("again")
    tree.bundle("c1", "other")
    backend = InotifyBackend(tree.layout)
    limit = queue_limit()
    async with running(backend, inbox):
        for number in range(limit // 2 + 2000):  # two events each, and the loop does not turn
            (kept / "a").touch()
            (kept / "a").unlink()
            if number == limit // 2 + 1000:  # lost for certain
                moved.rename(moved.with_name("moved-away"))
                tree.bundle("moved")
                os.makedirs(tree.root / "unheard" / "c1")
                again.rmdir()
                again.mkdir()
                shutil.rmtree(tree.root / "other")
                tree.bundle("c1", "other")
        await inbox.resync(ResyncKind.OVERFLOW)
        assert inbox.kinds().count(ResyncKind.OVERFLOW) == 1
        backend.follow(tree.listed())
        inbox.forget()
        for key in set(tree.listed()):
            (tree.root / key.namespace / key.id / "file").touch()
        await inbox.until(lambda: set(inbox.hints()) == set(tree.listed()))
        inbox.forget()
        for name in ("ns", "other", "unheard"):
            tree.bundle("brand-new", name)
            await inbox.hint(name, "brand-new")


async def test_an_unknown_watch_is_dropped_when_it_speaks(tree: Tree, inbox: Inbox) -> None:
    """What an overflow hid: a directory moved out of the tree keeps its watch."""

    class Deaf(Inotify):
        deaf = True

        @override
        def read(self) -> Iterator[Event]:
            events = list(super().read())
            if self.deaf and events:
                self.deaf = False
                events = [Event(-1, 0x4000, b"")]
            yield from events

    bundle = tree.bundle("c1")
    backend = InotifyBackend(tree.layout, Deaf)
    async with running(backend, inbox):
        away = bundle.rename(tree.state / "away")
        await inbox.resync(ResyncKind.OVERFLOW)
        backend.follow(tree.listed())
        before = watches()
        (away / "file").touch()
        (away / "another").touch()
        tree.bundle("last")
        await inbox.hint("ns", "last")
        # One more for the new bundle, one less for what went away.
        assert await eventually(lambda: watches() == before)
        assert set(inbox.hints()) == {BundleKey("ns", "last")}


async def test_churn_leaves_no_watch_behind(tree: Tree, inbox: Inbox) -> None:
    async with running(InotifyBackend(tree.layout), inbox):
        before = watches()
        for number in range(300):
            bundle = tree.bundle(f"c{number}")
            if number % 3:
                bundle = bundle.rename(bundle.with_name(f".c{number}"))
            if number % 2:
                await turn()
            bundle.rmdir()
        (tree.root / "ns").rename(tree.root / "other")
        (tree.root / "other").rename(tree.root / "ns")
        await inbox.resync(NAMESPACE, "other")
        tree.bundle("last").rmdir()
        await inbox.hint("ns", "last")
        assert await eventually(lambda: watches() == before)


def test_a_listing_drops_what_is_gone(tree: Tree) -> None:
    inotify = Inotify()
    table = WatchTable(inotify, tree.layout.tasks)
    gone, kept = BundleKey("ns", "gone"), BundleKey("ns", "kept")
    for key in (gone, kept):
        tree.bundle(key.id)
    assert table.fit([gone, kept]) == []
    assert set(table.add_pending()) == {gone, kept}
    (tree.root / "ns" / "gone").rename(tree.root / "ns" / ".gone")
    assert watches() == len(table) == 3
    assert table.fit([]) == [kept]  # it is there, whatever the listing says
    assert watches() == len(table) == 2
    inotify.close()


async def test_no_directory_is_held_open_and_nothing_leaks(tree: Tree, inbox: Inbox) -> None:
    tree.bundle("c1")
    before = open_files()
    backend = InotifyBackend(tree.layout)
    async with running(backend, inbox):
        tree.bundle("c2")
        await inbox.hint("ns", "c2")
        backend.follow(tree.listed())
        added = " ".join(open_files() - before)
        assert str(tree.state) not in added
    assert open_files() <= before


async def test_nothing_wakes_up_between_events(tree: Tree, inbox: Inbox) -> None:
    tree.bundle("c1")
    backend = InotifyBackend(tree.layout)
    async with running(backend, inbox):
        backend.follow(tree.listed())
        await anyio.wait_all_tasks_blocked()
        turns = await wake_ups(0.5)
    assert turns <= 2  # the wait itself, and its deadline
    assert inbox.received == []


async def test_a_hint_comes_after_the_watch(tree: Tree) -> None:
    """Whoever looks when hinted at misses nothing that comes later."""
    backend = InotifyBackend(tree.layout)
    inbox = Inbox()
    async with running(backend, inbox):
        for number in range(100):
            bundle = tree.bundle(f"c{number}")
            await inbox.hint("ns", bundle.name)
            inbox.forget()
            (bundle / "file").touch()
            await inbox.hint("ns", bundle.name)
            assert inbox.received == [Hint(BundleKey("ns", bundle.name))] * len(inbox.received)
