"""A root that appears, goes away or is another one is noticed, and so it is with its parents."""

import os
import shutil
from pathlib import Path

import pytest

from reconciler.model.ids import BundleKey
from reconciler.model.observations import ResyncKind
from reconciler.watch.inotify import InotifyBackend
from tests.watch.support import Inbox, Tree, eventually, running, turn, watches

pytestmark = pytest.mark.kernel


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "run" / "containerd")
    tree.namespace()
    return tree


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.mark.fault("root absent, created later")
async def test_a_root_that_appears_is_noticed(tmp_path: Path, inbox: Inbox) -> None:
    tree = Tree(tmp_path / "run" / "containerd", make=False)
    async with running(InotifyBackend(tree.layout), inbox):
        os.makedirs(tree.root / "ns" / "c1")
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        inbox.forget()
        (tree.root / "ns" / "c1" / "file").touch()
        await inbox.hint("ns", "c1")


@pytest.mark.fault("root absent, created later")
async def test_a_root_that_appears_step_by_step_is_noticed(tmp_path: Path, inbox: Inbox) -> None:
    tree = Tree(tmp_path / "a" / "b" / "c", make=False)
    async with running(InotifyBackend(tree.layout), inbox):
        for path in (tmp_path / "a", tmp_path / "a" / "b", tree.state):
            before = watches()
            path.mkdir()
            assert await eventually(lambda: watches() > before)  # noqa: B023 -- it is awaited
        tree.root.mkdir()
        await inbox.resync(ResyncKind.ROOT_CHANGED)


@pytest.mark.fault("I17", "root deleted")
@pytest.mark.parametrize("held", [False, True], ids=["free", "held open"])
@pytest.mark.parametrize("levels", [1, 2, 3])
async def test_a_root_deleted_with_its_parents_and_made_again_is_noticed(
    tree: Tree, inbox: Inbox, levels: int, held: bool, tmp_path: Path
) -> None:
    top = [tree.root, tree.state, tree.state.parent][levels - 1]
    handle = os.open(top, os.O_PATH) if held else -1
    try:
        async with running(InotifyBackend(tree.layout), inbox):
            shutil.rmtree(top)
            await inbox.resync(ResyncKind.ROOT_CHANGED)
            inbox.forget()
            os.makedirs(tree.root / "ns" / "c1")
            await inbox.resync(ResyncKind.ROOT_CHANGED)
            (tree.root / "ns" / "c1" / "file").touch()
            await inbox.hint("ns", "c1")
    finally:
        if held:
            os.close(handle)


@pytest.mark.fault("I17", "root renamed")
@pytest.mark.parametrize("levels", [1, 2, 3])
async def test_a_root_renamed_and_replaced_is_noticed(
    tree: Tree, inbox: Inbox, levels: int
) -> None:
    tree.bundle("old")
    top = [tree.root, tree.state, tree.state.parent][levels - 1]
    async with running(InotifyBackend(tree.layout), inbox):
        away = top.rename(top.with_name("away"))
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        os.makedirs(tree.root / "ns" / "new")
        await inbox.until(lambda: inbox.kinds().count(ResyncKind.ROOT_CHANGED) > 1)
        inbox.forget()
        next(away.rglob("old")).joinpath("file").touch()
        (tree.root / "ns" / "new" / "file").touch()
        await inbox.hint("ns", "new")
        assert set(inbox.hints()) == {BundleKey("ns", "new")}


async def test_a_root_made_again_at_once_is_noticed(tree: Tree, inbox: Inbox) -> None:
    """It may even get the same inode number."""
    tree.bundle("old")
    async with running(InotifyBackend(tree.layout), inbox):
        shutil.rmtree(tree.root)
        bundle = tree.bundle("new")
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        await turn()
        inbox.forget()
        (bundle / "file").touch()
        await inbox.hint("ns", "new")


@pytest.mark.fault("root renamed")
async def test_a_root_renamed_back_is_watched_again(tree: Tree, inbox: Inbox) -> None:
    tree.bundle("c1")
    async with running(InotifyBackend(tree.layout), inbox):
        away = tree.root.rename(tree.root.with_name("away"))
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        inbox.forget()
        away.rename(tree.root)
        await inbox.resync(ResyncKind.ROOT_CHANGED)
        (tree.root / "ns" / "c1" / "file").touch()
        await inbox.hint("ns", "c1")
