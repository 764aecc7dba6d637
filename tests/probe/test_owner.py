"""A tree is a root's only if its bundles say so; another one's stale database proves nothing."""

import os
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from reconciler.model.evidence import ContainerdState
from reconciler.model.layout import TASKS
from reconciler.probe import owner
from reconciler.probe.owner import Vouchers, doubt_about_root
from tests.support.asking import ask
from tests.support.fake_containerd import FakeContainerd
from tests.support.handles import open_files
from tests.support.mountns import private_mounts, tmpfs

pytestmark = pytest.mark.safety

NAME = TASKS.decode()
MANY = 300


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


@pytest.mark.fault("a wrong root with a stale database")
@pytest.mark.parametrize("position", [0, 150, MANY - 1])
async def test_one_of_another_root_is_found_among_however_many(tree: Tree, position: int) -> None:
    for number in range(MANY):
        tree.bundle(str(number), tree.root)
    assert await tree.state() is ContainerdState.DOWN
    namespace = tree.tasks / "k8s.io"
    other = namespace / os.listdir(namespace)[position] / "work"
    other.unlink()
    other.symlink_to(f"/elsewhere/{NAME}/k8s.io/{other.parent.name}")
    assert await tree.state() is ContainerdState.NONE
    assert "/elsewhere" in doubt_about_root(tree.layout)


@pytest.mark.fault("a wrong root with a stale database")
async def test_one_that_names_its_root_speaks_for_however_many_that_do_not(tree: Tree) -> None:
    for number in range(MANY):
        tree.bundle(str(number), None)
    assert await tree.state() is ContainerdState.NONE
    namespace = tree.tasks / "k8s.io"
    last = namespace / os.listdir(namespace)[-1]
    (last / "work").symlink_to(f"{tree.root}/{NAME}/k8s.io/{last.name}")
    assert await tree.state() is ContainerdState.DOWN


@pytest.mark.fault("a wrong root with a stale database")
def test_too_little_time_for_all_is_a_doubt_and_leaves_nothing_open(tree: Tree) -> None:
    for number in range(10):
        tree.bundle(str(number), tree.root)
    before = open_files()
    assert "more bundles than could be asked" in doubt_about_root(tree.layout, budget=-1.0)
    assert doubt_about_root(tree.layout) == ""
    assert open_files() <= before


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The links that were read, where times show each change: nobody has just changed anything."""
    read: list[bytes] = []
    root_of = owner._root_of

    def reading(bundle: int, tail: bytes) -> bytes | None:
        read.append(tail)
        return root_of(bundle, tail)

    monkeypatch.setattr(owner, "_root_of", reading)
    monkeypatch.setattr(owner, "QUIET", -3600.0)
    return read


def test_bundles_are_asked_again_only_if_one_may_have_come(tree: Tree, asked: list[bytes]) -> None:
    for number in range(10):
        tree.bundle(str(number), tree.root)
    vouchers = Vouchers()
    for _ in range(3):
        assert doubt_about_root(tree.layout, vouchers) == ""
        assert len(asked) == 10
    (tree.tasks / "k8s.io" / "3" / "work").unlink()
    (tree.tasks / "k8s.io" / "3").rmdir()
    assert doubt_about_root(tree.layout, vouchers) == ""
    assert len(asked) == 19


@pytest.mark.parametrize("where", ["a/new", "new/new", "a/renamed", "another tree", "another root"])
def test_whoever_comes_later_is_asked(tree: Tree, asked: list[bytes], where: str) -> None:
    for namespace in ("a", "b"):
        tree.bundle("x", tree.root, namespace)
    vouchers = Vouchers()
    assert doubt_about_root(tree.layout, vouchers) == ""
    layout, doubt = tree.layout, "/elsewhere"
    match where:
        case "another tree":
            tree.tasks.rename(tree.tasks.with_name("aside"))
            tree.bundle("x", "/elsewhere", "a")
            tree.bundle("x", "/elsewhere", "b")
        case "another root":
            layout, doubt = replace(layout, root=b"/elsewhere"), os.fspath(tree.root)
        case _:
            namespace, _, name = where.partition("/")
            made = tree.bundle("new", "/elsewhere", "aside")
            (tree.tasks / namespace).mkdir(exist_ok=True)
            os.unlink(made / "work")
            (made / "work").symlink_to(f"/elsewhere/{NAME}/{namespace}/{name}")
            made.rename(tree.tasks / namespace / name)
    assert doubt in doubt_about_root(layout, vouchers)


def test_nothing_is_remembered_of_what_may_change_unseen(
    tree: Tree, asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times may not show it, or a bundle has no link yet."""
    tree.bundle("a", tree.root)
    vouchers = Vouchers()
    with monkeypatch.context() as patch:
        patch.setattr(owner, "QUIET", 3600.0)
        doubt_about_root(tree.layout, vouchers)
    assert doubt_about_root(tree.layout, vouchers) == ""
    assert len(asked) == 2
    bare = tree.bundle("b", None)
    assert doubt_about_root(tree.layout, vouchers) == ""
    (bare / "work").symlink_to(f"/elsewhere/{NAME}/k8s.io/b")
    assert "/elsewhere" in doubt_about_root(tree.layout, vouchers)


@pytest.mark.parametrize("covered", ["k8s.io/a", "k8s.io"], ids=["a bundle", "a namespace"])
@private_mounts
def test_a_tree_is_not_empty_because_what_is_in_it_is_covered(tmp_path: Path, covered: str) -> None:
    tree = Tree(tmp_path)
    tree.bundle("a", "/elsewhere")
    tmpfs(tree.tasks / covered)
    assert anyio.run(tree.state) is ContainerdState.NONE


def test_a_tree_that_is_no_directory_is_in_doubt(tree: Tree) -> None:
    tree.tasks.parent.mkdir()
    tree.tasks.touch()
    assert "cannot be read" in doubt_about_root(tree.layout)
