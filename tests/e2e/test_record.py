"""A recorded run on a real containerd decides again what it decided, every time.

With RECONCILER_KEEP_JOURNALS=DIRECTORY the journals of the small cases are kept there: that is
where those in tests/replay/journals come from.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.testing.journals import Replayed, replay
from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import kill_all, until
from tests.e2e.task import Task
from tests.replay.tidy import tidy

pytestmark = [pytest.mark.containerd, pytest.mark.timeout(900)]

ENFORCE = ("--enforce", "--grace", "1s", "--threshold", "0s")
INTERRUPTED = 130
KEEP = os.environ.get("RECONCILER_KEEP_JOURNALS")


def kept(node: Node, journal: Path, name: str) -> None:
    """Keep a journal for the regressions, without whatever else this machine does."""
    if KEEP:
        tidy(journal, Path(KEEP, f"{name}.jsonl"), node.namespace)


def alike(journal: Path, times: int = 1) -> Replayed:
    """Replay a journal so many times; every time it must decide what it decided then."""
    results = [replay(journal) for _ in range(times)]
    for result in results:
        assert result.differences == []
        assert result.warnings == []
        assert result.summaries == results[0].summaries
    return results[0]


def gone(node: Node, tasks: list[Task], seconds: float = 120.0) -> None:
    until(
        lambda: not any(node.bundle(task.id).exists() for task in tasks), "they are gone", seconds
    )


# ------------------------------------------------------------------------------ long sessions


def session(node: Node, size: int) -> None:
    """Create so many tasks; of each three one crashes alone, one is deleted, one is lost."""
    with ThreadPoolExecutor(4) as clients:
        tasks = list(clients.map(node.run, [f"task-{n}" for n in range(size)]))
        crashed, deleted, lost = tasks[::3], tasks[1::3], tasks[2::3]
        node.containerd.kill()
        kill_all({one for task in crashed for one in (task.shim, task.init)})
        gone(node, crashed)
        node.containerd.start()
        list(clients.map(lambda task: node.ctr("tasks", "rm", "-f", task.id), deleted))
        kill_all({one for task in lost for one in (task.shim, task.init)})
        gone(node, [*deleted, *lost])


@pytest.mark.parametrize("size", [60, pytest.param(201, marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["inotify", "watchfiles"])
def test_a_long_session_replays_alike_ten_times_of_ten(
    node: Node, tmp_path: Path, backend: str, size: int
) -> None:
    journal = tmp_path / "session.jsonl"
    recording = ("--backend", backend, "--record", journal)
    with product.watching(node, *ENFORCE, *recording) as watching:
        watching.wait_ready("up")
        session(node, size)
        watching.wait_quiet(2.0)
        assert watching.stop() == INTERRUPTED
    result = alike(journal, times=10)
    met = {told.id for told in result.summaries if told.action == "judge"}
    assert {f"task-{n}" for n in range(size)} <= met
    assert {f"{node.namespace}/task-{n}" for n in range(0, size, 3)} <= result.cleaned.keys()
    told = {told.action for told in result.summaries}
    assert {"judge", "clean", "vanish", "die"} <= told
    kept(node, journal, f"session-{backend}")


# ------------------------------------------------------------------------------ small cases


def test_the_seed_case_is_recorded_and_replays(node: Node, tmp_path: Path) -> None:
    """`runtime`, `init.pid` and `options.json` gone: what containerd 1.6 and 1.7 leave for ever."""
    if node.containerd.version >= (2, 1):
        pytest.skip("containerd 2.1 takes it away itself when it starts")
    journal = tmp_path / "seed.jsonl"
    keeper, seed = node.run("keeper"), node.run("seed")
    with product.watching(node, *ENFORCE, "--record", journal) as watching:
        watching.wait_for("bundle.judged", seed, verdict="running")
        node.crash(seed)
        node.lose(seed, "runtime", "init.pid", "options.json")
        node.containerd.start()
        watching.wait_for("bundle.cleaned", seed)
        assert watching.stop() == INTERRUPTED
    result = alike(journal)
    assert list(result.cleaned) == [seed.name]
    assert result.verdicts[keeper.name].value == "running"
    kept(node, journal, "containerd-seed")


def test_what_moby_50040_left_is_recorded_and_replays(node: Node, tmp_path: Path) -> None:
    journal = tmp_path / "moby.jsonl"
    keeper, half = node.run("keeper"), node.run("half")
    with product.watching(node, *ENFORCE, "--record", journal) as watching:
        watching.wait_for("bundle.judged", half, verdict="running")
        node.crash(half)
        node.lose(half, "init.pid", "options.json", "runtime", "log.json")
        watching.wait_for("bundle.cleaned", half)
        assert watching.stop() == INTERRUPTED
    result = alike(journal)
    assert list(result.cleaned) == [half.name]
    assert result.verdicts[keeper.name].value == "running"
    kept(node, journal, "containerd-moby-50040")


def test_a_pod_with_one_shim_is_recorded_and_replays(node: Node, tmp_path: Path) -> None:
    journal = tmp_path / "pod.jsonl"
    keeper, pod = node.run("keeper"), node.run("pod", pod="pod")
    member, ended = node.run("member", pod="pod"), node.stopped("ended", pod="pod")
    with product.watching(node, *ENFORCE, "--record", journal) as watching:
        watching.wait_for("bundle.judged", member, verdict="running")
        watching.wait_for("bundle.judged", ended, verdict="stopped")
        watching.wait_quiet(3.0)  # a stopped member is nobody's leftover, however long it lasts
        assert node.bundle("ended").is_dir()
        node.containerd.kill()
        kill_all([pod.shim, pod.init, member.init])
        for task in (pod, member, ended):
            watching.wait_for("bundle.cleaned", task)
        assert watching.stop() == INTERRUPTED
    result = alike(journal)
    assert result.cleaned.keys() == {pod.name, member.name, ended.name}
    assert result.verdicts[keeper.name].value == "running"
    kept(node, journal, "containerd-shared-shim")


def test_mass_death_is_held_recorded_and_replays(node: Node, tmp_path: Path) -> None:
    journal = tmp_path / "mass.jsonl"
    tasks = node.run_all(f"task-{n}" for n in range(12))
    with product.watching(node, *ENFORCE, "--record", journal) as watching:
        for task in tasks:
            watching.wait_for("bundle.judged", task, verdict="running")
        node.containerd.kill()
        kill_all({one for task in tasks[:11] for one in (task.shim, task.init)})
        for task in tasks[:11]:
            watching.wait_for("bundle.judged", task, verdict="leftover")
        watching.wait_quiet(2.0)
        assert watching.stop() == INTERRUPTED
    result = alike(journal)
    assert result.cleaned == {}, "most of what lived is dead at once: held"
    assert [told.reason for told in result.summaries if told.action == "brake"][-1].startswith(
        "mass"
    )
    kept(node, journal, "containerd-mass-death")


def test_a_snapshot_is_one_file_and_says_what_scan_says(node: Node, tmp_path: Path) -> None:
    keeper, dead = node.run("keeper"), node.run("dead")
    node.crash(dead)
    told = product.scan(node)
    ran = product.run(node, *product.words(node, "scan", "-o", "journal"))
    assert ran.code == 0
    journal = tmp_path / "snapshot.jsonl"
    journal.write_text(ran.out)
    verdicts = {name: verdict.value for name, verdict in alike(journal).verdicts.items()}
    assert verdicts == {
        f"{row['namespace']}/{row['id']}": row["verdict"] for row in told["bundles"]
    }
    assert verdicts == {keeper.name: "running", dead.name: "leftover"}
    ran = product.run(node, *product.words(node, "scan", "-o", "journal", "--redact"))
    journal.write_text(ran.out)
    assert sorted(v.value for v in alike(journal).verdicts.values()) == ["leftover", "running"]
    assert node.namespace not in ran.out
    assert json.loads(ran.out.splitlines()[0])["redacted"] is True


def test_record_removes_nothing_whatever_the_configuration_says(node: Node, tmp_path: Path) -> None:
    keeper, dead = node.run("keeper"), node.run("dead")
    node.crash(dead)
    config, journal = tmp_path / "config.toml", tmp_path / "run.jsonl"
    config.write_text('mode = "enforce"\n[cleanup]\ngrace = "0s"\n')
    words = product.words(node, "record", str(journal), "--once", "--config", str(config))
    ran = product.run(node, *words)
    assert ran.code == 0, ran
    assert node.bundle("dead").is_dir()
    result = alike(journal)
    assert result.cleaned == {}
    assert result.verdicts[keeper.name].value == "running"
