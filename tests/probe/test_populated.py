"""Of more cgroups than can be told, those that may matter to a bundle still are."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.cgroups import CgroupSource, NamedCgroup, find_hints, names_of
from reconciler.model.evidence import ProcessScan
from reconciler.model.ids import BundleKey, escape
from reconciler.probe import populated
from reconciler.probe.populated import PopulatedCgroups
from reconciler.probe.processes import scan
from tests.probe.test_processes import FakeProc
from tests.support.lag import Stopwatch

pytestmark = [pytest.mark.safety, pytest.mark.fault("megabytes of cgroup paths")]

DEEP = "/user.slice" + "/x" * 100


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for key in ("ns/a", "ns/web", "other/b"):
        (tree / key).mkdir(parents=True)
    return tree


def scanned(fake: FakeProc, tree: Path | None) -> ProcessScan:
    fake.write_table()
    return scan(os.fsencode(fake.root), tree=None if tree is None else os.fsencode(tree))


def fill(fake: FakeProc) -> None:
    for pid in range(10, 60):
        fake.add(pid, "sleep", cgroup=f"{DEEP}/{pid}-name")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(populated, "_MOST_PATHS", 500)
    monkeypatch.setattr(populated, "_MOST_FILES", 300)


@pytest.mark.parametrize("first", [8, 80])
def test_cgroups_that_name_no_bundle_take_nothing_from_those_that_do(
    fake: FakeProc, tree: Path, first: int
) -> None:
    fill(fake)
    paths = ["/ns/a", "/s.slice/cri-containerd-b.scope", "/s.slice/x.slice:cri:web", "/a/other"]
    for number, path in enumerate(paths):
        fake.add(first + number * 80, "sleep", cgroup=path)
    fake.add(7, "sleep", cgroup="/system.slice/ssh")
    found = scanned(fake, tree)
    assert found.answered
    assert found.cgroup_paths == set(paths)
    assert (found.cgroup_names, found.unplaced) == (frozenset(), 0)


def test_of_too_many_that_name_bundles_the_names_are_told(fake: FakeProc, tree: Path) -> None:
    for pid in range(10, 60):
        fake.add(pid, "sleep", cgroup=f"{DEEP}/a/{pid}")
    fake.add(70, "sleep", cgroup=f"{DEEP}/web")
    fake.add(71, "sleep", cgroup="/other/b")
    found = scanned(fake, tree)
    assert found.answered
    assert found.cgroup_names == {"a", "web"}
    assert "/other/b" in found.cgroup_paths
    assert sum(map(len, found.cgroup_paths)) <= 500


def test_few_are_told_whatever_they_name(fake: FakeProc, tree: Path) -> None:
    fake.add(10, "sleep", cgroup="/system.slice/ssh")
    assert scanned(fake, tree).cgroup_paths == {"/system.slice/ssh"}
    assert scanned(fake, None).cgroup_paths == {"/system.slice/ssh"}


def test_where_no_tree_is_known_or_it_cannot_be_read_too_many_are_no_answer(
    fake: FakeProc, tree: Path
) -> None:
    fill(fake)
    assert scanned(fake, None) == ProcessScan()
    (tree.parent / "file").touch()
    assert scanned(fake, tree.parent / "file") == ProcessScan()
    assert scanned(fake, tree.parent / "absent") == ProcessScan(answered=True)


def test_what_is_no_namespace_is_not_entered(fake: FakeProc, tree: Path, tmp_path: Path) -> None:
    fill(fake)
    (tmp_path / "elsewhere" / "54-name").mkdir(parents=True)
    (tree / "link").symlink_to(tmp_path / "elsewhere")
    (tree / "file").touch()
    assert scanned(fake, tree) == ProcessScan(answered=True)


def test_a_path_that_the_kernel_does_not_tell_leaves_the_pass_an_answer(fake: FakeProc) -> None:
    """Kernels differ: they cut it off, or tell nothing."""
    fake.add(10, "sleep", cgroup="/ns/a")
    fake.add(11, "sleep")
    cgroup = fake.root / "11" / "cgroup"
    cgroup.unlink()
    cgroup.symlink_to("x" * 300)
    with pytest.raises(OSError, match="too long"):
        cgroup.read_bytes()
    found = scanned(fake, None)
    assert (found.answered, found.unplaced) == (True, 11)
    assert found.cgroup_paths == {"/ns/a"}


def test_a_path_that_may_have_been_cut_off_is_not_told_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(populated, "_MOST_PATHS", 1 << 20)
    for length, pid in ((4094, 0), (4095, 9)):
        found = PopulatedCgroups(None)
        found.add(9, b"0::/" + b"x" * (length - 1) + b"\n")
        assert found.unplaced == pid
        assert {len(path) for path in found.paths} == {length}


PART = st.text("a:-x", max_size=5)
NAMED = st.sampled_from(
    [
        NamedCgroup(),
        NamedCgroup(CgroupSource.CONFIG, ("/x/a",), False),
        NamedCgroup(CgroupSource.RUNTIME, ("/x/a",), True),
    ]
)
PATHS = st.lists(
    st.lists(PART | PART.map(lambda part: part + ".scope"), max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
    max_size=20,
)


@given(PATHS, NAMED, st.sampled_from([5, 20, 1000]))
def test_nobody_whom_a_path_may_concern_is_left_out(
    paths: list[str], named: NamedCgroup, most: int
) -> None:
    ids = frozenset({b"a", b"x", b"a-x"})
    told = PopulatedCgroups(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(populated, "_MOST_PATHS", most)
        told.choose_among(ids)
    for path in paths:
        told.add(1, f"0::{path}\n".encode())
    found = told.added_to(ProcessScan())
    for id_ in map(escape, ids):
        key = BundleKey("n", id_)
        hinted = find_hints(key, named, found.cgroup_paths, ()) or id_ in found.cgroup_names
        assert hinted or not find_hints(key, named, frozenset(paths), ())
    assert found.cgroup_names <= {name for path in paths for name in names_of(path)}
    assert sum(map(len, told.paths)) <= most


def test_scopes_count_by_the_names_that_they_may_stand_for(
    monkeypatch: pytest.MonkeyPatch, tree: Path
) -> None:
    """A path of 85 bytes may stand for sixty names, and all of them are kept in the loop."""
    most = 1 << 15
    monkeypatch.setattr(populated, "_MOST_PATHS", most)
    told = PopulatedCgroups(os.fsencode(tree))
    for number in range(2 * most // 85):
        told.add(1, b"0::/%s%d-a.scope\n" % (b"-" * 60, number))
        kept = told.added_to(ProcessScan()).cgroup_paths
        assert sum(len(set(names_of(path))) for path in kept) <= most / 16
    assert told.names == {b"a"}


def test_what_names_nobody_is_passed_by_at_once() -> None:
    """A part that may stand for sixty names costs about as much as one that does not."""
    told = PopulatedCgroups(None)
    told.choose_among(frozenset(b"%064x" % number for number in range(40)))
    usual, dashed = (
        [b"/%s/%d-x.scope" % (fill * 60, number) for number in range(2000)] for fill in (b"y", b"-")
    )
    costs = []
    for paths in (usual, dashed):
        tries = []
        for _ in range(5):
            watch = Stopwatch()
            for path in paths:
                told._named(path)
            tries.append(watch.read())
        costs.append(min(tries))
    assert costs[1] < 3 * costs[0]
