"""A cgroup of which nothing else is left goes only where the parent has seen its container."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from msgspec.structs import replace

from reconciler.decide.debris_verdicts import ORDER
from reconciler.model.debris import UNPROVEN, DebrisKind, Place, PlaceKey
from reconciler.model.evidence import (
    Answer,
    Containerd,
    ContainerdState,
    ProcessScan,
    ShimProcess,
)
from reconciler.model.ids import NOWHERE, BundleKey
from reconciler.model.outcome import Result
from reconciler.worker.inventory import take
from tests.support.bundles import CGROUPS, listen
from tests.support.mountns import private_mounts
from tests.worker.debris.leaving import GROUP, Ground, cleaned, ground

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

UP = Containerd(ContainerdState.UP)
OTHERS = ("docker", "kubepods", "libpod_parent", "machine")


def alone(here: Ground) -> tuple[Path, Place]:
    """Leave a group and nothing else of its name."""
    path = GROUP.leave(here)
    shutil.rmtree(here.made.base / "lib" / "io.containerd.runtime.v2.task" / here.made.cgroup)
    (here.made.tree / here.made.cgroup).mkdir(exist_ok=True)  # its namespace is containerd's
    (found,) = (one for one in take(here.worker.place).places if one.key.kind is DebrisKind.CGROUP)
    return path, found


@private_mounts
def test_it_is_told_apart_and_goes_where_somebody_vouches_for_it(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path, found = alone(here)
        assert (found.owned, found.unproven, found.detail) == (Answer.NONE, True, UNPROVEN)
        vouched = replace(found, owned=Answer.NO)
        for place, said in (
            (found, UP),
            (vouched, Containerd(ContainerdState.DOWN)),
            (vouched, Containerd(ContainerdState.SKIPPED)),
            (vouched, Containerd(ContainerdState.NONE)),
            (replace(vouched, identity=replace(found.identity, ino=1)), UP),
        ):
            here.worker.containerd = said
            (came,) = here.clean((place,))
            assert came.result is Result.SKIPPED, said
            assert path.is_dir()
        here.worker.containerd = UP
        (path / "below").mkdir()
        (came,) = here.clean((vouched,))
        assert (came.result, path.is_dir()) == (Result.SKIPPED, True)
        (path / "below").rmdir()
        (came,) = here.clean((vouched,))
        assert (came.result, path.exists()) == (Result.CLEANED, False)


def drawn(here: Ground, path: Path) -> Place | None:
    """What an inventory says of a group, for the parent to judge; None if somebody owns it."""
    found = [one for one in take(here.worker.place).places if one.key.path == str(path)]
    return found[0] if found else None


@private_mounts
def test_a_group_by_an_id_that_was_drawn_goes_only_while_containerd_answers(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = here.hierarchy / here.made.cgroup / ("0f" * 32)
        path.mkdir(parents=True)
        found = drawn(here, path)
        assert found is not None
        assert (found.lives, found.owned, found.unproven) == (Answer.NO, Answer.NONE, True)
        vouched, key = replace(found, owned=Answer.NO), BundleKey(found.namespace, found.id)

        def keeps(said: Containerd = UP) -> bool:
            here.worker.containerd = said
            (came,) = here.clean((vouched,))
            return (came.result, path.is_dir()) == (Result.SKIPPED, True)

        assert all(keeps(Containerd(state)) for state in ContainerdState if state is not UP.state)
        assert keeps(replace(UP, tasks=frozenset({key})))
        assert keeps(replace(UP, unlisted=frozenset({key.namespace})))
        (path / "below").mkdir()  # a pod's, a slice's: groups are kept in it
        assert keeps()
        (path / "below").rmdir()
        (bundle := here.made.tree / here.made.cgroup / path.name).mkdir()
        assert keeps()
        bundle = bundle.rename(bundle.with_name("." + bundle.name))
        assert keeps()
        bundle.rmdir()
        shim = ShimProcess(key, 1 << 21)
        for seen in (
            replace(here.scanned, shims=(shim,)),
            replace(here.scanned, helpers=frozenset({key})),
            replace(here.scanned, cgroup_names=frozenset({key.id})),
            replace(here.scanned, unplaced=1),
            ProcessScan(),
        ):
            with mock.patch.object(here, "scanned", seen):
                assert keeps(), seen
        here.worker.containerd = UP
        (came,) = here.clean((vouched,))
        assert (came.result, path.exists()) == (Result.CLEANED, False)


@pytest.mark.parametrize(
    "where",
    ["docker", "kubepods", "libpod_parent", "machine", "system.slice", "crio-0f.scope", "garden"],
)
@private_mounts
def test_another_managers_group_by_an_id_that_was_drawn_stays(tmp_path: Path, where: str) -> None:
    """Docker's own, kubelet's, podman's; and of whoever has but a directory in runc's root."""
    with ground(tmp_path) as here, ExitStack() as ends:
        name = where if where in OTHERS or "." in where else here.made.cgroup
        top = here.hierarchy / name
        path = top / ("0f" * 32)
        was_there = top.exists()
        path.mkdir(parents=True)
        if not was_there:
            ends.callback(top.rmdir)
        ends.callback(path.rmdir)
        (here.made.run / "runc" / name).mkdir(parents=True)
        if name == here.made.cgroup:
            (here.made.tree / name).rmdir()
        else:
            (here.made.tree / name).mkdir()
        found = drawn(here, path)
        assert found is None or (found.owned, found.unproven) == (Answer.NONE, False)


@pytest.mark.parametrize("name", ["0f" * 31, "0F" * 32, "0f" * 31 + "0g", "libpod-" + "0f" * 32])
def test_what_no_program_drew_is_no_drawn_id(name: str) -> None:
    assert not Place(PlaceKey(DebrisKind.CGROUP, "/x"), NOWHERE, "ns", name).is_drawn


@private_mounts
def test_a_socket_is_named_by_the_group_that_it_shows(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path, layout = GROUP.leave(here), here.made.layout
        names = (here.made.cgroup, path.name)
        for id_ in (path.name, "other"):
            at = Path(os.fsdecode(layout.shim_socket(here.made.cgroup, id_)))
            at.parent.mkdir(parents=True, exist_ok=True)
            listen(at).close()
        found = take(here.worker.place).places
        sockets = [one for one in found if one.key.kind is DebrisKind.SHIM_SOCKET]
        assert sorted((one.namespace, one.id) for one in sockets) == [("", ""), names]
        assert cleaned(here.clean(tuple(sockets)))


def leave_state(here: Ground, group: Path) -> Path:
    """Leave runc's state of the name of a group, which names that group."""
    bundle = here.made.tree / group.parent.name / group.name
    state = here.made.run / "runc" / group.parent.name / group.name
    state.mkdir(parents=True)
    said = {
        "id": group.name,
        "init_process_pid": here.made.dead_pid,
        "init_process_start": 12345,
        "config": {"rootfs": "/", "labels": [f"bundle={bundle}"]},
        "cgroup_paths": {"": str(group)},
    }
    (state / "state.json").write_text(json.dumps(said))
    return state


@private_mounts
def test_in_the_order_of_their_kinds_nothing_is_left(tmp_path: Path) -> None:
    """A state keeps the groups of its name, and a work directory shows one to be a container's."""
    with ground(tmp_path) as here:
        group = GROUP.leave(here)
        elsewhere = next(one for one in sorted(CGROUPS.iterdir()) if one != here.hierarchy)
        other = elsewhere / group.parent.name / group.name  # which the state does not name
        other.mkdir(parents=True)
        state = leave_state(here, group)
        for came in here.remove(DebrisKind.CGROUP):
            assert "state of its name goes first" in came.detail
        for kind in ORDER:
            places = here.dead(kind)
            assert not places or cleaned(here.clean(places)), kind
            if kind is DebrisKind.RUNC_STATE:
                assert (state.exists(), group.exists()) == (False, False)
                assert other.is_dir()
        assert not other.exists(), "it would stay for ever, had the work directory gone first"
