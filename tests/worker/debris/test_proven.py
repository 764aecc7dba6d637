"""A cgroup of which nothing else is left goes only where the parent has seen its container."""

import json
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.decide.debris import ORDER
from reconciler.model.debris import UNPROVEN, DebrisKind, Place
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.outcome import Result
from reconciler.worker.inventory import take
from tests.support.bundles import CGROUPS
from tests.support.mountns import private_mounts
from tests.worker.debris.leaving import GROUP, Ground, cleaned, ground

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

UP = Containerd(ContainerdState.UP)


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
