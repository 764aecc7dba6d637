"""Where we stand, compared with processes that stand elsewhere."""

import os
from pathlib import Path

import pytest

from reconciler.model.evidence import Answer
from reconciler.probe import namespaces
from reconciler.probe.namespaces import Namespaces, TreeMount, namespaces_of, same
from tests.probe.world import World
from tests.support.mountns import mount, private_mounts, tmpfs

MS_SHARED = 1 << 20


def test_our_child_stands_where_we_do(world: World) -> None:
    ours, theirs = namespaces_of(), namespaces_of(world.child())
    assert ours.pid == os.readlink("/proc/self/ns/pid")
    assert ours == theirs
    assert same(ours.mnt, theirs.mnt) is Answer.YES


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")
def test_a_process_in_other_namespaces_stands_elsewhere(world: World) -> None:
    other = world.start("unshare", "-m", "sh", "-c", "echo; read x")
    ours, theirs = namespaces_of(), namespaces_of(other)
    assert same(ours.mnt, theirs.mnt) is Answer.NO
    assert same(ours.pid, theirs.pid) is Answer.YES


def test_a_process_that_is_gone_gives_no_answer(world: World) -> None:
    assert namespaces_of(world.dead()) == Namespaces()
    assert same(namespaces_of().pid, None) is Answer.NONE


def test_a_kernel_without_time_namespaces_is_the_same_everywhere(tmp_path: Path) -> None:
    for who in ("self", "7"):
        (tmp_path / who / "ns").mkdir(parents=True)
        (tmp_path / who / "ns" / "pid").symlink_to("pid:[1]")
    ours = namespaces_of(proc=os.fsencode(tmp_path))
    theirs = namespaces_of(7, os.fsencode(tmp_path))
    assert same(ours.time, theirs.time) is Answer.YES
    assert same(ours.pid, theirs.pid) is Answer.YES


def test_a_listener_tells_its_pid(world: World) -> None:
    world.listen(world.base / "s")
    assert namespaces.peer_pid(os.fsencode(world.base / "s")) == os.getpid()
    assert namespaces.peer_pid(os.fsencode(world.base / "absent")) is None


def test_a_listener_that_takes_nobody_tells_nothing_in_time(world: World) -> None:
    world.listen(world.base / "s", backlog=0)
    path = os.fsencode(world.base / "s")
    answers = {namespaces.peer_pid(path, timeout=0.01) for _ in range(4)}
    assert answers <= {os.getpid(), None}


@private_mounts
def test_the_trees_mount_is_found(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    (tmp_path / "tree").mkdir()
    found = namespaces.tree_mount(os.fsencode(tmp_path / "tree"))
    assert found is not None
    assert (found.fstype, found.peer) == ("tmpfs", None)
    mount(None, tmp_path, None, MS_SHARED)
    shared = namespaces.tree_mount(os.fsencode(tmp_path))
    assert shared is not None
    assert shared.peer is not None


def test_a_tree_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        namespaces.tree_mount(os.fsencode(tmp_path / "absent"))


@private_mounts
def test_peers_share_a_mount_and_slaves_do_not(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    mount(None, tmp_path, None, MS_SHARED)
    here = namespaces.tree_mount(os.fsencode(tmp_path))
    assert here is not None
    world = World(tmp_path / "world")
    for propagation, answer in (
        ("unchanged", Answer.YES),
        ("slave", Answer.NO),
        ("private", Answer.NO),
    ):
        command = ("unshare", "-m", "--propagation", propagation, "sh", "-c", "echo; read x")
        assert namespaces.shares_mount(here, world.start(*command)) is answer, propagation
    world.close()


def test_a_mount_that_is_not_shared_is_shared_with_nobody() -> None:
    assert namespaces.shares_mount(TreeMount("tmpfs", None), os.getpid()) is Answer.NO


def test_a_mount_table_that_is_gone_gives_no_answer(world: World) -> None:
    assert namespaces.shares_mount(TreeMount("tmpfs", 5), world.dead()) is Answer.NONE
