"""Listings: what stands for many questions answers as the kernel does, and only within a moment."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.evidence import CgroupState, Look
from reconciler.model.ids import BundleKey
from reconciler.probe import cgroups, listings, mounts
from reconciler.probe.cgroups import CgroupMounts, Hierarchy
from reconciler.probe.listings import MANY, Listings
from tests.probe.world import World

pytestmark = pytest.mark.safety

KEY = BundleKey("default", "c1")


class Groups:
    """Cgroups of our own in real hierarchies, removed at the end."""

    def __init__(self) -> None:
        table = Path("/proc/self/mountinfo").read_bytes()
        self.hierarchies = cgroups.hierarchies(one.mount for one in mounts.parse(table))
        self.name = f"reconciler-test-{uuid.uuid4().hex}"
        self._made: list[Path] = []

    def make(self, path: str, hierarchy: Hierarchy | None = None) -> None:
        one = hierarchy or self.hierarchies[-1]
        made = Path(os.fsdecode(one.point))
        for part in (self.name, *path.split("/")):
            made /= part
            if not made.exists():
                made.mkdir()
                self._made.append(made)

    def close(self) -> None:
        for path in reversed(self._made):
            path.rmdir()


@pytest.fixture
def groups() -> Iterator[Groups]:
    made = Groups()
    if not made.hierarchies or not os.access(made.hierarchies[0].point, os.W_OK):
        pytest.skip("needs root and a cgroup mount")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.kernel
@pytest.mark.parametrize("most", [2, 256])
def test_listings_answer_as_the_kernel_does(
    groups: Groups, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Also of what is in one hierarchy alone, and of a directory with too many names."""
    monkeypatch.setattr(listings, "_MOST_NAMES", most)
    for number in range(0, 6, 2):
        groups.make(f"pods/c{number}", groups.hierarchies[number % len(groups.hierarchies)])
    mounted, moment = CgroupMounts(groups.hierarchies), Listings()
    paths = [f"/{groups.name}/{where}/c{n}" for where in ("pods", "none") for n in range(6)]
    for path in paths * (MANY + 1):
        alone = mounted.look(KEY, (), [path])
        assert mounted.look(KEY, (), [path], moment) == alone
        assert (alone.state is CgroupState.GONE) == (not alone.dirs)
    assert moment.lack(mounted._handles, f"{groups.name}/pods/c1".encode()) == (most > 2)
    mounted.close()


@pytest.mark.kernel
def test_a_listing_ends_with_its_moment(groups: Groups) -> None:
    mounted, moment = CgroupMounts(groups.hierarchies), Listings()
    groups.make("pods")
    path = f"/{groups.name}/pods/late"
    for _ in range(MANY):
        assert mounted.look(KEY, (), [path], moment).state is CgroupState.GONE
    groups.make("pods/late")
    moment.clear()
    for _ in range(MANY + 1):
        assert mounted.look(KEY, (), [path], moment).state is CgroupState.EMPTY
    mounted.close()


def test_what_cannot_be_listed_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pods").symlink_to(tmp_path)
    top = os.open(tmp_path, os.O_PATH)
    moment = Listings()
    assert not any(moment.lack((top,), b"pods/c1") for _ in range(MANY + 1))
    os.close(top)


def test_a_look_that_stands_alone_asks_the_kernel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second look does, just before anything is removed; many in one moment list."""
    listed = []

    def note(tops: object, parent: bytes) -> frozenset[bytes] | None:
        listed.append((tops, parent))
        return None

    monkeypatch.setattr(listings, "_names_in", note)
    keys = []
    for number in range(MANY + 1):
        world.bundle(f"c{number}", cgroup=f"/pods/c{number}")
        keys.append(BundleKey("default", f"c{number}"))
    inspector = world.inspector()
    for key in keys:
        assert isinstance(inspector.look(key), Look)
        assert world.examine(key).look == inspector.look(key)
    assert not listed
    with inspector.moment():
        for key in keys:
            inspector.look(key)
    assert len(listed) == (1 if inspector._around.cgroups else 0)
