"""Debris in a journal: it replays as it was decided, and under other policies it goes otherwise."""

from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from reconciler.cli.app import app, run
from reconciler.journal.reader import Journal
from reconciler.journal.what_if import WhatIf
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import CleanDebris
from reconciler.model.policy import Policies
from reconciler.testing.journals import JournalBuilder, key_of, replay
from tests.replay.stories import ENFORCE
from tests.replay.test_report import data_of

CLEAN = ENFORCE.cleaning_debris(frozenset(DebrisKind))
HOUR = 3600.0


def recorded(path: Path, policies: Policies) -> Path:
    """Two cgroups are left behind; a task of the name of one is made again."""
    with JournalBuilder(path, policies) as node:
        outside = node.simulation.outside
        for name in ("ns/a", "ns/b"):
            outside.make(key_of(name), DebrisKind.CGROUP)
        node.wait("1h")
        node.simulation.relist()
        node.wait("1h")
        node.start("ns/b")
        node.wait("1h")
    return path


def removed(path: Path, policies: Policies) -> list[str]:
    """Which debris would be asked for."""
    player = WhatIf(policies)
    turns = player.play(Journal(path, lambda _: None).items())
    batches = (one for turn in turns for one in turn.replayed if isinstance(one, CleanDebris))
    return [place.key.path for batch in batches for place in batch.places]


def test_the_report_lists_what_is_left_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    path = recorded(tmp_path / "run.jsonl", ENFORCE)
    assert run(app, ["replay", str(path), "--report", str(target)], "containerd-reconciler") == 0
    (one,) = cast("list[list[object]]", data_of(target)["debris"])
    assert one[:3] == ["cgroup:/cgroup/ns/a", "debris", "due"]
    assert data_of(target)["debris_counts"] == "1 piece of debris: cgroup 1 due"


@pytest.mark.parametrize("policies", [ENFORCE, CLEAN], ids=["reports", "cleans"])
def test_a_run_replays_as_it_was_decided(tmp_path: Path, policies: Policies) -> None:
    result = replay(recorded(tmp_path / "run.jsonl", policies))
    assert result.differences == []
    assert result.warnings == []


def test_what_a_run_left_another_policy_would_have_removed_once(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run.jsonl", ENFORCE)
    assert sorted(removed(path, CLEAN)) == ["/cgroup/ns/a", "/cgroup/ns/b"]
    assert removed(path, ENFORCE) == []


def test_what_a_run_removed_another_policy_would_have_left(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run.jsonl", CLEAN)
    assert removed(path, ENFORCE) == []
    assert sorted(removed(path, CLEAN)) == ["/cgroup/ns/a", "/cgroup/ns/b"]
    slower = replace(CLEAN, default=replace(CLEAN.default, grace=1.5 * HOUR))
    assert set(removed(path, slower)) <= {"/cgroup/ns/a", "/cgroup/ns/b"}
