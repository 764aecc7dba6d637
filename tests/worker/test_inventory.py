"""The inventory: what is left outside of bundles is found, and what anybody may own is not."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler import kernel
from reconciler.model.debris import DebrisKind, Inventory, Place
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.hidden import hidden_name
from reconciler.model.ids import BundleKey
from reconciler.model.layout import TASKS
from reconciler.model.processes import UnreadProcess
from reconciler.worker import context, inventory
from reconciler.worker.inventory import finds, take
from reconciler.worker.objects import HIDDEN
from tests.support.bundles import CGROUPS, Bundle, Site, listen
from tests.support.inline import InlineWorker, inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import working_in

NOBODY = ProcessScan(answered=True)
OF_A_BUNDLE = frozenset(
    {DebrisKind.SHIM_SOCKET, DebrisKind.FIFO_DIR, DebrisKind.RUNC_STATE, DebrisKind.WORK_DIR}
)
"""What stays where containerd has removed a bundle alone; a test's cgroups are elsewhere."""


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[ProcessScan]:
    """What every pass over /proc finds: nobody, until a test says otherwise."""
    found = [NOBODY]
    monkeypatch.setattr(context, "scan", lambda **_: found[0])
    return found


@contextmanager
def left(base: Path) -> Iterator[tuple[Site, InlineWorker, Bundle]]:
    """A node on which containerd has removed a bundle, and nothing of what is outside of it."""
    with inline_worker(base) as (made, worker):
        bundle = made.bundle("gone", mounted=False, fifos=True)
        shutil.rmtree(bundle.path)
        yield made, worker, bundle


def found(worker: InlineWorker) -> Inventory:
    taken = take(worker.place)
    assert taken.troubles == ()
    assert set(taken.looked) == set(DebrisKind)
    return taken


def debris(taken: Inventory) -> dict[DebrisKind, list[Place]]:
    """What is certainly dead and nobody's."""
    dead: dict[DebrisKind, list[Place]] = {}
    for place in taken.places:
        if (place.lives, place.owned) == (Answer.NO, Answer.NO):
            dead.setdefault(place.key.kind, []).append(place)
    return dead


def names(taken: Inventory) -> set[str]:
    """The paths of all that was listed, certain or not."""
    return {place.key.path for place in taken.places}


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_what_containerd_left_of_a_removed_bundle_is_found(tmp_path: Path) -> None:
    with left(tmp_path) as (_, worker, bundle):
        dead = debris(found(worker))
        assert dead.keys() == OF_A_BUNDLE
        assert {one.key.path for places in dead.values() for one in places} == {
            os.fspath(path)
            for path in (bundle.socket, bundle.fifos, bundle.runc_state, bundle.work)
        }
        assert dead[DebrisKind.RUNC_STATE][0].namespace == "default"
        assert dead[DebrisKind.FIFO_DIR][0].id == bundle.key.id


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_what_a_bundle_names_is_the_bundles(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, worker):
        made.bundle("dead", mounted=True, fifos=True)
        assert found(worker).places == ()


@pytest.mark.safety
def test_what_bundles_explain_is_left_out_unseen_and_nothing_else_is(
    tmp_path: Path, scanned: list[ProcessScan], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scanned
    _as_without_leaving_out(tmp_path, monkeypatch)


@private_mounts
def _as_without_leaving_out(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside bundles of every kind, what is left of one that is gone or hidden, and oddities."""
    with left(base) as (made, worker, gone):
        for number in range(3):
            made.bundle(f"c{number}", mounted=number > 0, fifos=number > 1)
        member = made.bundle("member", mounted=False)
        (member.path / "address").write_text(f"unix://{gone.socket}")
        member.socket.unlink()
        hidden = made.bundle("hidden", mounted=False)
        hidden.path.rename(hidden.path.with_name(f".{hidden.key.id}"))
        other = made.bundle("elsewhere", "other", mounted=False)
        shutil.rmtree(other.path)
        listen(gone.socket.with_name("odd")).close()
        (gone.runc_state.parent / "no-bundle").mkdir()
        for name in ("fifo", "s"):
            (made.tree / name / "7").mkdir(parents=True)
        stats: list[bytes] = []
        monkeypatch.setattr(finds, "_stat", _counted(finds._stat, stats))
        short = _without_times(found(worker))
        few = len(stats)
        monkeypatch.setattr(inventory, "_unexplained", lambda _: finds.everything)
        whole = _without_times(found(worker))
        assert set(whole.places) ^ set(short.places) == set()
        assert whole == short
        assert any(place.key.path == os.fspath(other.socket) for place in short.places)
        assert few < len(stats) - few, "most needed no look"


def _without_times(taken: Inventory) -> Inventory:
    return replace(taken, since=0.0, seconds=0.0)


def _counted(
    stat: Callable[[int, bytes], kernel.Stat | None], stats: list[bytes]
) -> Callable[[int, bytes], kernel.Stat | None]:
    def counting(parent: int, name: bytes) -> kernel.Stat | None:
        stats.append(name)
        return stat(parent, name)

    return counting


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_an_inventory_changes_nothing_and_opens_no_fifo(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        before = _everything(made.base)
        reader = os.open(next(bundle.fifos.iterdir()), os.O_RDONLY | os.O_NONBLOCK)
        try:
            found(worker)
            assert os.read(reader, 1) == b"", "a writer has been there"
        finally:
            os.close(reader)
        assert _everything(made.base) == before


def _everything(base: Path) -> dict[str, tuple[int, int, int]]:
    stats = {os.fspath(path): path.lstat() for path in base.rglob("*")}
    return {name: (one.st_ino, one.st_mtime_ns, one.st_mode) for name, one in stats.items()}


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_socket_with_a_listener_lives(tmp_path: Path) -> None:
    with left(tmp_path) as (_, worker, bundle):
        bundle.socket.unlink()
        with listen(bundle.socket):
            assert DebrisKind.SHIM_SOCKET not in debris(found(worker))
        assert DebrisKind.SHIM_SOCKET in debris(found(worker))


@pytest.mark.safety
@private_mounts
def _of_another_containerd(base: Path, scanned: list[ProcessScan]) -> None:
    with left(base) as (_, worker, bundle):
        tree = base / "other" / TASKS.decode()
        theirs = tree / "default" / bundle.key.id
        theirs.mkdir(parents=True)
        (theirs / "address").write_text(f"unix://{bundle.socket}")
        with working_in(tree / "default" / "pod") as pid:
            scanned[0] = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), pid),))
            work = os.fspath(bundle.work)
            assert names(found(worker)) <= {work}, "only work dirs are not shared"


def test_what_another_containerds_bundle_may_own_stays(
    tmp_path: Path, scanned: list[ProcessScan]
) -> None:
    _of_another_containerd(tmp_path, scanned)


@pytest.mark.safety
@pytest.mark.parametrize(
    "processes",
    [
        ProcessScan(),
        ProcessScan(True, unread=(UnreadProcess(7),)),
        ProcessScan(True, shims=(ShimProcess(BundleKey("default", "lost"), os.getpid()),)),
    ],
    ids=["no pass over /proc", "a process that may be any shim", "a shim whose tree is not known"],
)
def test_without_an_answer_nothing_is_nobodys(
    tmp_path: Path, scanned: list[ProcessScan], processes: ProcessScan
) -> None:
    scanned[0] = processes
    _nothing_is_certain(tmp_path)


@private_mounts
def _nothing_is_certain(base: Path) -> None:
    with left(base) as (_, worker, _bundle):
        assert debris(take(worker.place)) == {}


@pytest.mark.safety
def test_a_running_shim_or_a_process_in_a_cgroup_of_the_name_keeps_what_bears_it(
    tmp_path: Path, scanned: list[ProcessScan]
) -> None:
    _kept_by_processes(tmp_path, scanned)


@private_mounts
def _kept_by_processes(base: Path, scanned: list[ProcessScan]) -> None:
    with left(base) as (_, worker, bundle):
        state = DebrisKind.RUNC_STATE
        scanned[0] = ProcessScan(True, helpers=frozenset({bundle.key}))
        assert debris(found(worker)).keys() <= {DebrisKind.SHIM_SOCKET}
        for path in (f"/system.slice/{bundle.key.id}", f"/x/cri-containerd-{bundle.key.id}.scope"):
            scanned[0] = ProcessScan(True, cgroup_paths=frozenset({path}))
            assert state not in debris(found(worker))
        scanned[0] = ProcessScan(True, unplaced=7)
        assert state not in debris(found(worker))
        scanned[0] = NOBODY
        assert state in debris(found(worker))


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_state_whose_init_or_cgroup_lives_is_not_debris(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        state = bundle.runc_state / "state.json"
        text = state.read_text()
        own = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        said = text.replace(f": {made.dead_pid},", f": {os.getpid()},").replace("12345", own)
        assert said != text
        state.write_text(said)
        assert names(found(worker)).isdisjoint({os.fspath(bundle.runc_state)})
        for torn in ("", "{", "[]", said[:-40]):
            state.write_text(torn)
            assert DebrisKind.RUNC_STATE not in debris(found(worker))
            assert os.fspath(bundle.runc_state) in names(found(worker))


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_hidden_bundle_and_cgroups_of_the_default_layout_are_found(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, worker):
        (hidden := made.tree / made.cgroup / ".poisoned").mkdir(parents=True)
        dead = debris(found(worker))
        assert [one.key.path for one in dead[DebrisKind.HIDDEN_BUNDLE]] == [os.fspath(hidden)]
        groups = [top / made.cgroup / "was" for top in sorted(CGROUPS.iterdir())]
        for group in groups:
            group.mkdir(parents=True)
        assert DebrisKind.CGROUP not in debris(found(worker)), "an administrator may have made them"
        (Path(os.fsdecode(made.layout.work)) / made.cgroup / "was").mkdir(parents=True)
        dead = debris(found(worker))
        assert {one.key.path for one in dead[DebrisKind.CGROUP]} == set(map(os.fspath, groups))
        (made.tree / made.cgroup / "was").mkdir()
        assert DebrisKind.CGROUP not in debris(found(worker))


@pytest.mark.usefixtures("scanned")
@private_mounts
def test_what_was_taken_out_of_use_and_not_removed_is_found_again(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        hidden = [
            path.rename(path.with_name(HIDDEN.decode() + path.name))
            for path in (bundle.socket, bundle.fifos, bundle.runc_state)
        ]
        work = bundle.work.rename(bundle.work.with_name(f".{bundle.work.name}"))
        ino = work.stat().st_ino
        ours = work.with_name(hidden_name(ino, bytes(8)))
        for path in (work, ours):
            work = work.rename(path)
            dead = debris(found(worker))
            assert dead[DebrisKind.HIDDEN_BUNDLE][0].key.path == os.fspath(path)
            assert {one.key.path for places in dead.values() for one in places} == {
                os.fspath(one) for one in (*hidden, path)
            }
        (hidden[2] / "state.json").unlink()  # that had been shown to be dead
        assert DebrisKind.RUNC_STATE in debris(found(worker))
        work.rename(work.with_name(hidden_name(ino + 1, bytes(8))))  # somebody made that up
        assert DebrisKind.HIDDEN_BUNDLE not in debris(found(worker))
        assert made.tree.exists()


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_state_that_is_of_a_bundle_elsewhere_is_another_containerds(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        state = bundle.runc_state / "state.json"
        text, tree = state.read_text(), os.fspath(made.tree)
        state.write_text(text.replace(f"bundle={tree}", "bundle=/run/other"))
        assert os.fspath(bundle.runc_state) not in names(found(worker))
        state.write_text(text.replace("bundle=", "no=").replace(os.fspath(bundle.rootfs), ""))
        assert DebrisKind.RUNC_STATE not in debris(found(worker))
        (tmp_path / "same").symlink_to(tree)
        state.write_text(text.replace(f"bundle={tree}", f"bundle={tmp_path}/same"))
        assert DebrisKind.RUNC_STATE in debris(found(worker))


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_state_in_a_root_that_a_bundle_names_is_found_if_only_root_can_have_made_it(
    tmp_path: Path,
) -> None:
    with left(tmp_path) as (made, worker, bundle):
        root = made.run / "other-runc"
        state = root / bundle.runc_state.parent.name / bundle.runc_state.name
        state.parent.mkdir(parents=True)
        bundle.runc_state.rename(state)
        assert DebrisKind.RUNC_STATE not in debris(found(worker))
        other = made.bundle("other", mounted=False)
        (other.path / "options.json").write_text(f'{{"root": "{root}"}}')
        chain = [root, *root.parents]
        modes = {path: path.stat().st_mode for path in chain if path.is_relative_to(tmp_path)}
        is_ours = all(path.stat().st_mode & 0o1022 in {0, 0o1022} for path in chain)
        dead = debris(found(worker)).get(DebrisKind.RUNC_STATE, [])
        assert [one.key.path for one in dead] == ([os.fspath(state)] if is_ours else [])
        for path, mode in modes.items():
            path.chmod(0o777)
            assert DebrisKind.RUNC_STATE not in debris(found(worker))
            path.chmod(mode)


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_the_fifos_of_what_was_executed_in_a_container_are_its(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        other = made.bundle("web", "other", mounted=False, cgroups=False).path
        assert DebrisKind.FIFO_DIR in debris(found(worker))
        (other / f"{bundle.key.id}.pid").write_text("1")
        assert os.fspath(bundle.fifos) not in names(found(worker))


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_group_by_the_name_of_a_unit_is_systemds(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, worker):
        top = min(CGROUPS.iterdir()) / made.cgroup
        for name in ("a.service", "b.scope", "c.slice", "d"):
            (top / name).mkdir(parents=True)
            (Path(os.fsdecode(made.layout.work)) / made.cgroup / name).mkdir(parents=True)
        (made.tree / made.cgroup).mkdir()
        dead = debris(found(worker))[DebrisKind.CGROUP]
        assert [one.key.path for one in dead] == [os.fspath(top / "d")]


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_namespace_that_cannot_be_entered_may_own_everything_of_its_name(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, bundle):
        os.rmdir(made.tree / "default")
        (made.tree / "default").symlink_to(tmp_path)
        assert debris(found(worker)) == {}
        assert bundle.left()


@pytest.mark.safety
@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_place_that_cannot_be_listed_was_not_looked_for(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, _):
        fifos = Path(os.fsdecode(made.layout.fifos))
        shutil.rmtree(fifos)
        fifos.write_text("no directory")
        taken = take(worker.place)
        assert DebrisKind.FIFO_DIR not in taken.looked
        assert len(taken.troubles) == 1


@pytest.mark.usefixtures("scanned")
@private_mounts
def test_a_node_without_a_state_tree_has_nothing_that_is_certain(tmp_path: Path) -> None:
    with left(tmp_path) as (made, worker, _):
        shutil.rmtree(made.tree)
        assert debris(take(worker.place)) == {}
