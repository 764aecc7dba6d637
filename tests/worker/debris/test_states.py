"""States of runtimes: of which a container lives, or another containerd's, stays."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from reconciler.model.debris import DebrisKind
from reconciler.model.outcome import BlockReason, Result
from reconciler.worker.messages import WorkerScope
from tests.support.cgroups import join
from tests.support.mountns import private_mounts
from tests.worker.debris.leaving import (
    GROUP,
    STATE,
    Ground,
    cleaned,
    ground,
    join_one,
    stays,
    write,
)

pytestmark = pytest.mark.safety


@private_mounts
def test_a_state_whose_container_lives_or_that_is_anothers_stays(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = STATE.leave(here)
        place = here.one(DebrisKind.RUNC_STATE)
        state = path / "state.json"
        said = json.loads(state.read_text())
        start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        alive: dict[str, object] = {"init_process_pid": os.getpid(), "init_process_start": start}
        group = GROUP.leave(here)
        join_one(here, group)
        rows: list[tuple[dict[str, object], str]] = [
            (alive, "used"),
            ({"cgroup_paths": {"": str(group)}}, "used"),
            ({"init_process_start": 0}, "no answer"),
            ({"config": {"rootfs": "/", "labels": ["bundle=/run/other/x"]}}, "owned"),
            ({"config": {}}, "no answer"),
        ]
        for changed, why in rows:
            write(path, **(said | changed))
            assert why in stays(here, place, path).detail, changed
        state.write_text("{")
        assert "no answer" in stays(here, place, path).detail
        state.write_text(json.dumps(said))
        assert cleaned(here.clean((place,)))


@private_mounts
def test_the_groups_that_a_state_names_go_first_and_others_not(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = STATE.leave(here)
        group = here.hierarchy / here.made.cgroup / path.name
        other = GROUP.leave(here)
        (group / "below").mkdir(parents=True)
        said = json.loads((path / "state.json").read_text())
        said["cgroup_paths"] = {"a": str(group), "b": str(other), "c": "/etc"}
        (path / "state.json").write_text(json.dumps(said))
        (result,) = here.remove(DebrisKind.RUNC_STATE)
        assert result.result is Result.CLEANED, result
        assert [one.step for one in result.steps] == ["guards", "cgroup", "runc-state"]
        assert not group.exists()
        assert other.exists(), "it does not carry the id"
        assert "does not carry the id" in result.detail


@private_mounts
def test_poststop_hooks_run_before_a_state_goes_and_block_it_if_they_cannot(
    tmp_path: Path,
) -> None:
    with ground(tmp_path) as here:
        path = STATE.leave(here)
        said = json.loads((path / "state.json").read_text())
        said["config"]["Hooks"] = {"poststop": [{"path": "/bin/true"}]}
        (path / "state.json").write_text(json.dumps(said))
        place = here.one(DebrisKind.RUNC_STATE)
        here.worker.bind(WorkerScope(here.made.layout, runc="/nowhere/runc"))
        (blocked,) = here.clean((place,))
        assert (blocked.result, blocked.reason) == (Result.BLOCKED, BlockReason.HOOKS)
        assert path.exists()
        runc = tmp_path / "runc"
        runc.write_text('#!/bin/sh\necho "$@" >"$0.said"\nrm -r "$2/$5"\n')
        runc.chmod(0o755)
        here.worker.bind(WorkerScope(here.made.layout, runc=str(runc)))
        assert cleaned(here.clean((place,)))
        told = (tmp_path / "runc.said").read_text().split()
        assert told == ["--root", str(path.parent), "delete", "--force", path.name]
        assert not path.exists()


@private_mounts
def test_a_state_in_a_root_that_a_bundle_names_goes_unless_something_in_it_is_not_runcs(
    tmp_path: Path,
) -> None:
    with ground(tmp_path) as here:
        path = STATE.leave(here)
        state = here.made.run / "other-runc" / path.parent.name / path.name
        state.parent.mkdir(parents=True)
        path.rename(state)
        bundle = here.made.tree / "default" / "names"
        bundle.mkdir()
        (bundle / "options.json").write_text(json.dumps({"root": str(state.parents[1])}))
        (state / "data").write_text("precious")
        place = here.one(DebrisKind.RUNC_STATE)
        assert "data in it is not" in stays(here, place, state).detail
        (state / "data").unlink()
        assert cleaned(here.remove(DebrisKind.RUNC_STATE))
        assert not state.exists()
        assert bundle.exists()


def _by_crun(here: Ground) -> tuple[Path, Path]:
    """Leave what crun keeps of a container in place of runc's; give it and its cgroup."""
    path = STATE.leave(here)
    said = json.loads((path / "state.json").read_text())
    (path / "state.json").unlink()
    group = here.hierarchy / here.made.cgroup / path.name
    group.mkdir(parents=True)
    status = {
        "pid": said["init_process_pid"],
        "process-start-time": said["init_process_start"],
        "cgroup-path": f"/{here.made.cgroup}/{path.name}",
        "bundle": str(here.made.tree / "default" / path.name),
    }
    (path / "status").write_text(json.dumps(status))
    (path / "config.json").write_text("{}")
    return path, group


@private_mounts
def test_cruns_state_goes_with_its_cgroup_and_its_hooks_run_by_crun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ground(tmp_path) as here:
        path, group = _by_crun(here)
        place = here.one(DebrisKind.RUNC_STATE)
        (path / "config.json").unlink()  # who knows what hooks it had
        assert "no answer" in here.clean((place,))[0].detail
        (path / "config.json").write_text(json.dumps({"hooks": {"poststop": [{"path": "/x"}]}}))
        crun = tmp_path / "bin" / "crun"
        crun.parent.mkdir()
        crun.write_text('#!/bin/sh\necho "$@" >"$0.said"\nrm -r "$2/$5"\n')
        crun.chmod(0o755)
        monkeypatch.setenv("PATH", f"{crun.parent}:{os.environ['PATH']}")
        assert cleaned(here.remove(DebrisKind.RUNC_STATE))
        assert "delete --force" in crun.with_name("crun.said").read_text()
        assert group.exists(), "the name was free in between: that is for the next inventory"
        group.rmdir()
        path, group = _by_crun(here)
        assert cleaned(here.remove(DebrisKind.RUNC_STATE))
        assert not path.exists()
        assert not group.exists()


@private_mounts
def test_youkis_state_names_no_start_time_and_stays(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        path = STATE.leave(here)
        pid = json.loads((path / "state.json").read_text())["init_process_pid"]
        bundle = str(here.made.tree / "default" / path.name)
        said = {"id": path.name, "pid": pid, "bundle": bundle}
        (path / "state.json").write_text(json.dumps(said))
        (path / "youki_config.json").write_text("{}")
        assert here.dead(DebrisKind.RUNC_STATE) == ()


@private_mounts
def test_a_cgroup_that_is_entered_before_the_hooks_run_holds_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`delete --force` would kill whoever is in there."""
    with ground(tmp_path) as here:
        path, group = _by_crun(here)
        (path / "config.json").write_text(json.dumps({"hooks": {"poststop": [{"path": "/x"}]}}))
        place = here.one(DebrisKind.RUNC_STATE)
        entered: list[subprocess.Popen[bytes]] = []

        def enter_and_choose(*_: str) -> str:
            entered.append(subprocess.Popen(["sleep", "60"]))
            join(entered[0].pid, [group])
            return "/bin/false"

        monkeypatch.setattr("reconciler.worker.debris.runtime.pick_runc", enter_and_choose)
        (result,) = here.clean((place,))
        assert entered[0].poll() is None
        entered[0].kill()
        entered[0].wait()
        assert (result.result, result.reason) == (Result.BLOCKED, BlockReason.CGROUP)
        assert path.exists()
