"""Every kind: what is dead and nobody's is removed, and whatever speaks against that keeps it."""

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
from msgspec.structs import replace as with_fields

from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.evidence import Containerd, ContainerdState, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import TASKS
from reconciler.model.outcome import BlockReason, Result
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.objects import HIDDEN
from tests.support.bundles import listen
from tests.support.mountns import private_mounts
from tests.support.shims import working_in
from tests.worker.debris.leaving import (
    ALL,
    EMPTY,
    FIFOS,
    GROUP,
    HIDDEN_BUNDLE,
    NOBODY,
    SOCKET,
    Ground,
    Leaving,
    cleaned,
    fill,
    ground,
    join_one,
    stays,
    write,
    write_living,
)

pytestmark = pytest.mark.safety

NAMED = {name: ALL[name] for name in ("fifos", "state", "group", "work")}
"""Kinds that bear a bundle's id, and no dot before it."""


def id_of(path: Path) -> str:
    return "gone" if path.parent.name == "fifo" else path.name.removeprefix(".")


def namespace_of(path: Path) -> str:
    return "default" if path.parent.name == "fifo" else path.parent.name


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_what_is_dead_is_removed_and_once_is_enough(tmp_path: Path, leaving: Leaving) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        assert cleaned(here.clean((place,)))
        assert not path.exists()
        (again,) = here.clean((place,))
        assert (again.result, again.detail) == (Result.SKIPPED, "it is gone")
        assert here.dead(leaving.kind) == ()


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_without_an_answer_everything_stays(tmp_path: Path, leaving: Leaving) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        here.scanned = ProcessScan()
        assert "no answer" in stays(here, place, path).detail
        with working_in(tmp_path / "out") as pid:
            lost = ShimProcess(BundleKey("default", "lost"), pid)
            here.scanned = ProcessScan(True, shims=(lost,))
            assert "no answer" in stays(here, place, path).detail
        here.scanned = NOBODY
        aside = here.made.tree.rename(here.made.run / "aside")
        if path.is_relative_to(here.made.tree):
            return
        assert "no answer from a tree" in stays(here, place, path).detail
        aside.rename(here.made.tree)
        assert cleaned(here.clean((place,)))


@pytest.mark.parametrize("leaving", NAMED.values(), ids=NAMED)
@private_mounts
def test_a_task_that_containerd_lists_keeps_what_bears_its_name(
    tmp_path: Path, leaving: Leaving
) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        key = BundleKey(namespace_of(path), id_of(path))
        here.worker.containerd = Containerd(ContainerdState.UP, tasks=frozenset({key}))
        assert "owned" in stays(here, place, path).detail
        here.worker.containerd = Containerd(ContainerdState.NONE)
        assert "no answer from: containerd" in stays(here, place, path).detail
        unlisted = frozenset({key.namespace})
        here.worker.containerd = Containerd(ContainerdState.UP, unlisted=unlisted)
        assert "no answer from: containerd" in stays(here, place, path).detail
        here.worker.containerd = Containerd(ContainerdState.UP)
        assert cleaned(here.clean((place,)))


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("leaving", NAMED.values(), ids=NAMED)
@private_mounts
def test_a_bundle_keeps_what_bears_its_name(tmp_path: Path, leaving: Leaving, hidden: bool) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        dot = "." if hidden else ""
        bundle = here.made.tree / namespace_of(path) / f"{dot}{id_of(path)}"
        bundle.mkdir(parents=True)
        assert "owned" in stays(here, place, path).detail
        bundle.rmdir()
        assert cleaned(here.clean((place,)))


@pytest.mark.parametrize("leaving", [*NAMED.values(), HIDDEN_BUNDLE], ids=[*NAMED, "hidden"])
@private_mounts
def test_a_shim_or_helper_of_its_name_keeps_it(tmp_path: Path, leaving: Leaving) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        here.scanned = ProcessScan(
            True, helpers=frozenset({BundleKey(namespace_of(path), id_of(path))})
        )
        assert "owned" in stays(here, place, path).detail


@pytest.mark.parametrize("leaving", [SOCKET, *NAMED.values()], ids=["socket", *NAMED])
@private_mounts
def test_a_bundle_of_another_containerd_keeps_what_it_may_use(
    tmp_path: Path, leaving: Leaving
) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        tree = tmp_path / "other" / TASKS.decode()
        theirs = tree / namespace_of(path) / id_of(path)
        theirs.mkdir(parents=True)
        (theirs / "address").write_text(f"unix://{path}")
        with working_in(tree / "default" / "pod") as pid:
            shim = ShimProcess(BundleKey("default", "pod"), pid)
            here.scanned = ProcessScan(True, shims=(shim,))
            assert "owned" in stays(here, place, path).detail
        here.scanned = NOBODY
        assert cleaned(here.clean((place,)))


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_another_object_of_its_name_stays(tmp_path: Path, leaving: Leaving) -> None:
    """As old, as dead, and nobody's: but it was not judged."""
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        ino = place.identity.ino
        other = with_fields(place, identity=with_fields(place.identity, ino=ino + 1))
        assert "another object" in stays(here, other, path).detail
        if leaving is not GROUP:
            younger = with_fields(place, since=place.since - 1)
            assert "changed" in stays(here, younger, path).detail
        assert cleaned(here.clean((place,)))


@private_mounts
def test_a_batch_has_a_result_for_each_in_order(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        paths = [here.made.run / "s" / (digit * 64) for digit in "abcd"]
        for path in paths:
            listen(path).close()
        places = sorted(here.dead(DebrisKind.SHIM_SOCKET), key=lambda one: one.key.path)
        paths[1].unlink()
        here.handles.enter_context(listen(paths[1]))
        paths[2].unlink()
        results = here.clean(tuple(places))
        assert [one.key.path for one in results] == [os.fspath(path) for path in paths]
        assert [one.result for one in results] == [
            Result.CLEANED,
            Result.SKIPPED,
            Result.SKIPPED,
            Result.CLEANED,
        ]
        assert [path.exists() for path in paths] == [False, True, False, False]
        here.worker.stop = True
        (blocked,) = here.clean(tuple(_leave_one_socket(here)))
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.INTERRUPTED)


def _leave_one_socket(here: Ground) -> list[Place]:
    listen(here.made.run / "s" / ("e" * 64)).close()
    return list(here.dead(DebrisKind.SHIM_SOCKET))


@private_mounts
def test_an_empty_job_is_done(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        assert here.clean(()) == ()


# ------------------------------------------------------------------------------------- sockets


@private_mounts
def test_a_listener_and_a_bundle_that_names_it_keep_a_socket(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = SOCKET.leave(here)
        place = here.one(DebrisKind.SHIM_SOCKET)
        bundle = here.made.tree / "default" / "c1"
        bundle.mkdir(parents=True)
        (bundle / "address").write_text(f"unix://{path}")
        assert "owned" in stays(here, place, path).detail
        shutil.rmtree(bundle)
        path.unlink()
        here.handles.enter_context(listen(path))
        assert "used" in stays(here, place, path).detail


# --------------------------------------------------------------------------------------- FIFOs


@private_mounts
def test_a_fifo_that_came_later_keeps_the_others_and_none_is_opened(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = EMPTY.leave(here)
        place = here.one(DebrisKind.FIFO_DIR)
        fill(path, "gone")
        assert "changed" in stays(here, place, path).detail
        place = here.one(DebrisKind.FIFO_DIR)
        reader = os.open(path / "gone-stdin", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert cleaned(here.clean((place,)))
            assert os.read(reader, 1) == b"", "a writer has been there"
        finally:
            os.close(reader)


@private_mounts
def test_what_was_executed_and_what_is_no_fifo_keeps_a_directory(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = FIFOS.leave(here)
        place = here.one(DebrisKind.FIFO_DIR)
        bundle = here.made.tree / "default" / "web"
        bundle.mkdir(parents=True)
        (bundle / "shim-binary-path").write_text("/usr/bin/containerd-shim-runc-v2")
        (bundle / "gone.pid").write_text("1")
        assert "owned" in stays(here, place, path).detail
        (bundle / "gone.pid").unlink()
        (path / "data").write_text("precious")
        assert "no answer" in stays(here, place, path).detail


@private_mounts
def test_fifos_may_be_of_what_another_runtime_executes(tmp_path: Path) -> None:
    """Only runc's shims say in the bundle what they have executed."""
    with ground(tmp_path) as here:
        path = FIFOS.leave(here)
        other, pod = here.made.tree / "other" / "vm", here.made.tree / "other" / "pod"
        shim = other / "shim-binary-path"
        for one in (other, pod):
            one.mkdir(parents=True)
            (one / "shim-binary-path").write_text("/usr/bin/containerd-shim-runc-v2")
        place = here.one(DebrisKind.FIFO_DIR)
        for text in ("/opt/kata/bin/containerd-shim-kata-v2", ""):
            shim.write_text(text)
            assert "no answer" in stays(here, place, path).detail
        shim.unlink()
        assert "no answer" in stays(here, place, path).detail
        (other / "sandbox").write_text("pod")
        assert here.one(DebrisKind.FIFO_DIR) == place
        (pod / "shim-binary-path").write_text("/opt/kata/bin/containerd-shim-kata-v2")
        assert "no answer" in stays(here, place, path).detail


@private_mounts
def test_runcs_state_of_a_bundle_says_that_its_shim_is_runcs(tmp_path: Path) -> None:
    """Where no file names it: a damaged bundle must not keep the FIFOs of all others for ever."""
    with ground(tmp_path) as here:
        path = FIFOS.leave(here)
        bundle = here.made.bundle("web", mounted=False, cgroups=False)
        shim, state = bundle.path / "shim-binary-path", bundle.runc_state / "state.json"
        place, said = here.one(DebrisKind.FIFO_DIR), state.read_text()
        shim.unlink()
        assert here.one(DebrisKind.FIFO_DIR) == place
        (bundle.path / "gone.pid").write_text("1")
        assert "owned" in stays(here, place, path).detail
        (bundle.path / "gone.pid").unlink()
        other = said.replace(os.fspath(bundle.path), "/run/other/web")
        for text in ("", "{", other, json.dumps({"bundle": os.fspath(bundle.path), "pid": 1})):
            state.write_text(text)
            assert "no answer" in stays(here, place, path).detail
        state.write_text(said)
        shim.write_text("/opt/kata/bin/containerd-shim-kata-v2")
        assert "no answer" in stays(here, place, path).detail
        shim.unlink()
        assert cleaned(here.clean((place,)))


# ------------------------------------------------------------------------------------- cgroups


@private_mounts
def test_a_group_that_somebody_is_in_or_whose_name_has_a_state_stays(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = GROUP.leave(here)
        place = here.one(DebrisKind.CGROUP)
        state = here.made.run / "runc" / here.made.cgroup / "gone"
        for name in ("gone", HIDDEN.decode() + "gone"):
            state = state.with_name(name)
            state.mkdir(parents=True)
            assert "state of its name goes first" in stays(here, place, path).detail
            state.rmdir()
        (path / "below").mkdir()
        join_one(here, path / "below")
        assert "used" in stays(here, place, path).detail


@private_mounts
def test_a_group_that_an_administrator_may_have_made_stays(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = GROUP.leave(here)
        place = here.one(DebrisKind.CGROUP)
        (path / "below").mkdir()
        assert "no answer" in stays(here, place, path).detail
        (path / "below").rmdir()
        work = Path(os.fsdecode(here.made.layout.work)) / here.made.cgroup / "gone"
        work.rmdir()
        assert "no answer" in stays(here, place, path).detail
        work.mkdir()

        def made_below(_: PlaceAttempt, __: BundleKey) -> None:
            (path / "below").mkdir()

        with mock.patch.object(PlaceAttempt, "refuse_bundle", made_below):
            assert "groups below it" in stays(here, place, path).detail
        (path / "below").rmdir()
        assert cleaned(here.clean((place,)))


# -------------------------------------------------------------------------------- hidden bundles


@private_mounts
def test_a_hidden_bundle_whose_container_lives_stays(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = HIDDEN_BUNDLE.leave(here)
        place, id_ = here.one(DebrisKind.HIDDEN_BUNDLE), path.name.removeprefix(".")
        for root in (here.made.run / "runc", here.made.run / "other"):
            (path / "options.json").write_text(json.dumps({"root": os.fspath(root)}))
            place = here.one(DebrisKind.HIDDEN_BUNDLE)
            state = root / "default" / id_
            state.mkdir(parents=True)
            write_living(here, state)
            write(state, cgroup_paths={"": str(here.hierarchy / here.made.cgroup / id_)})
            assert "used" in stays(here, place, path).detail
            (state / "state.json").write_text("{")
            assert "no answer" in stays(here, place, path).detail
            shutil.rmtree(state)
        group = f"/system.slice/{id_}"
        here.scanned = ProcessScan(True, cgroup_paths=frozenset({group}))
        assert "no answer" in stays(here, place, path).detail
        here.scanned = NOBODY
        assert cleaned(here.clean((place,)))


@private_mounts
def test_a_shim_is_not_ended(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        place = Place(PlaceKey(DebrisKind.SHIM, str(os.getpid())), Identity(0, 1, 0))
        (result,) = here.clean((place,))
        assert result.result is Result.SKIPPED
