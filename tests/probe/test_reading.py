"""Reading triggers nothing: what is not a regular file is never opened, and no mount is crossed."""

import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Entries,
    InitState,
    Kind,
    Look,
    RuntimeState,
    ShimState,
)
from reconciler.probe.folder import LIMITS, Unread, read_files, read_folder
from tests.probe.world import KEY, World, nobody
from tests.support.deadfuse import dead_fuse
from tests.support.handles import open_files
from tests.support.mountns import bind, private_mounts, tmpfs
from tests.support.opens import opened_of


def test_the_collector_notices_an_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with opened_of([tmp_path / "fifo"]) as opened:
        os.close(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK))
    assert opened == ["fifo"]


@pytest.mark.fault("I25")
def test_no_fifo_is_opened_whatever_its_name(world: World) -> None:
    here = world.bundle()
    state = world.state_dir() / "state.json"
    fifos = [here / name for name in (*LIMITS, "log", "log.json", "runtime", "x")] + [state]
    for path in fifos:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    os.mkfifo(here / "rootfs" / "inside")
    with opened_of([*fifos, here / "rootfs" / "inside"]) as opened:
        look = world.look()
    assert opened == []
    assert look.entries & Entries.BOOTSTRAP
    assert look.init.state is InitState.ABSENT


def test_no_fifo_of_a_sandbox_is_opened(world: World) -> None:
    (world.bundle("c1", annotations={"io.kubernetes.cri.sandbox-id": "pod"}) / "address").unlink()
    pod = world.bundle("pod")
    names = ("shim-binary-path", "bootstrap.json", "address")
    for name in names:
        (pod / name).unlink(missing_ok=True)
        os.mkfifo(pod / name)
    with opened_of([pod / name for name in names]) as opened:
        world.look()
    assert opened == []


def test_no_symlink_is_followed(world: World) -> None:
    here = world.bundle()
    target = world.base / "target"
    target.write_text(str(os.getpid()))
    for name in LIMITS:
        (here / name).unlink(missing_ok=True)
        (here / name).symlink_to(target)
    state = world.state_dir() / "state.json"
    state.unlink()
    state.symlink_to(target)
    with opened_of([target]) as opened:
        look = world.look()
    assert opened == []
    assert look.init.state is InitState.ABSENT


@pytest.mark.fault("I25")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device")
def test_no_device_is_opened(world: World) -> None:
    here = world.bundle()
    (here / "config.json").unlink()
    os.mknod(here / "config.json", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with opened_of([here / "config.json"]) as opened:
        assert not world.look().labels.known
    assert opened == []


@pytest.mark.parametrize("name", LIMITS)
def test_a_file_over_its_limit_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x" * (LIMITS[name] + 1))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert read_folder(fd, frozenset()).files[name] is Unread.UNUSABLE
        (tmp_path / name).write_bytes(b"x" * LIMITS[name])
        assert read_folder(fd, frozenset()).text(name) == b"x" * LIMITS[name]
        assert read_files(fd, [name]).text(name) == b"x" * LIMITS[name]
    finally:
        os.close(fd)


def test_a_file_that_may_not_be_read_is_no_answer(open_world: World) -> None:
    here = open_world.bundle()
    for name in LIMITS:
        (here / name).touch()
        (here / name).chmod(0)
    with nobody():
        look = open_world.look()
    assert look.init.state is InitState.NONE
    assert look.shim.state is ShimState.NONE
    assert look.runtime.state is RuntimeState.NONE
    assert look.cgroup is CgroupState.NONE
    assert not look.labels.known


def test_a_bundle_that_may_not_be_listed_is_no_answer(open_world: World) -> None:
    here = open_world.bundle()
    here.chmod(0o711)
    with nobody():
        look = open_world.look()
    assert look.identity.ino == here.stat().st_ino
    assert look.init.state is InitState.NONE
    assert look.created is Answer.NONE


def test_runc_state_that_may_not_be_read_is_no_answer(open_world: World) -> None:
    (open_world.bundle() / "init.pid").unlink()
    open_world.state_dir().chmod(0o700)
    with nobody():
        look = open_world.look()
    assert look.init.state is InitState.NONE
    assert look.created is Answer.NONE


def test_nothing_stays_open(world: World) -> None:
    world.bundle()
    inspector = world.inspector()
    inspector.list()
    inspector.look(KEY)
    before = open_files()
    for _ in range(3):
        with inspector.moment():
            inspector.list()
            inspector.look(KEY)
    assert open_files() <= before
    tree = str(world.base)
    assert not [link for link in before if f" {tree}" in link]


# ---------------------------------------------------------------------- mounts


@private_mounts
def test_mounts_are_named_and_not_entered(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    (here / "extra").mkdir()
    before = world.look().size_bytes
    for name in ("rootfs", "extra"):
        tmpfs(here / name)
        (here / name / "big").write_bytes(b"x" * 1_000_000)
    look = world.look()
    assert [(mount.path, mount.fstype) for mount in look.mounts] == [
        ("rootfs", "tmpfs"),
        ("extra", "tmpfs"),
    ]
    assert look.size_bytes < before + 100_000
    world.close()


@private_mounts
def test_a_mount_deep_in_rootfs_is_named_and_not_entered(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    (here / "rootfs" / "data").mkdir()
    tmpfs(here / "rootfs" / "data")
    (here / "rootfs" / "data" / "big").write_bytes(b"x" * 1_000_000)
    look = world.look()
    assert [mount.path for mount in look.mounts] == ["rootfs/data"]
    assert look.size_bytes < 900_000
    world.close()


@private_mounts
def test_a_file_mounted_over_a_file_is_not_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    other = tmp_path / "other"
    other.write_text(str(world.child()))
    bind(other, here / "init.pid")
    with opened_of([other]) as opened:
        look = world.look()
    assert opened == []
    assert [mount.path for mount in look.mounts] == ["init.pid"]
    assert look.init.state is InitState.DEAD  # by runc's state
    world.close()


@private_mounts
def test_a_mount_over_a_bundle_hides_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    inspector = world.inspector()
    under = inspector.look(KEY)
    assert isinstance(under, Look)
    tmpfs(here)
    (here / "init.pid").write_text(str(world.child()))
    for refreshed in (False, True):  # also by eyes whose mount table is older
        with inspector.moment() if refreshed else nullcontext():
            look = inspector.look(KEY)
        assert isinstance(look, Look)
        assert look.kind is Kind.DIRECTORY
        assert look.identity != under.identity
        assert look.entries == Entries(0)
        assert look.init.state is InitState.NONE
        assert [mount.path for mount in look.mounts] == [""]
    world.close()


@pytest.mark.fault("same-filesystem bind")
@private_mounts
def test_a_bind_of_the_same_directory_over_itself_is_a_mount(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    bind(here, here)
    look = world.look()
    assert [mount.path for mount in look.mounts] == [""]
    assert look.init.state is InitState.NONE
    assert [seen.identity for seen in world.inspector().list().bundles] == [look.identity]
    world.close()


@pytest.mark.fault("I3")
@private_mounts
def test_a_namespace_under_a_mount_holds_no_bundles(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.bundle()
    tmpfs(world.tree / "default")
    world.path().mkdir()
    assert world.inspector().look(KEY) is None
    assert world.inspector().list().bundles == ()
    world.close()


@private_mounts
def test_a_tree_that_is_a_mount_is_looked_into(tmp_path: Path) -> None:
    world = World(tmp_path)
    tmpfs(world.base / "run")
    (world.base / "run" / "s").mkdir()
    world.bundle()
    assert world.look().init.state is InitState.DEAD
    assert [seen.key for seen in world.inspector().list().bundles] == [KEY]
    world.close()


@private_mounts
def test_an_empty_rootfs_on_a_tmpfs_tells_itself_by_its_size(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    world = World(tmp_path / "w")
    here = world.bundle()
    before = world.look().size_bytes
    (here / "rootfs" / "file").write_bytes(b"x" * 300_000)
    assert world.look().size_bytes - before >= 300_000
    world.close()


@private_mounts
def test_a_mount_below_a_tree_reached_through_a_symlink_is_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    world = World(tmp_path / "link" / "w")
    tmpfs(world.bundle() / "rootfs")
    assert [mount.path for mount in world.look().mounts] == ["rootfs"]
    world.close()


@pytest.mark.fault("dead FUSE on rootfs")
@pytest.mark.parametrize("refreshed", [True, False])
@private_mounts
def test_a_dead_filesystem_on_rootfs_holds_nobody_up(tmp_path: Path, refreshed: bool) -> None:
    world = World(tmp_path)
    here = world.bundle()
    inspector = world.inspector()
    server = dead_fuse(here / "rootfs")
    try:
        with inspector.moment() if refreshed else nullcontext():
            look = inspector.look(KEY)
    finally:
        os.close(server)
    assert isinstance(look, Look)
    assert look.init.state is InitState.DEAD
    assert [mount.path for mount in look.mounts] == (["rootfs"] if refreshed else [])
    world.close()


@private_mounts
def test_a_dead_filesystem_over_a_bundle_holds_nobody_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    here = world.bundle()
    server = dead_fuse(here)
    try:
        look = world.look()
        listed = world.inspector().list()
    finally:
        os.close(server)
    assert look.init.state is InitState.NONE
    assert [seen.key for seen in listed.bundles] == [KEY]
    world.close()
