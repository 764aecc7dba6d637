"""A tree is a root's only if its bundles say so; another one's stale database proves nothing."""

import os
from pathlib import Path

import pytest

from reconciler.containerd.witness import ask
from reconciler.model.evidence import ContainerdState
from reconciler.model.layout import TASKS
from reconciler.probe import owner
from reconciler.probe.owner import doubt_about_root
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.safety

NAME = TASKS.decode()


class Tree:
    """A state tree without a containerd, and a database that nobody holds."""

    def __init__(self, base: Path) -> None:
        self.fake = FakeContainerd(base)
        self.layout = self.fake.layout
        self.tasks = Path(os.fsdecode(self.layout.tasks))
        self.root = Path(os.fsdecode(self.layout.root))
        self.fake.leave_lock()

    def bundle(self, id_: str, root: Path | str | None, namespace: str = "k8s.io") -> Path:
        made = self.tasks / namespace / id_
        made.mkdir(parents=True)
        if root is not None:
            (made / "work").symlink_to(f"{root}/{NAME}/{namespace}/{id_}")
        return made

    async def state(self) -> ContainerdState:
        said = await ask(self.layout)
        if said.state is ContainerdState.NONE:
            assert said.detail.endswith("; is --root right?"), said.detail
        return said.state


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.fault("a wrong root with a stale database")
async def test_a_stale_database_of_another_root_never_proves_containerd_down(tree: Tree) -> None:
    tree.bundle("a", "/var/lib/rancher/k3s/agent/containerd")
    assert "/var/lib/rancher/k3s/agent/containerd" in doubt_about_root(tree.layout)
    assert await tree.state() is ContainerdState.NONE


async def test_a_stopped_containerd_is_down_where_the_bundles_are_its_own(tree: Tree) -> None:
    for name in ("a", "b"):
        tree.bundle(name, tree.root)
    tree.bundle("damaged", None)
    assert doubt_about_root(tree.layout) == ""
    assert await tree.state() is ContainerdState.DOWN


async def test_one_bundle_of_another_root_is_enough_for_a_doubt(tree: Tree) -> None:
    for name in ("a", "b", "c"):
        tree.bundle(name, tree.root)
    tree.bundle("d", "/elsewhere", "other")
    assert await tree.state() is ContainerdState.NONE


@pytest.mark.parametrize("target", [None, "", "/etc", f"x/{NAME}/k8s.io/a", f"/r/{NAME}/k8s.io/b"])
async def test_bundles_that_name_no_root_are_nobodys(tree: Tree, target: str | None) -> None:
    made = tree.bundle("a", None)
    if target is not None:
        (made / "work").symlink_to(target or ".")
    assert "no bundle" in doubt_about_root(tree.layout)
    assert await tree.state() is ContainerdState.NONE


async def test_work_that_is_no_link_names_nobody(tree: Tree) -> None:
    (tree.bundle("a", None) / "work").mkdir()
    assert await tree.state() is ContainerdState.NONE


@pytest.mark.parametrize("make", [False, True], ids=["no tree", "an empty tree"])
async def test_an_empty_tree_is_anybodys(tree: Tree, make: bool) -> None:
    if make:
        (tree.tasks / "k8s.io" / ".hidden").mkdir(parents=True)
        (tree.tasks / "k8s.io" / "file").touch()
    assert await tree.state() is ContainerdState.DOWN


async def test_a_root_is_the_same_by_its_real_name(tree: Tree, tmp_path: Path) -> None:
    tree.root.rename(tmp_path / "disk")
    tree.root.symlink_to(tmp_path / "disk")
    tree.bundle("a", tree.root)
    tree.bundle("b", tmp_path / "disk")
    tree.bundle("c", f"{tree.root}/./x/..")
    assert await tree.state() is ContainerdState.DOWN


def test_a_link_is_read_and_never_followed(tree: Tree) -> None:
    loop = tree.bundle("a", None) / "work"
    loop.symlink_to(loop)
    (tree.tasks / "k8s.io" / "b").symlink_to(tree.bundle("c", tree.root, "other"))
    assert doubt_about_root(tree.layout) == ""


def test_only_so_many_are_asked(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "MOST", 3)
    for number in range(10):
        tree.bundle(str(number), tree.root)
    before = len(os.listdir("/proc/self/fd"))
    assert doubt_about_root(tree.layout) == ""
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_that_is_no_directory_is_in_doubt(tree: Tree) -> None:
    tree.tasks.parent.mkdir()
    tree.tasks.touch()
    assert "cannot be read" in doubt_about_root(tree.layout)
