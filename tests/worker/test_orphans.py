"""Ending an orphaned workload: only its own processes, only after the grace, nothing removed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from reconciler.model.evidence import Kind, Look, ProcessScan
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.processes import UnreadProcess
from reconciler.worker import freezer, orphans, ownership
from reconciler.worker.instances import Instances
from reconciler.worker.messages import KillJob
from reconciler.worker.orphans import end_orphan
from reconciler.worker.second_look import NotLeftover
from reconciler.worker.step_log import Tally
from tests.support.bundles import Bundle
from tests.support.cgroups import join
from tests.support.inline import InlineWorker, assert_blocked, inline_worker, step
from tests.support.mountns import private_mounts


@contextmanager
def workload(*groups: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in cgroups; ended by pidfd whatever happens."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        join(child.pid, groups)
        yield child
    finally:
        child.kill()
        child.wait()


def end(inline: InlineWorker, bundle: Bundle) -> Outcome:
    job = KillJob(bundle.key, bundle.identity, inline.containerd)
    return end_orphan(inline.place, job)


def name_init(bundle: Bundle, pid: int) -> None:
    """Say in runc's state and in init.pid that this process is init."""
    (bundle.path / "init.pid").write_text(str(pid))
    state = json.loads((bundle.runc_state / "state.json").read_text())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    state |= {"init_process_pid": pid, "init_process_start": int(fields[19])}
    (bundle.runc_state / "state.json").write_text(json.dumps(state))


@private_mounts
def test_init_and_everybody_in_its_cgroups_are_ended_and_nothing_is_removed(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        groups = bundle.cgroups
        with workload(*groups) as init, workload(*groups) as other, workload() as stranger:
            name_init(bundle, init.pid)
            left = bundle.left()
            outcome = end(inline, bundle)
            assert outcome.result is Result.KILLED, outcome
            assert init.wait(5) == other.wait(5) == -signal.SIGKILL
            assert stranger.poll() is None
            assert bundle.left() == left
            assert bundle.mounts()


@private_mounts
def test_what_is_no_orphan_any_more_is_left_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        with workload() as stranger:
            outcome = end(inline, bundle)
            assert outcome.result is Result.SKIPPED
            assert stranger.poll() is None


@pytest.mark.fault("I14", "I15")
@private_mounts
def test_a_bundle_that_points_at_another_ones_cgroup_ends_nobody(tmp_path: Path) -> None:
    """config.json is not to be trusted with whom to kill."""
    with inline_worker(tmp_path) as (site, inline):
        bundle, victim = site.bundle("liar"), site.bundle("victim")
        with workload(*victim.cgroups) as innocent:
            spec = json.loads((bundle.path / "config.json").read_text())
            spec["linux"]["cgroupsPath"] = site._cgroup_path(victim)
            (bundle.path / "config.json").write_text(json.dumps(spec))
            state = json.loads((bundle.runc_state / "state.json").read_text())
            state["cgroup_paths"] = {g.parts[4]: str(g) for g in victim.cgroups}
            (bundle.runc_state / "state.json").write_text(json.dumps(state))
            outcome = end(inline, bundle)
            assert innocent.poll() is None
            assert sum(step.mutations for step in outcome.steps) == 0


@pytest.mark.safety
@private_mounts
def test_nobody_is_ended_in_a_cgroup_that_a_sandbox_in_the_other_tree_claims(
    tmp_path: Path,
) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        pod = Path(os.fsdecode(site.layout.bundle(BundleKey(bundle.key.namespace, "pod").sandbox)))
        pod.mkdir(parents=True)
        spec = {"linux": {"cgroupsPath": site._cgroup_path(bundle)}}
        (pod / "config.json").write_text(json.dumps(spec))
        with workload(*bundle.cgroups) as process:
            name_init(bundle, process.pid)
            assert_blocked(end(inline, bundle), BlockReason.CGROUP)
            assert process.poll() is None
            (pod / "config.json").write_text("{}")
            assert end(inline, bundle).result is Result.KILLED


def _always(scanned: ProcessScan, _: bool) -> ProcessScan:
    return scanned


@pytest.mark.fault("I5", "I15")
@pytest.mark.safety
@private_mounts
def test_nobody_is_ended_if_who_else_has_the_name_cannot_be_told(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        with workload(*bundle.cgroups) as process:
            name_init(bundle, process.pid)
            for scanned in (ProcessScan(), ProcessScan(True, unread=(UnreadProcess(os.getpid()),))):
                inline.place.instances = Instances(site.layout, partial(_always, scanned))
                outcome = end(inline, bundle)
                assert_blocked(outcome, BlockReason.CGROUP)
                assert "cannot be known" in outcome.detail
                assert process.poll() is None


@private_mounts
def test_a_parent_that_ends_while_it_is_asked_leaves_its_children_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, missed = ownership._Descent._ask, list[int]()

    def ask(descent: ownership._Descent, pid: int) -> tuple[int, int, bool] | None:
        if pid == os.getpid() and not missed:
            missed.append(pid)
            return None
        return real(descent, pid)

    monkeypatch.setattr(ownership._Descent, "_ask", ask)
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        with workload(*bundle.cgroups) as init:
            name_init(bundle, init.pid)
            outcome = end(inline, bundle)
            assert outcome.result is Result.KILLED, outcome
            assert missed


@pytest.mark.fault("I15", "I22")
@pytest.mark.safety
@private_mounts
def test_nobody_was_ended_if_the_bundle_went_first(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        tree = Path(os.fsdecode(site.layout.tasks))
        with workload(*bundle.cgroups) as process:
            name_init(bundle, process.pid)

            def go(_: bool) -> ProcessScan:
                if tree.exists():
                    tree.rename(tree.with_name("gone"))
                return ProcessScan(True)

            inline.place.instances = Instances(site.layout, go)
            try:
                outcome = end(inline, bundle)
            finally:
                tree.with_name("gone").rename(tree)
            assert (outcome.result, outcome.detail) == (Result.SKIPPED, "it is gone"), outcome
            assert process.poll() is None


@private_mounts
def test_nobody_was_ended_by_a_thaw(tmp_path: Path) -> None:
    """Whoever was frozen may end by himself the moment he is thawed."""

    def thaw(_: object, tally: Tally) -> None:
        tally.add()

    with (
        inline_worker(tmp_path) as (site, inline),
        mock.patch.object(orphans._Ending, "look", return_value=""),
        mock.patch.object(orphans._Ending, "_pin", side_effect=[{7: 7}, {}]),
        mock.patch.object(orphans._Ending, "_prove", return_value=((), [])),
        mock.patch.object(freezer, "thaw", thaw),
    ):
        outcome = end(inline, site.bundle())
        assert outcome.result is Result.SKIPPED, outcome


@private_mounts
def test_who_was_ended_is_told_although_the_rest_is_no_orphan_any_more(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle, pin = site.bundle(), orphans._Ending._pin
        for look, result in (
            (Look(bundle.identity, Kind.DIRECTORY), Result.BLOCKED),
            (None, Result.KILLED),
        ):
            with workload(*bundle.cgroups) as process:
                name_init(bundle, process.pid)
                first = iter((True,))

                def next_round(
                    ending: orphans._Ending,
                    handles: ExitStack,
                    first: Iterator[bool] = first,
                    look: Look | None = look,
                ) -> dict[int, int]:
                    if next(first, False):
                        return pin(ending, handles)
                    raise NotLeftover("it lives again", look)

                with mock.patch.object(orphans._Ending, "_pin", next_round):
                    outcome = end(inline, bundle)
                assert outcome.result is result, outcome
                kill = step(outcome, "kill")
                assert kill.mutations == 1
                assert "1 processes killed" in kill.detail


@private_mounts
def test_whoever_ends_by_himself_before_the_signal_is_ended_by_nobody(tmp_path: Path) -> None:
    """With the init of a pid namespace all others end, too, between one signal and the next."""
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        with workload(*bundle.cgroups) as init, workload(*bundle.cgroups) as other:
            name_init(bundle, init.pid)

            def thaw(_: object, tally: Tally) -> None:
                if init.poll() is None:
                    init.kill()
                    init.wait()

            with mock.patch.object(freezer, "thaw", thaw):
                outcome = end(inline, bundle)
            assert outcome.result is Result.KILLED, outcome
            assert step(outcome, "kill").mutations == 1
            assert other.wait(5) == -signal.SIGKILL


@pytest.mark.fault("I15", "init.pid of a reused PID")
@private_mounts
def test_a_reused_pid_is_nobodys_init(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (site, inline):
        bundle = site.bundle()
        with workload() as stranger:
            (bundle.path / "init.pid").write_text(str(stranger.pid))
            outcome = end(inline, bundle)
            assert outcome.result is Result.SKIPPED
            assert stranger.poll() is None
            assert os.path.exists(bundle.path)
