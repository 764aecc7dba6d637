"""A dead container's cgroup: leaf first, and a scope only once systemd has forgotten it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason
from reconciler.probe import cgroups, mounts
from reconciler.probe.beneath import opened
from reconciler.probe.cgroups import CgroupDir
from reconciler.worker import groups
from reconciler.worker.blocked import Blocked
from reconciler.worker.objects import find
from reconciler.worker.step_log import Tally

pytestmark = pytest.mark.kernel

SCOPE = "cri-containerd-c1.scope"


@pytest.fixture
def scope() -> Iterator[Path]:
    """An empty scope with groups below it, in a real hierarchy."""
    table = Path("/proc/self/mountinfo").read_bytes()
    found = cgroups.hierarchies(one.mount for one in mounts.parse(table))
    if not found or not os.access(found[-1].point, os.W_OK):
        pytest.skip("needs root and a cgroup mount")
    top = Path(os.fsdecode(found[-1].point), f"reconciler-test-{uuid.uuid4().hex[:12]}")
    (top / SCOPE / "inner" / "deep").mkdir(parents=True)
    yield top / SCOPE
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)


def remove(scope: Path) -> int:
    """Remove a scope and say how many groups that were."""
    tally = Tally()
    mount, inner = scope.parents[1], scope.relative_to(scope.parents[1])
    group = CgroupDir(os.fsencode(mount), os.fsencode(inner))
    with opened(group.mount) as top:
        groups.remove_group(top, group, "c1", find(os.fsencode(scope)), tally)
    return tally.mutations


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemd keeps of the scope, as pid 1 of a node that has it."""
    monkeypatch.setattr(groups, "_PID_1", os.fsencode(tmp_path))
    (tmp_path / "comm").write_text("systemd\n")
    made = tmp_path / "root/run/systemd/transient" / SCOPE
    made.parent.mkdir(parents=True)
    made.touch()
    return made


def test_a_scope_is_left_to_systemd_as_long_as_that_has_it(scope: Path, unit: Path) -> None:
    with pytest.raises(Blocked) as blocked:
        remove(scope)
    assert blocked.value.reason is BlockReason.SCOPE
    assert SCOPE in str(blocked.value)
    assert (scope / "inner" / "deep").is_dir()
    unit.unlink()
    assert remove(scope) == 3
    assert not scope.exists()


def test_a_scope_that_is_gone_holds_nothing_up(scope: Path, unit: Path) -> None:
    name = "other-c1.scope"
    unit.with_name(name).touch()
    assert remove(scope.with_name(name)) == 0


def test_without_systemd_a_scope_is_a_group_like_any_other(scope: Path, unit: Path) -> None:
    (unit.parents[4] / "comm").write_text("init\n")
    assert remove(scope) == 3
