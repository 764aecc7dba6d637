"""Control groups: how their names are resolved, and what real ones say."""

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import kernel
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe import cgroups, mounts, process
from reconciler.probe.cgroups import CgroupDir, CgroupMounts, Hierarchy
from reconciler.probe.context import NodeContext
from tests.probe.world import World

KEY = BundleKey("default", "c1")


@pytest.mark.parametrize(
    ("said", "paths"),
    [
        ("/default/c1", {"/default/c1"}),
        ("//default/./c1/", {"/default/c1"}),
        ("system.slice:cri-containerd:c1", {"/system.slice/cri-containerd-c1.scope"}),
        (":runc:c1", {"/system.slice/runc-c1.scope"}),
        ("-.slice:p:c1", {"/p-c1.scope"}),
        ("a-b-c.slice:p:c1", {"/a.slice/a-b.slice/a-b-c.slice/p-c1.scope"}),
        ("a.slice:p:b.slice", {"/a.slice/b.slice"}),
        ("a.slice::c1", {"/a.slice/c1.scope", "/a.slice/-c1.scope"}),
        ("", set()),
        ("/", set()),
        ("relative/c1", set()),
        ("/a/../", set()),
        ("/a\0", set()),
        ("/\ud800", set()),
        ("a:", set()),
        ("a:b:c:d", set()),
        ("noslice:p:c1", set()),
        ("a--b.slice:p:c1", set()),
        ("-a.slice:p:c1", set()),
        ("a/b.slice:p:c1", set()),
        ("a.slice:p:../../x", set()),
        ("a.slice:p:", set()),
    ],
)
def test_cgroups_path_is_resolved_as_runc_does(said: str, paths: set[str]) -> None:
    assert set(cgroups.resolve(said)) == paths


@given(st.text())
def test_any_cgroups_path_is_resolved_or_not(said: str) -> None:
    assert all(
        path.startswith("/") and ".." not in path.split("/") for path in cgroups.resolve(said)
    )


def test_each_hierarchy_is_found_once() -> None:
    lines = [
        b"30 1 0:40 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
        b"31 1 0:40 / /elsewhere/cpu rw - cgroup cgroup rw,cpu",
        b"32 1 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        b"33 1 0:42 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
    ]
    found = cgroups.hierarchies(one.mount for one in mounts.parse(b"\n".join(lines)))
    assert found == (
        Hierarchy(b"/sys/fs/cgroup/cpu", unified=False),
        Hierarchy(b"/sys/fs/cgroup/unified", unified=True),
    )


def test_what_is_no_cgroup_mount_gives_no_answer(tmp_path: Path) -> None:
    (tmp_path / "default" / "c1").mkdir(parents=True)
    (tmp_path / "default" / "c1" / "tasks").touch()
    fake = CgroupMounts([Hierarchy(os.fsencode(tmp_path), unified=False)])
    assert fake.look(KEY, (), ["/default/c1"]).state is CgroupState.NONE
    assert fake.look(KEY, [f"{tmp_path}/default/c1"], ()).state is CgroupState.NONE
    fake.close()


def test_without_cgroup_mounts_a_named_cgroup_gives_no_answer() -> None:
    none = CgroupMounts(())
    assert none.look(KEY, (), ["/default/c1"]).state is CgroupState.NONE
    assert none.look(KEY, ["/sys/fs/cgroup/x"], ()).state is CgroupState.NONE
    assert none.look(KEY, (), ()).state is CgroupState.UNNAMED


class Real:
    """Cgroups of our own in every real hierarchy, removed at the end."""

    def __init__(self) -> None:
        table = Path("/proc/self/mountinfo").read_bytes()
        self.hierarchies = cgroups.hierarchies(one.mount for one in mounts.parse(table))
        self.mounts = CgroupMounts(self.hierarchies)
        self.name = f"reconciler-test-{uuid.uuid4().hex}"
        self._made: list[Path] = []

    @property
    def points(self) -> list[Path]:
        return [Path(os.fsdecode(one.point)) for one in self.hierarchies]

    def make(self, point: Path, *names: str) -> Path:
        path = point / self.name
        for name in ("", *names):
            path /= name
            if not path.exists():
                path.mkdir()
                self._made.append(path)
        return path

    def enter(self, path: Path, pid: int) -> None:
        root = Path("/sys/fs/cgroup/cpuset")
        below = path.relative_to(root).parts if path.is_relative_to(root) else ()
        for depth in range(1, len(below) + 1):
            here = root.joinpath(*below[:depth])
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty ones take nobody in
                (here / name).write_text((here.parent / name).read_text())
        (path / "cgroup.procs").write_text(str(pid))

    def look(self, *named: str) -> cgroups.Cgroups:
        return self.mounts.look(KEY, named, [f"/{self.name}/c1"])

    def close(self) -> None:
        for path in reversed(self._made):
            path.rmdir()
        self.mounts.close()


@pytest.fixture
def real(world: World) -> Iterator[Real]:
    made = Real()
    if not made.points or not os.access(made.points[0], os.W_OK):
        pytest.skip("needs root and a cgroup mount")
    try:
        yield made
    finally:
        world.close()
        made.close()


@pytest.mark.kernel
def test_cgroups_that_are_not_there_are_gone(real: Real) -> None:
    found = real.look()
    assert (found.state, found.dirs) == (CgroupState.GONE, ())
    assert found.names == {f"/{real.name}/c1"}


@pytest.mark.kernel
def test_a_hierarchy_that_could_not_be_opened_gives_no_answer_until_it_can(
    real: Real, tmp_path: Path
) -> None:
    """Handles may be short for a moment, and a daemon looks on for months."""
    short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    wanted = [f"/{real.name}/c1"]
    with mock.patch.object(kernel, "fs_type", side_effect=short):
        around = NodeContext(Layout(state=os.fsencode(tmp_path)))
    assert around.cgroups is not None
    assert around.cgroups.look(KEY, (), wanted).state is CgroupState.NONE
    around.refresh()
    assert around.cgroups.look(KEY, (), wanted).state is CgroupState.GONE
    around.close()


@pytest.mark.kernel
def test_a_process_in_any_one_hierarchy_populates(real: Real, world: World) -> None:
    for point in real.points:
        pid = world.child()
        path = real.make(point, "c1")
        assert real.look().state is CgroupState.EMPTY
        real.enter(path, pid)
        assert real.look().state is CgroupState.POPULATED, point
        (point / "cgroup.procs").write_text(str(pid))
        assert real.look().state is CgroupState.EMPTY


@pytest.mark.kernel
def test_a_process_far_below_populates(real: Real, world: World) -> None:
    for point in real.points:
        path = real.make(point, "c1", "a", "b")
        assert real.look().state is CgroupState.EMPTY
        (path.parent / "cgroup.procs").read_text()
        pid = world.child()
        for one in (path.parent, path):
            real.enter(one, pid)
        assert real.look().state is CgroupState.POPULATED, point
        (point / "cgroup.procs").write_text(str(pid))


@pytest.mark.kernel
def test_existing_directories_are_handed_on(real: Real) -> None:
    expected = []
    for point in real.points[:2]:
        real.make(point, "c1")
        expected.append(CgroupDir(os.fsencode(point), f"{real.name}/c1".encode()))
    found = real.look()
    assert set(found.dirs) == set(expected)
    assert all(os.path.isdir(one.path) for one in found.dirs)


@pytest.mark.kernel
def test_runcs_own_paths_are_looked_at_too(real: Real, world: World) -> None:
    path = real.make(real.points[0], "odd")
    real.enter(path, world.child())
    found = real.mounts.look(KEY, [str(path)], [f"/{real.name}/c1"])
    assert found.state is CgroupState.POPULATED
    assert found.names >= {f"/{real.name}/odd"}


@pytest.mark.kernel
@pytest.mark.parametrize("path", ["/etc", "relative", "", "/sys/fs/cgroup/cpu/../../../etc", "/\0"])
def test_a_path_outside_every_cgroup_mount_is_not_believed(real: Real, path: str) -> None:
    assert real.mounts.look(KEY, [path], ()).state is CgroupState.NONE
    assert real.look(path).state is CgroupState.GONE


@pytest.mark.kernel
def test_a_cgroup_that_nothing_names_is_guessed(real: Real, world: World) -> None:
    key = BundleKey(real.name, "c1")
    assert real.mounts.look(key, (), ()).state is CgroupState.UNNAMED
    path = real.make(real.points[0], "c1")
    found = real.mounts.look(key, (), ())
    # Nobody is in there, but it may be another's of that name: its own is still not named.
    assert (found.state, [one.path for one in found.dirs]) == (
        CgroupState.UNNAMED,
        [os.fsencode(path)],
    )
    real.enter(path, world.child())
    assert real.mounts.look(key, (), ()).state is CgroupState.POPULATED


@pytest.mark.kernel
def test_names_agree_with_what_proc_says_of_a_process(real: Real, world: World) -> None:
    pid = world.child()
    real.enter(real.make(real.points[0], "c1"), pid)
    assert set(real.look().names) & set(process.read_cgroups(pid))


@pytest.mark.kernel
def test_closed_mounts_give_no_answer(real: Real) -> None:
    real.mounts.close()
    assert real.look().state is CgroupState.NONE
