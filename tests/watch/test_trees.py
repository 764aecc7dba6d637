"""Both trees of a containerd are watched, whichever backend does it."""

import os
from pathlib import Path

import pytest

from reconciler.model.ids import SANDBOX_TREE, BundleKey
from reconciler.model.layout import SANDBOXES
from reconciler.model.observations import HintKind, ResyncKind
from reconciler.watch.select import Choice, Trees
from tests.watch.support import Inbox, Tree, running, watches

pytestmark = pytest.mark.kernel

POD = BundleKey("ns", "pod", SANDBOX_TREE)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "run" / "containerd")
    tree.namespace()
    return tree


def sandboxes(tree: Tree) -> Path:
    return tree.state / SANDBOXES.decode() / "ns"


async def told(inbox: Inbox, key: BundleKey) -> None:
    await inbox.until(lambda: key in inbox.hints(HintKind.CHANGED))


@pytest.mark.parametrize("backend", ["inotify", "watchfiles", "poll"])
async def test_a_sandbox_that_comes_and_goes_is_hinted_at_as_what_it_is(
    tree: Tree, backend: Choice
) -> None:
    inbox, watcher = Inbox(), Trees(tree.layout, backend)
    sandboxes(tree).mkdir(parents=True)
    watcher.follow([])
    async with running(watcher, inbox):
        if backend != "inotify":
            await inbox.until(lambda: inbox.kinds().count(ResyncKind.BACKEND) > 1)
        (sandboxes(tree) / "pod").mkdir()
        await told(inbox, POD)
        tree.bundle("pod")
        await told(inbox, POD.task)
        inbox.forget()
        (sandboxes(tree) / "pod").rmdir()
        await told(inbox, POD)
        assert POD.task not in inbox.hints()


async def test_a_tree_that_appears_later_is_watched_from_the_next_listing_on(tree: Tree) -> None:
    inbox, watcher = Inbox(), Trees(tree.layout)
    async with running(watcher, inbox):
        watcher.follow([])
        (sandboxes(tree) / "pod").mkdir(parents=True)
        watcher.follow([POD])
        await inbox.resync(ResyncKind.ROOT_CHANGED)  # whatever happened to it meanwhile
        (sandboxes(tree) / "pod" / "bootstrap.json").touch()
        await told(inbox, POD)
        assert watcher.backend == "inotify"
        assert watcher.reason == ""


async def test_a_node_without_that_tree_pays_nothing(tree: Tree) -> None:
    def instances() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum("inotify" in os.readlink(one) for one in links if one.is_symlink())

    inbox, watcher = Inbox(), Trees(tree.layout)
    before = instances()
    async with running(watcher, inbox):
        watcher.follow([])
        assert instances() == before + 1
        assert watches() > 0


async def test_a_link_in_place_of_the_tree_is_not_watched(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "ns").mkdir(parents=True)
    (tree.state / SANDBOXES.decode()).symlink_to(tmp_path / "elsewhere")
    inbox, watcher = Inbox(), Trees(tree.layout)
    watcher.follow([])
    async with running(watcher, inbox):
        (tmp_path / "elsewhere" / "ns" / "pod").mkdir()
        tree.bundle("c1")
        await inbox.hint("ns", "c1")
    assert POD not in inbox.hints()
