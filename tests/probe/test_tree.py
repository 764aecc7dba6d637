"""Listings of the state tree, and whether it is one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reconciler.model.evidence import Look
from reconciler.model.hidden import hidden_name, parse_hidden
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.probe.checks import ProblemKind, check_tree
from reconciler.probe.tree import TreeInspector
from tests.probe.world import KEY, World, nobody

if TYPE_CHECKING:
    from reconciler.ports import Inspector


def sees(inspector: "Inspector") -> bool:
    with inspector.moment():
        return inspector.list().present and inspector.look(KEY) is None


def test_the_eyes_are_what_the_loop_expects(world: World) -> None:
    assert sees(world.inspector())


def test_every_name_is_listed_with_its_identity(world: World) -> None:
    world.bundle("a")
    world.bundle("b", namespace="k8s.io")
    world.path("file").touch()
    (world.tree / "stray").touch()
    inspector = world.inspector()
    listed = inspector.list()
    assert listed.answered
    assert listed.namespace is None
    keys = {seen.key for seen in listed.bundles}
    names = (("default", "a"), ("k8s.io", "b"), ("default", "file"))
    assert keys == {BundleKey(*one) for one in names}
    for seen in listed.bundles:
        look = inspector.look(seen.key)
        assert isinstance(look, Look)
        assert look.identity == seen.identity


def test_one_namespace_is_listed_alone(world: World) -> None:
    world.bundle("a")
    world.bundle("b", namespace="k8s.io")
    listed = world.inspector().list("default")
    assert [seen.key for seen in listed.bundles] == [BundleKey("default", "a")]
    assert listed.namespace == "default"
    absent = world.inspector().list("absent")
    assert (absent.answered, absent.present, absent.bundles) == (True, True, ())


@pytest.mark.parametrize("namespace", ["..", ".", "a/b", "../../..", "", r"\x2e\x2e", r"a\x2fb"])
def test_what_is_no_namespace_is_not_walked(world: World, namespace: str) -> None:
    world.bundle()
    assert world.inspector().list(namespace).bundles == ()


@pytest.mark.fault("hidden .id")
def test_hidden_names_are_told_from_our_own(world: World) -> None:
    here = world.bundle()
    ino = here.stat().st_ino
    ours = hidden_name(ino, b"8 bytes!")
    here.rename(here.parent / ours)
    (here.parent / ".c2").mkdir()
    stolen = hidden_name(ino + 1, b"8 bytes!")
    (here.parent / stolen).mkdir()
    (world.tree / ".hidden" / "c3").mkdir(parents=True)
    listed = world.inspector().list()
    assert listed.bundles == ()
    found = {hidden.key.id: hidden.ours for hidden in listed.hidden}
    assert found == {ours: True, ".c2": False, stolen: False}
    assert {hidden.key.namespace for hidden in listed.hidden} == {"default"}


@pytest.mark.parametrize("name", [".reconciler-", ".c1", ".reconciler-0-0123456789abcdef", "x"])
def test_other_names_are_not_ours(name: str) -> None:
    assert parse_hidden(name) is None
    assert parse_hidden(hidden_name(255, b"8 bytes!")) == 255


def test_symlinks_are_listed_and_not_followed(world: World) -> None:
    world.bundle()
    (world.tree / "alias").symlink_to(world.tree / "default")
    world.path("link").symlink_to(world.path())
    keys = {seen.key for seen in world.inspector().list().bundles}
    assert keys == {KEY, BundleKey("default", "link")}


def test_hostile_names_are_listed(world: World) -> None:
    names = [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"n" * 255]
    for name in names:
        os.makedirs(os.path.join(os.fsencode(world.tree), b"\xffns", name))
    listed = world.inspector().list()
    assert {seen.key for seen in listed.bundles} == {
        BundleKey(r"\xffns", escape(name)) for name in names
    }
    assert len(world.inspector().list(r"\xffns").bundles) == len(names)


def test_a_tree_that_is_absent_is_not_present(tmp_path: Path) -> None:
    inspector = TreeInspector(Layout(state=os.fsencode(tmp_path / "absent")))
    listed = inspector.list()
    assert (listed.answered, listed.present) == (True, False)
    inspector.close()


def test_a_tree_that_comes_and_goes_is_followed(world: World) -> None:
    inspector = world.inspector()
    world.bundle()
    assert len(inspector.list().bundles) == 1
    world.tree.rename(world.base / "away")
    assert not inspector.list().present
    assert inspector.look(KEY) is None
    (world.base / "away").rename(world.tree)
    assert len(inspector.list().bundles) == 1


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_tree_that_is_no_directory_gives_no_answer(tmp_path: Path, kind: str) -> None:
    layout = Layout(state=os.fsencode(tmp_path))
    tree = Path(os.fsdecode(layout.tasks))
    if kind == "file":
        tree.touch()
    else:
        (tmp_path / "real" / "default" / "c1").mkdir(parents=True)
        tree.symlink_to(tmp_path / "real")
    inspector = TreeInspector(layout)
    listed = inspector.list()
    assert (listed.answered, listed.bundles) == (False, ())
    inspector.close()


def test_no_permission_is_no_answer(open_world: World) -> None:
    open_world.bundle()
    open_world.tree.chmod(0o711)
    (open_world.tree / "default").chmod(0o711)
    with nobody():
        whole, one = open_world.inspector().list(), open_world.inspector().list("default")
        problem = check_tree(open_world.layout)
    assert not whole.answered
    assert not one.answered
    assert problem is not None
    assert problem.kind is ProblemKind.NO_PERMISSION


# ---------------------------------------------------------------------- is it one at all?


def problem_of(path: Path | str) -> ProblemKind | None:
    problem = check_tree(Layout(state=os.fsencode(path)))
    if problem is not None:
        assert "\n" not in problem.what + problem.hint
        assert problem.hint
    return None if problem is None else problem.kind


def test_a_state_directory_is_no_problem(world: World) -> None:
    assert problem_of(world.base / "run") is None


@pytest.mark.fault("I21")
@pytest.mark.parametrize(
    "path", ["/", "/run", "/run/", "//run/.", "/var/run", "/tmp", "/etc", "run", ""]
)
def test_broad_directories_are_dangerous(path: str) -> None:
    assert problem_of(path) is ProblemKind.DANGEROUS


def test_a_path_with_dots_is_dangerous(tmp_path: Path) -> None:
    assert problem_of(f"{tmp_path}/x/..") is ProblemKind.DANGEROUS


def test_a_way_to_a_broad_directory_is_dangerous(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    assert problem_of(tmp_path / "root" / "run") is ProblemKind.DANGEROUS


def test_a_missing_directory_is_said_so(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "absent") is ProblemKind.MISSING
    (tmp_path / "file").touch()
    assert problem_of(tmp_path / "file" / "below") is ProblemKind.MISSING
    assert problem_of(tmp_path / "file") is ProblemKind.NOT_A_DIRECTORY


@pytest.mark.fault("I21")
def test_a_symlink_is_refused(world: World) -> None:
    (world.base / "link").symlink_to(world.base / "run")
    assert problem_of(world.base / "link") is ProblemKind.SYMLINK
    world.tree.rename(world.base / "tree")
    world.tree.symlink_to(world.base / "tree")
    assert problem_of(world.base / "run") is ProblemKind.SYMLINK


@pytest.mark.fault("I21")
def test_another_directory_is_not_containerds(tmp_path: Path) -> None:
    (tmp_path / "home" / "documents").mkdir(parents=True)
    assert problem_of(tmp_path / "home") is ProblemKind.NOT_CONTAINERD


def test_a_containerd_without_tasks_yet_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "io.containerd.grpc.v1.cri").mkdir()
    assert problem_of(tmp_path) is None
