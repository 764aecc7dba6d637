"""The watchfiles backend sees what comes and goes, and doubts everything when it starts again."""

import os
import shutil
from pathlib import Path

import anyio
import pytest

from reconciler.model.ids import BundleKey
from reconciler.model.observations import ResyncKind
from reconciler.watch.watchfiles import WatchfilesBackend
from tests.watch.support import Inbox, Tree, running

pytestmark = pytest.mark.kernel

BACKEND = ResyncKind.BACKEND


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "run")
    tree.namespace()
    return tree


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture(params=[False, True], ids=["watchfiles", "poll"])
def backend(request: pytest.FixtureRequest, tree: Tree) -> WatchfilesBackend:
    return WatchfilesBackend(tree.layout, polling=request.param)


async def test_bundles_that_come_and_go_are_hinted_at(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        bundle = tree.bundle("c1")
        await inbox.hint("ns", "c1")
        inbox.forget()
        bundle.rmdir()
        await inbox.hint("ns", "c1")


async def test_names_that_others_filter_out_are_told(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        for name in ("node_modules", "c1.pyc", "c1.swp"):
            tree.bundle(name)
        for name in ("node_modules", "c1.pyc", "c1.swp"):
            await inbox.hint("ns", name)


async def test_a_name_it_cannot_tell_is_a_doubt(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        inbox.forget()
        os.mkdir(os.fsencode(tree.root) + b"/ns/\xff\xfe")
        await inbox.resync(BACKEND)  # it stumbles, and begins anew
        tree.bundle("c1")
        await inbox.hint("ns", "c1")


async def test_a_hidden_name_is_not_told(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        (tree.root / "ns" / ".c1").mkdir()
        tree.bundle("c2")
        await inbox.hint("ns", "c2")
    assert set(inbox.hints()) == {BundleKey("ns", "c2")}


async def test_a_new_namespace_is_doubted_and_watched(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        inbox.forget()
        tree.namespace("new")
        await inbox.resync(BACKEND)
        tree.bundle("c1", "new")
        await inbox.hint("new", "c1")


async def test_a_namespace_of_an_impossible_name_is_passed_over(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    os.mkdir(os.fsencode(tree.root) + b"/\xff")
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        tree.bundle("c1")
        await inbox.hint("ns", "c1")


async def test_a_root_that_comes_goes_and_comes_is_noticed(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    shutil.rmtree(tree.state)
    async with running(backend, inbox):
        for _ in range(2):
            os.makedirs(tree.root / "ns")
            await inbox.resync(ResyncKind.ROOT_CHANGED)
            await inbox.resync(BACKEND)
            inbox.forget()
            tree.bundle("c1")
            await inbox.hint("ns", "c1")
            inbox.forget()
            shutil.rmtree(tree.state)
            await inbox.resync(ResyncKind.ROOT_CHANGED)
            inbox.forget()


async def test_a_root_replaced_is_noticed(
    backend: WatchfilesBackend, tree: Tree, inbox: Inbox
) -> None:
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        tree.root.rename(tree.root.with_name("away"))
        os.makedirs(tree.root / "ns")
        await inbox.resync(ResyncKind.ROOT_CHANGED)


async def test_polling_sees_files_come_and_go_in_a_bundle(tree: Tree, inbox: Inbox) -> None:
    bundle = tree.bundle("c1")
    os.utime(bundle, (1, 1))  # it compares whole seconds
    async with running(WatchfilesBackend(tree.layout, polling=True), inbox):
        await inbox.resync(BACKEND)
        (bundle / "init.pid").touch()
        await inbox.hint("ns", "c1")


async def test_it_ends_soon_when_cancelled(backend: WatchfilesBackend, inbox: Inbox) -> None:
    """Its thread hears nothing of cancellation and must be told."""
    async with running(backend, inbox):
        await inbox.resync(BACKEND)
        began = anyio.current_time()
    assert anyio.current_time() - began < 1.0
