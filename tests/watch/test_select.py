"""The watcher steps down when a backend has nothing left, says so, and finds its way up again."""

import ctypes
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from typing_extensions import override

from reconciler.model.observations import Resync, ResyncKind
from reconciler.watch.backend import BackendError
from reconciler.watch.inotify_fd import Inotify, raise_if_exhausted
from reconciler.watch.select import Choice, Watching
from tests.support.handles import open_files
from tests.support.mountns import in_private_mounts, leave_chroot
from tests.watch.support import Inbox, Tree, only_open, running, turn

pytestmark = pytest.mark.kernel

CLONE_NEWUSER = 0x10000000
BACKEND = ResyncKind.BACKEND


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "run")
    tree.namespace()
    return tree


class Scarce:
    """Gives inotify instances only while there are any, and only so many watches each."""

    def __init__(self) -> None:
        self.instances = True
        self.watches = 1 << 30

    def __call__(self) -> Inotify:
        if not self.instances:
            raise BackendError("no inotify instance left")
        return _Limited(self)


class _Limited(Inotify):
    def __init__(self, scarce: Scarce) -> None:
        super().__init__()
        self._scarce = scarce

    @override
    def add_watch(self, path: bytes, mask: int) -> int:
        wd = super().add_watch(path, mask)
        if wd > self._scarce.watches:
            raise OSError(errno.ENOSPC, "No space left on device")
        return wd


@pytest.mark.parametrize(
    ("number", "limit"),
    [
        (errno.ENOSPC, "fs.inotify.max_user_watches"),
        (errno.EMFILE, "fs.inotify.max_user_instances"),
        (errno.ENFILE, "fs.file-max"),
    ],
)
def test_what_has_run_out_is_named_with_its_limit_and_how_to_raise_it(
    number: int, limit: str
) -> None:
    now = int(Path("/proc/sys", *limit.split(".")).read_text())
    said = f"({limit} is {now}; raise it: sysctl -w {limit}={2 * now})"
    with pytest.raises(BackendError, match=re.escape(said)):
        raise_if_exhausted(OSError(number, "none left"))


@pytest.mark.parametrize("backend", ["auto", "inotify", "watchfiles", "poll", "none"])
async def test_a_backend_can_be_chosen(tree: Tree, backend: Choice) -> None:
    watching, inbox = Watching(tree.layout, backend), Inbox()
    async with running(watching, inbox):
        assert watching.backend == {"auto": "inotify"}.get(backend, backend)
        assert watching.reason == ""
        assert (watching.relist_hint is None) == (watching.backend == "inotify")
        if backend in {"watchfiles", "poll"}:
            await inbox.resync(BACKEND)
        tree.bundle("c1")
        if backend != "none":
            await inbox.hint("ns", "c1")


async def test_without_an_instance_it_polls_and_says_so(tree: Tree) -> None:
    scarce = Scarce()
    scarce.instances = False
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    async with running(watching, inbox):
        await inbox.resync(BACKEND)
        assert watching.backend == "poll"
        assert watching.reason == "no inotify instance left; poll instead of inotify"
        await inbox.until(lambda: inbox.kinds().count(BACKEND) == 2)  # now it looks
        tree.bundle("c1")
        await inbox.hint("ns", "c1")


async def test_it_steps_up_again_when_listings_come_by(tree: Tree) -> None:
    scarce = Scarce()
    scarce.instances = False
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    before = open_files()
    async with running(watching, inbox):
        await inbox.resync(BACKEND)
        watching.follow(tree.listed())
        watching.follow(tree.listed())
        assert watching.backend == "poll"
        scarce.instances = True
        inbox.forget()
        for _ in range(4):
            watching.follow(tree.listed())
        assert (watching.backend, watching.reason) == ("inotify", "")
        await inbox.resync(BACKEND)
        tree.bundle("c1")
        await inbox.hint("ns", "c1")
    assert await only_open(before)


async def test_attempts_to_step_up_become_rare(tree: Tree) -> None:
    attempts = 0

    def none() -> Inotify:
        nonlocal attempts
        attempts += 1
        raise BackendError("none left")

    watching = Watching(tree.layout, make_inotify=none)
    async with running(watching, Inbox()):
        for _ in range(100):
            watching.follow(tree.listed())
    assert 2 < attempts < 12


async def test_watches_that_run_out_later_make_it_step_down(tree: Tree) -> None:
    scarce = Scarce()
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    async with running(watching, inbox):
        scarce.watches = 0
        tree.bundle("c1")
        await inbox.resync(BACKEND)
        assert watching.backend == "poll"
        assert "max_user_watches" in watching.reason


async def test_watches_that_run_out_in_a_listing_make_it_step_down(tree: Tree) -> None:
    scarce = Scarce()
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    for number in range(50):
        tree.bundle(f"c{number}")
    scarce.watches = 30
    watching.follow(tree.listed())  # before it runs, as the loop does
    assert watching.backend == "poll"
    async with running(watching, inbox):
        await inbox.until(
            lambda: inbox.kinds() == [BACKEND, BACKEND]
        )  # the step, and the new start


async def test_stepping_up_too_early_changes_nothing(tree: Tree) -> None:
    for number in range(50):
        tree.bundle(f"c{number}")
    scarce = Scarce()
    scarce.watches = 30
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    async with running(watching, inbox):
        await inbox.until(lambda: inbox.kinds().count(BACKEND) == 2)
        inbox.forget()
        for _ in range(20):
            watching.follow(tree.listed())
            await turn()
        assert watching.backend == "poll"
        assert inbox.received == []


async def test_without_anything_listings_alone_are_left(tmp_path: Path) -> None:
    state = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")  # watchfiles cannot be known this name
    scarce = Scarce()
    scarce.instances = False
    tree = Tree(Path(state))
    watching, inbox = Watching(tree.layout, make_inotify=scarce), Inbox()
    async with running(watching, inbox):
        await inbox.until(lambda: watching.backend == "none")
        assert inbox.received == [Resync(BACKEND), Resync(BACKEND)]
        assert "UTF-8" in watching.reason
        for _ in range(10):
            watching.follow(())
        scarce.instances = True
        for _ in range(10):
            watching.follow(())
        assert watching.backend == "inotify"


@pytest.mark.parametrize("backend", ["auto", "watchfiles", "poll", "none"])
async def test_cancelling_leaves_nothing_open(tree: Tree, backend: Choice) -> None:
    before = open_files()
    for _ in range(3):
        with anyio.fail_after(5):
            async with running(Watching(tree.layout, backend), Inbox()):
                tree.bundle("c1").rmdir()
    assert await only_open(before)


async def test_a_watcher_that_never_ran_can_be_closed(tree: Tree) -> None:
    before = open_files()
    watching = Watching(tree.layout)
    watching.follow(tree.listed())
    watching.close()
    assert open_files() <= before


# ----------------------------------------------------------------- limits of the kernel itself


def in_user_namespace(tree: Tree, limits: dict[str, int], body: Callable[[], None]) -> None:
    """Run ``body`` where these limits of inotify hold for nobody else."""

    def limited() -> None:
        leave_chroot()
        if ctypes.CDLL(None).unshare(CLONE_NEWUSER) != 0:
            pytest.skip("no user namespaces here")
        Path("/proc/self/uid_map").write_text("0 0 1")
        for name, limit in limits.items():
            Path(f"/proc/sys/user/max_inotify_{name}").write_text(str(limit))
        body()

    in_private_mounts(limited)


@pytest.mark.fault("no inotify instance left")
def test_no_instance_left_in_the_kernel(tree: Tree) -> None:
    async def step_down_and_up() -> None:
        taken = [Inotify(), Inotify()]
        with pytest.raises(BackendError, match="max_user_instances"):
            Inotify()
        watching, inbox = Watching(tree.layout), Inbox()
        async with running(watching, inbox):
            await inbox.resync(BACKEND)
            assert watching.backend == "poll"
            taken.pop().close()
            for _ in range(4):
                watching.follow(tree.listed())
            assert watching.backend == "inotify"
            tree.bundle("c1")
            await inbox.hint("ns", "c1")
        taken.pop().close()

    in_user_namespace(tree, {"instances": 2}, lambda: anyio.run(step_down_and_up))


@pytest.mark.fault("no watch left")
def test_no_watch_left_in_the_kernel(tree: Tree) -> None:
    async def step_down() -> None:
        watching, inbox = Watching(tree.layout), Inbox()
        async with running(watching, inbox):
            assert watching.backend == "inotify"
            for number in range(40):
                tree.bundle(f"c{number}")
            await inbox.resync(BACKEND)
            assert watching.backend == "poll"
            assert "max_user_watches" in watching.reason

    in_user_namespace(tree, {"watches": 30}, lambda: anyio.run(step_down))


@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_watchfiles_without_inotify_polls(tree: Tree, limit: str) -> None:
    async def step_down() -> None:
        watching, inbox = Watching(tree.layout, "watchfiles"), Inbox()
        async with running(watching, inbox):
            await inbox.until(lambda: watching.backend == "poll")
            await inbox.until(lambda: inbox.kinds().count(BACKEND) >= 2)
            tree.bundle("c1")
            await inbox.hint("ns", "c1")

    in_user_namespace(tree, {limit: 0}, lambda: anyio.run(step_down))
