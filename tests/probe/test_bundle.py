"""One close look: what every piece of evidence says for bundles whole, broken and hostile."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Entries,
    InitState,
    Kind,
    Labels,
    Look,
    PartialLook,
    RuntimeState,
    ShimState,
)
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe.bundle import TOGETHER, examine
from reconciler.probe.context import NodeContext
from tests.probe.world import FILES, KEY, World, end, start_of


def test_a_complete_dead_bundle_is_dead_in_every_respect(world: World) -> None:
    here = world.bundle()
    look = world.look()
    assert look.kind is Kind.DIRECTORY
    assert look.identity.ino == here.stat().st_ino
    assert look.init.state is InitState.DEAD
    assert look.shim.state is ShimState.DEAD
    assert look.cgroup is CgroupState.GONE
    assert look.runtime.state is RuntimeState.KNOWN
    assert look.created is Answer.YES
    assert look.mounts == ()
    assert Entries.OTHER not in look.entries
    assert look.newest_mtime == max(p.lstat().st_mtime for p in [here, *here.iterdir()])


def test_a_complete_living_bundle_is_alive_in_every_respect(world: World) -> None:
    pid = world.child()
    world.bundle(pid=pid, start=start_of(pid))
    world.listen(world.socket_of())
    look = world.look()
    assert (look.init.state, look.init.pid) == (InitState.ALIVE, pid)
    assert look.shim.state is ShimState.ALIVE
    assert look.shim.socket == str(world.socket_of())


def test_looks_made_together_are_those_made_alone(world: World) -> None:
    """Whatever each bundle is, and whatever its neighbours are; more than are asked at a time."""
    alive = world.child()
    world.bundle("alive", pid=alive, start=start_of(alive))
    world.listen(world.socket_of("alive"))
    for number, name in enumerate(FILES * 6):
        (world.bundle(f"lacks{number}") / name).unlink()
    for number in range(3):
        (world.bundle(f"far{number}") / "options.json").write_text('{"root":"/proc/1/root"}')
    for place in ("link", "file"):
        world.bundle(place).rename(world.path("gone").with_name(f".{place}"))
    world.path("link").symlink_to(world.path("alive"))
    world.path("file").touch()
    world.write_state("lacks3", bundle="/elsewhere")
    inspector = world.inspector()
    keys = [seen.key for seen in inspector.list().bundles]
    keys[5:5] = [BundleKey("default", "absent"), BundleKey("none", "c1"), BundleKey("a/b", "..")]
    assert len(keys) > TOGETHER
    alone = [inspector.look(key) for key in keys]
    assert inspector.look_each(keys) == alone
    partial = {key.id for key, look in zip(keys, alone, strict=True) if type(look) is PartialLook}
    assert partial == {"far0", "far1", "far2"}
    assert {type(look) for look in alone} == {Look, PartialLook, type(None)}


def test_no_such_bundle_is_none(world: World) -> None:
    world.bundle()
    inspector = world.inspector()
    assert inspector.look(BundleKey("default", "c2")) is None
    assert inspector.look(BundleKey("elsewhere", "c1")) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", r"a\x00b", "../default/c1", r"\x2e\x2e", r"a\x2fb"]
)
def test_what_is_no_name_is_no_bundle(world: World, name: str) -> None:
    world.bundle()
    inspector = world.inspector()
    assert inspector.look(BundleKey("default", name)) is None
    assert inspector.look(BundleKey(name, "c1")) is None


@pytest.mark.parametrize("missing", FILES)
def test_any_missing_file_is_evidence(world: World, missing: str) -> None:
    (world.bundle() / missing).unlink()
    look = world.look()
    assert look.init.state is InitState.DEAD  # two files name it
    assert look.shim.state in {ShimState.DEAD, ShimState.UNNAMED}
    assert look.cgroup in {CgroupState.GONE, CgroupState.UNNAMED}
    assert look.runtime.state in {RuntimeState.KNOWN, RuntimeState.UNNAMED}
    assert look.created is Answer.YES


@pytest.mark.parametrize("missing", list(itertools.combinations(FILES, 2)))
def test_any_two_missing_files_are_evidence(world: World, missing: tuple[str, str]) -> None:
    here = world.bundle()
    for name in missing:
        (here / name).unlink()
    look = world.look()
    assert look.init.state is InitState.DEAD
    assert ShimState.NONE is not look.shim.state


def test_an_empty_bundle_without_runc_state_was_never_created(world: World) -> None:
    here = world.bundle()
    shutil.rmtree(here)
    shutil.rmtree(world.state_dir())
    here.mkdir()
    look = world.look()
    assert look.entries == Entries(0)
    assert look.created is Answer.NO
    assert look.init.state is InitState.ABSENT
    assert look.shim.state is ShimState.UNNAMED
    assert look.shim.group is None
    assert look.cgroup is CgroupState.UNNAMED
    assert look.runtime.state is RuntimeState.UNNAMED
    assert not look.labels.known


def test_runc_state_alone_tells_that_creation_finished(world: World) -> None:
    (world.bundle() / "init.pid").unlink()
    assert world.look().created is Answer.YES


def test_an_empty_bundle_still_finds_init_by_runc_state(world: World) -> None:
    pid = world.child()
    here = world.bundle(pid=pid, start=start_of(pid))
    shutil.rmtree(here)
    here.mkdir()
    assert world.look().init.state is InitState.ALIVE


# ---------------------------------------------------------------------- init.pid


PID_FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"not a pid\n"),
    "negative": lambda path: path.write_bytes(b"-1"),
    "zero": lambda path: path.write_bytes(b"0"),
    "beyond any pid": lambda path: path.write_bytes(b"4194305"),
    "beyond any number": lambda path: path.write_bytes(b"9" * 32),
    "two numbers": lambda path: path.write_bytes(b"12 13"),
    "10 MB": lambda path: path.write_bytes(b"1" * 10_000_000),
    "directory": lambda path: path.mkdir(),
    "symlink": lambda path: path.symlink_to("/proc/self/stat"),
    "dangling symlink": lambda path: path.symlink_to("nowhere"),
    "FIFO": os.mkfifo,
}


@pytest.mark.fault("init.pid empty, text, negative, 10 MB, symlink, FIFO")
@pytest.mark.parametrize("kind", PID_FILES)
def test_an_init_pid_without_a_pid_names_nobody(world: World, kind: str) -> None:
    here = world.bundle()
    shutil.rmtree(world.state_dir())
    (here / "init.pid").unlink()
    PID_FILES[kind](here / "init.pid")
    look = world.look()
    assert look.init.state is InitState.ABSENT
    assert look.init.detail == "init.pid holds no pid"
    assert look.created is Answer.YES
    assert Entries.INIT_PID in look.entries


@pytest.mark.fault("init.pid empty, text, negative, 10 MB, symlink, FIFO")
@pytest.mark.parametrize("kind", PID_FILES)
def test_a_useless_init_pid_does_not_hide_a_living_init(world: World, kind: str) -> None:
    pid = world.child()
    here = world.bundle(pid=pid, start=start_of(pid))
    (here / "init.pid").unlink()
    PID_FILES[kind](here / "init.pid")
    assert world.look().init.state is InitState.ALIVE


@pytest.mark.fault("init.pid of a reused PID")
def test_a_pid_reused_by_another_process_is_dead(world: World) -> None:
    pid = world.child()
    world.bundle(pid=pid, start=start_of(pid) + 1)
    init = world.look().init
    assert (init.state, init.pid) == (InitState.DEAD, pid)
    assert "reused" in init.detail


def test_a_living_pid_that_nothing_confirms_is_no_answer(world: World) -> None:
    here = world.bundle(pid=world.child())
    shutil.rmtree(world.state_dir())
    (here / "config.json").unlink()
    assert world.look().init.state is InitState.NONE


def test_death_is_seen_by_the_next_look(world: World) -> None:
    pid = world.child()
    world.bundle(pid=pid, start=start_of(pid))
    inspector = world.inspector()
    before = inspector.look(KEY)
    end(pid)
    after = inspector.look(KEY)
    assert isinstance(before, Look)
    assert isinstance(after, Look)
    assert (before.init.state, after.init.state) == (InitState.ALIVE, InitState.DEAD)


# ---------------------------------------------------------------------- runc's state


@pytest.mark.fault("torn state.json")
@pytest.mark.parametrize("cut", [0, 1, 20, 60, 90])
def test_a_torn_state_leaves_init_pid_to_speak(world: World, cut: int) -> None:
    world.bundle()
    state = world.state_dir() / "state.json"
    state.write_bytes(state.read_bytes()[:cut])
    look = world.look()
    assert look.init.state is InitState.DEAD
    assert look.created is Answer.YES


@pytest.mark.fault("torn state.json")
def test_a_torn_state_still_tells_pid_and_start(world: World) -> None:
    pid = world.child()
    here = world.bundle(pid=pid, start=start_of(pid))
    (here / "init.pid").unlink()
    state = world.state_dir() / "state.json"
    state.write_bytes(state.read_bytes()[:-30])
    assert world.look().init.state is InitState.ALIVE


def test_options_name_another_runc_root(world: World) -> None:
    pid = world.child()
    here = world.bundle()
    elsewhere = world.base / "elsewhere"
    (elsewhere / "default").mkdir(parents=True)
    world.write_state(init_process_pid=pid, init_process_start=start_of(pid))
    world.state_dir().rename(elsewhere / "default" / "c1")
    (here / "options.json").write_text(json.dumps({"root": str(elsewhere), "binary_name": "crun"}))
    found = world.examine()
    assert found.look.init.state is InitState.ALIVE
    assert found.resources.runc == "crun"
    assert found.resources.runc_root == os.fsencode(elsewhere / "default")


def test_a_runc_root_may_be_a_symlink_but_nothing_below_it(world: World) -> None:
    pid = world.child()
    here = world.bundle(pid=pid, start=start_of(pid))
    (here / "init.pid").unlink()
    (world.base / "var-run").symlink_to(world.base / "run")
    (here / "options.json").write_text(json.dumps({"root": str(world.base / "var-run" / "runc")}))
    assert world.look().init.state is InitState.ALIVE
    world.state_dir().rename(world.base / "moved")
    world.state_dir().symlink_to(world.base / "moved")
    assert world.look().init.state is InitState.ABSENT


def test_crun_keeps_a_status_instead(world: World) -> None:
    pid = world.child()
    here = world.bundle()
    (here / "init.pid").unlink()
    (world.state_dir() / "state.json").unlink()
    status = {"pid": pid, "process-start-time": start_of(pid), "cgroup-path": world.nowhere}
    (world.state_dir() / "status").write_text(json.dumps(status))
    look = world.look()
    assert look.init.state is InitState.ALIVE
    assert look.created is Answer.YES


@pytest.mark.safety
@pytest.mark.parametrize("file", ["state.json", "status"])
@pytest.mark.parametrize("torn", ["", "{", "[]"])
def test_a_torn_state_may_have_named_any_cgroup(world: World, file: str, torn: str) -> None:
    """Where config.json is gone, too, nobody can tell which; what no file names is told apart."""
    (world.bundle() / "config.json").unlink()
    (world.state_dir() / "state.json").unlink()
    (world.state_dir() / file).write_text(torn)
    assert world.look().cgroup is CgroupState.NONE
    (world.state_dir() / file).unlink()
    assert world.look().cgroup is CgroupState.UNNAMED


def test_poststop_hooks_are_noticed(world: World) -> None:
    world.bundle()
    state = {"config": {"Hooks": {"poststop": [{"path": "/bin/true", "args": ["true"]}]}}}
    (world.state_dir() / "state.json").write_text(json.dumps(state))
    found = world.examine()
    assert found.resources.has_poststop_hooks


# ---------------------------------------------------------------------- labels, sizes


def test_labels_come_from_annotations(world: World) -> None:
    kubernetes = "io.kubernetes.cri."
    world.bundle(
        annotations={
            f"{kubernetes}sandbox-id": "pod1",
            f"{kubernetes}sandbox-name": "dns",
            f"{kubernetes}sandbox-namespace": "kube-system",
            f"{kubernetes}container-name": "resolver",
            "team": "net",
            "other": "x",
        }
    )
    labels = world.look(KEY, "team", "absent").labels
    assert (labels.known, labels.pod_namespace, labels.pod) == (True, "kube-system", "dns")
    assert (labels.container, labels.sandbox) == ("resolver", "pod1")
    assert labels.annotations == (("team", "net"),)


def test_without_config_json_the_sandbox_is_all_that_is_known(world: World) -> None:
    here = world.bundle()
    (here / "config.json").unlink()
    (here / "sandbox").write_text("pod1\n")
    assert world.look().labels == Labels(known=False, sandbox="pod1")
    for hostile in (b"", b"../x", b"a\0b", b"\xff", b"x" * 100):
        (here / "sandbox").write_bytes(hostile)
        assert world.look().labels == Labels()


def test_a_config_json_that_names_no_sandbox_has_it_from_the_note_beside(world: World) -> None:
    here = world.bundle()
    (here / "sandbox").write_text("pod1\n")
    assert world.look().labels == Labels(known=True, sandbox="pod1")
    (here / "sandbox").unlink()
    assert world.look().labels == Labels(known=True)


def test_a_spec_of_unexpected_types_is_not_known(world: World) -> None:
    (world.bundle() / "config.json").write_text('{"annotations": {"team": 1}}')
    assert not world.look(KEY, "team").labels.known
    (world.path() / "config.json").write_text(
        '{"annotations": {"io.kubernetes.cri.sandbox-id": 1}}'
    )
    assert not world.look().labels.known


def test_size_counts_the_bundle_and_its_work_dir(world: World) -> None:
    here = world.bundle()
    before = world.look().size_bytes
    (here / "big").write_bytes(b"x" * 100_000)
    (here / "rootfs" / "deep").mkdir()
    (here / "rootfs" / "deep" / "file").write_bytes(b"x" * 200_000)
    (world.work_dir() / "file").write_bytes(b"x" * 400_000)
    assert 700_000 <= world.look().size_bytes - before < 800_000


def test_size_does_not_follow_symlinks(world: World) -> None:
    here = world.bundle()
    (world.base / "data").mkdir()
    (world.base / "data" / "file").write_bytes(b"x" * 1_000_000)
    (here / "rootfs" / "link").symlink_to(world.base / "data")
    assert world.look().size_bytes < 500_000


def test_many_entries_hide_no_known_file(world: World) -> None:
    here = world.bundle()
    (here / "init.pid").unlink()
    for number in range(10_050):
        os.mknod(here / f"x{number}")
    (here / "init.pid").write_text(str(world.dead()))
    look = world.look()
    assert Entries.INIT_PID in look.entries
    assert look.init.state is InitState.DEAD


def test_a_tree_that_is_not_there_has_no_bundles(tmp_path: Path) -> None:
    around = NodeContext(Layout(state=os.fsencode(tmp_path / "absent")))
    assert examine(around, KEY) is None
    around.close()


def test_a_tree_that_is_a_file_gives_no_answer(tmp_path: Path) -> None:
    layout = Layout(state=os.fsencode(tmp_path))
    (tmp_path / os.fsdecode(os.path.basename(layout.tasks))).touch()
    around = NodeContext(layout)
    found = examine(around, KEY)
    around.close()
    assert found is not None
    assert found.look.init.state is InitState.NONE
    assert found.look.shim.state is ShimState.NONE
