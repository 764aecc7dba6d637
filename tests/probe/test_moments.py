"""Moments: what looks share for a slice of time changes no answer, and nothing of it is kept."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.model.evidence import Answer, InitState, Look, ShimState
from reconciler.model.ids import BundleKey
from reconciler.probe.handles import Handles
from tests.probe.world import World, start_of
from tests.support.handles import open_files


def key(id_: str) -> BundleKey:
    return BundleKey("default", id_)


def options(here: Path, root: Path) -> None:
    (here / "options.json").write_text(json.dumps({"root": str(root)}))


NAMES = ("dead", "lives", "served", "elsewhere", "nowhere", "stateless", "unworked", "alias", "x")
KINDS = [key(name) for name in NAMES]


def make_all_kinds(world: World) -> None:
    """Make bundles that differ in what their looks begin at."""
    child = world.child()
    world.bundle("dead")
    world.bundle("lives", pid=child, start=start_of(child))
    world.bundle("served")
    world.listen(world.socket_of("served"), backlog=4000)  # nobody takes the callers in
    for id_, root in (("elsewhere", world.base / "roots"), ("nowhere", world.base / "none")):
        world.bundle(id_)
        options(world.path(id_), root)
    (world.base / "roots" / "default" / "elsewhere").mkdir(parents=True)
    world.bundle("stateless")
    (world.state_dir("stateless") / "state.json").unlink()
    world.bundle("unworked")
    world.work_dir("unworked").rmdir()
    world.path("alias").symlink_to(world.path("dead"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_looks_in_one_moment_agree_with_looks_alone(world: World, data: st.DataObject) -> None:
    if not world.path("dead").exists():
        make_all_kinds(world)
        world.inspector()
    order = data.draw(st.lists(st.sampled_from(KINDS), max_size=12))
    inspector = world._inspector[0]
    alone = [inspector.look(one) for one in order]
    with inspector.moment():
        together = [inspector.look(one) for one in order]
    assert together == alone


def test_what_comes_alive_within_a_moment_is_seen_alive(world: World) -> None:
    here = world.bundle()
    options(here, world.base / "late")
    inspector = world.inspector()
    with inspector.moment():
        before = inspector.look(key("c1"))
        assert isinstance(before, Look)
        assert (before.init.state, before.shim.state) == (InitState.DEAD, ShimState.DEAD)
        pid = world.child()
        state = world.base / "late" / "default" / "c1"
        state.mkdir(parents=True)
        text = {"init_process_pid": pid, "init_process_start": start_of(pid)}
        (state / "state.json").write_text(json.dumps(text))
        (here / "init.pid").unlink()
        world.listen(world.socket_of())
        look = inspector.look(key("c1"))
    assert isinstance(look, Look)
    assert (look.init.state, look.init.pid) == (InitState.ALIVE, pid)
    assert look.shim.state is ShimState.ALIVE
    assert look.created is Answer.YES


def test_a_tree_that_appears_within_a_moment_is_looked_at(world: World) -> None:
    world.tree.rmdir()
    inspector = world.inspector()
    with inspector.moment():
        assert inspector.look(key("c1")) is None
        world.bundle()
        assert inspector.look(key("c1")) is not None


def test_handles_end_with_their_moment(world: World) -> None:
    inspector = world.inspector()
    world.bundle()
    inspector.look(key("c1"))
    before = open_files()
    with inspector.moment():
        inspector.look(key("c1"))
        assert open_files() - before
        with inspector.moment():
            inspector.look(key("c1"))
    assert open_files() <= before


def test_handles_are_closed_when_a_moment_fails(world: World) -> None:
    world.bundle()
    inspector = world.inspector()
    inspector.look(key("c1"))
    before = open_files()

    def fail() -> None:
        with inspector.moment():
            inspector.look(key("c1"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert open_files() <= before


def test_a_directory_of_its_own_for_each_bundle_does_not_use_up_handles(world: World) -> None:
    keys = []
    for number in range(30):
        here = world.bundle(f"c{number}")
        root = world.base / f"root{number}"
        root.mkdir()
        options(here, root)
        keys.append(key(f"c{number}"))
    inspector = world.inspector()
    inspector.look(keys[0])
    before = open_files()
    with inspector.moment():
        looks = [inspector.look(one) for one in keys]
        assert len(open_files() - before) <= 12
    assert all(looks)


def test_outside_of_a_moment_there_are_no_handles() -> None:
    with pytest.raises(RuntimeError):
        Handles().get(b"/")


def test_a_symlink_is_told_from_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    link = os.fsencode(tmp_path / "link")
    with Handles() as handles:
        assert os.fstat(handles.get(link)).st_ino == tmp_path.stat().st_ino
        with pytest.raises(NotADirectoryError):
            handles.get(link, os.O_NOFOLLOW)
