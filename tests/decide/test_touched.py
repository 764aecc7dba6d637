"""A word of the witnesses that cannot change a leftover does not have it judged again."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from reconciler.decide import bundles
from reconciler.decide.nodestate import NodeChange, NodeState, is_touched
from reconciler.decide.track import Track
from reconciler.model.evidence import Containerd, ContainerdState, ProcessScan
from reconciler.model.ids import BundleKey
from reconciler.model.observations import NodeLooked
from reconciler.testing.journals import JournalBuilder
from reconciler.testing.simulator import Manners
from tests.replay.stories import ENFORCE, Act, stories

OTHERS = 200


def test_the_same_word_again_is_no_news() -> None:
    state = NodeState()
    scan = ProcessScan(answered=True, cgroup_paths=frozenset({"/ns/a"}))
    assert state.receive(NodeLooked(1.0, scan, Containerd(ContainerdState.UP))).is_news
    assert not state.receive(NodeLooked(2.0, scan, Containerd(ContainerdState.UP))).is_news


def whoever_is_near(
    track: Track, change: NodeChange, _appointed: float | None, _now: float
) -> bool:
    return change.touches(track.key, track.first_seen)


def lines(path: Path, story: list[Act], ask: float) -> list[bytes]:
    with JournalBuilder(path, ENFORCE, Manners(ask)) as node:
        for act in story:
            act.play(node)
    return path.read_bytes().splitlines()[1:]


@settings(suppress_health_check=list(HealthCheck))
@given(story=stories)
@pytest.mark.parametrize("ask", [0.0, 0.3])
def test_whoever_is_left_out_would_have_come_out_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, story: list[Act], ask: float
) -> None:
    directory = tmp_path_factory.mktemp("touched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "is_touched", whoever_is_near)
        all_of_them = lines(directory / "all.jsonl", story, ask)
    assert lines(directory / "few.jsonl", story, ask) == all_of_them


@settings(suppress_health_check=list(HealthCheck))
@given(story=stories)
@pytest.mark.parametrize("ask", [0.0, 0.3])
def test_what_waits_for_nothing_would_have_been_placed_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, story: list[Act], ask: float
) -> None:
    directory = tmp_path_factory.mktemp("placed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "UNCONCERNED", frozenset())
        all_of_them = lines(directory / "all.jsonl", story, ask)
    assert lines(directory / "few.jsonl", story, ask) == all_of_them


def test_a_task_that_starts_does_not_have_hundreds_of_leftovers_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = dict.fromkeys((True, False), 0)

    def counted(track: Track, change: NodeChange, appointed: float | None, now: float) -> bool:
        said = is_touched(track, change, appointed, now)
        if change.touches(track.key, track.first_seen):
            asked[said] += 1
        return said

    dead = [f"k8s.io/dead-{n}" for n in range(OTHERS)]
    with JournalBuilder(tmp_path / "run.jsonl") as node:
        for name in dead:
            node.start(name)
        node.crash(*dead)
        node.wait("1m")
        monkeypatch.setattr(bundles, "is_touched", counted)
        node.start("k8s.io/new")
        node.wait("1s")
        verdicts = node.simulation.verdicts()
    assert verdicts[BundleKey("k8s.io", "new")].value == "running"
    assert asked[False] >= OTHERS
    assert asked[True] <= 10


@pytest.mark.safety
def test_what_was_judged_before_the_witnesses_spoke_of_it_is_judged_again_when_they_do(
    tmp_path: Path,
) -> None:
    # The helper is known before the bundle is: the word that speaks of both is no news.
    pod = BundleKey("k8s.io", "pod")
    with JournalBuilder(tmp_path / "run.jsonl") as node:
        node.lose_events()
        node.create("k8s.io/pod")
        node.receive_again()
        node.start("k8s.io/member", pod="pod")
        node.jump_clock("1h")
        assert pod not in node.simulation.verdicts()
        node.simulation.relist()
        assert node.simulation.verdicts()[pod].value == "in-transition"
