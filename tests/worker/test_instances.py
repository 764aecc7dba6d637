"""Who else has a name: other containerds of the node, as their living shims show them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.layout import SANDBOXES, TASKS, Layout
from reconciler.model.outcome import Result, StepResult
from reconciler.model.unread import UnreadProcess
from reconciler.probe.fresh import Fresh
from reconciler.worker import context
from reconciler.worker.instances import Instances
from reconciler.worker.inventory import take
from reconciler.worker.messages import Progress, WorkerScope
from tests.support.bundles import listen
from tests.support.inline import assert_cleaned, inline_worker, step
from tests.support.mountns import private_mounts
from tests.support.shims import living_shim


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's."""
    return tmp_path_factory.mktemp("d")


@contextmanager
def working_in(path: Path) -> Iterator[int]:
    """Have a process work in a directory, as a shim works in its bundle."""
    path.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=path) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.fault("runc's state of another tree's bundle")
@pytest.mark.safety
@private_mounts
def test_a_bundle_of_another_containerd_has_a_claim_to_the_name(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        tree = tmp_path / "other" / TASKS.decode()
        (tree / "default" / "member").mkdir(parents=True)
        with working_in(tree / "default" / "pod") as pid:
            scanned = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), pid),))
            found = Instances(made.layout, lambda _: scanned)
            user = found.user(BundleKey("default", "member"))
            assert user is not None
            assert str(pid) in user
            assert found.user(BundleKey("default", "pod")) is not None
            assert found.user_of_id("member") is not None
            assert found.user_of_id("pod") is not None
            assert found.user(BundleKey("other", "member")) is None
            assert found.user(BundleKey("default", "none")) is None
            assert found.user_of_id("none") is None


def _always(scanned: ProcessScan, _: bool) -> ProcessScan:
    return scanned


@pytest.mark.safety
@private_mounts
def test_no_answer_about_other_containerds_is_never_nobody(tmp_path: Path) -> None:
    """The pass over /proc may be another one than that of the second look."""
    with inline_worker(tmp_path) as (made, _):
        key, pod = BundleKey("default", "member"), BundleKey("default", "pod")
        tree = tmp_path / "other" / TASKS.decode()
        (tree / "default" / "member").mkdir(parents=True)
        with working_in(tree / "default" / "pod") as its, working_in(tmp_path / "out") as out:
            for scanned, why in (
                (ProcessScan(), "which shims run cannot be known"),
                (ProcessScan(True, unread=(UnreadProcess(7, key),)), "pid 7"),
                (ProcessScan(True, unread=(UnreadProcess(7),)), "pid 7"),
                (ProcessScan(True, unread=(UnreadProcess(its, pod),)), f"pid {its}"),
                (ProcessScan(True, shims=(ShimProcess(pod, out),)), f"pid {out}"),
            ):
                found = Instances(made.layout, partial(_always, scanned))
                for user in (
                    found.user(key),
                    found.user(key, even_going=True),
                    found.user_of_id(key.id),
                ):
                    assert user is not None, scanned
                    assert why in user
        other = ProcessScan(True, unread=(UnreadProcess(7, BundleKey("other", "member")),))
        found = Instances(made.layout, lambda _: other)
        assert found.user_of_id(key.id) is not None


@private_mounts
def test_a_shim_whose_bundle_was_removed_under_it_is_still_ours(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        place = Path(os.fsdecode(made.layout.tasks)) / "default" / "gone"
        with working_in(place) as pid:
            place.rmdir()
            scanned = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "gone"), pid),))
            found = Instances(made.layout, lambda _: scanned)
            assert found.user(BundleKey("default", "none")) is None
            assert found.user_of_id("none") is None


@pytest.mark.safety
@pytest.mark.parametrize("hidden", [True, False])
@private_mounts
def test_a_shim_whose_bundle_went_still_leads_to_the_tree_of_its_containerd(
    tmp_path: Path, hidden: bool
) -> None:
    """One leaked shim of another containerd must not keep all that is shared for ever."""
    with inline_worker(tmp_path) as (made, _):
        tree = tmp_path / "other" / TASKS.decode()
        place = tree / "default" / "gone"
        with working_in(place) as pid:
            place = place.rename(place.with_name(".gone"))
            if not hidden:
                place.rmdir()
            (tree / "default" / "lives").mkdir()
            scanned = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "gone"), pid),))
            found = Instances(made.layout, partial(_always, scanned))
            assert found.user(BundleKey("default", "none")) is None
            assert found.user_of_id("lives") is not None


@pytest.mark.fault("I5")
@pytest.mark.safety
@private_mounts
def test_shared_names_stay_if_who_runs_cannot_be_told_any_more(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle("c1", fifos=True)
        began, place = inline.began.append, inline.place

        def forget(progress: Progress) -> None:
            began(progress.began)
            if progress.began == "rootfs":
                place._scan = place._everybody = Fresh(place.clock, lambda _: ProcessScan(), 1.0)

        place.note = forget
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome
        for name in ("cgroup", "fifo"):
            done = step(outcome, name)
            assert (done.result, done.mutations) == (StepResult.WARNING, 0), done
            assert "which shims run cannot be known" in done.detail
        assert all(group.exists() for group in bundle.cgroups)
        assert bundle.fifos.exists()


@private_mounts
def test_a_shim_that_ends_leads_to_nothing_and_is_looked_for_again(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        with working_in(tmp_path / "other" / TASKS.decode() / "default" / "pod") as pid:
            scanned = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), pid),))
            stays = Instances(made.layout, lambda _: scanned)
            ended = Instances(made.layout, lambda anew: ProcessScan(True) if anew else scanned)
            for found in (stays, ended):
                assert found.user_of_id("none") is None
        assert ended.user_of_id("none") is None
        # It is said to run and leads nowhere: no answer, which is not a no.
        assert stays.user_of_id("none") is not None


@pytest.mark.safety
def test_whoever_was_started_since_the_last_pass_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = BundleKey("default", "web")
    passes = [ProcessScan(True), ProcessScan(True, shims=(ShimProcess(key, 4711),))]

    def one_pass(**_: object) -> ProcessScan:
        return passes.pop(0)

    monkeypatch.setattr(context, "scan", one_pass)
    place = context.WorkerContext(
        WorkerScope(Layout()), SystemClock(), lambda _: None, lambda: None, lambda: False
    )
    assert place.scan().shims == ()
    assert place.scan().shims == ()
    subprocess.run(["true"], check=True)
    assert place.instances.user(key) is not None


@pytest.mark.safety
@private_mounts
def test_a_living_sandbox_of_our_own_is_nobodys_debris_and_hides_no_answer(short: Path) -> None:
    """With `sandboxer = "shim"` a pod's shim works in a tree of its own, and has no child."""
    with inline_worker(short) as (made, inline):
        sandbox = made.run / SANDBOXES.decode() / "k8s.io" / "pod"
        sandbox.mkdir(parents=True)
        (sandbox.parent / "stopped").mkdir()
        sockets = Path(os.fsdecode(made.layout.sockets))
        listen(sockets / ("ab" * 32)).close()
        listens = Path(os.fsdecode(made.layout.shim_socket("k8s.io", "pod")))
        work = Path(os.fsdecode(made.layout.work)) / "k8s.io"
        for name in ("pod", "stopped", "gone"):
            (work / name).mkdir(parents=True)
        with living_shim(sandbox, listens, os.fsdecode(made.layout.address)):
            taken = take(inline.place)
            assert all(one.owned is Answer.NO for one in taken.places)
            found = {Path(one.key.path).name for one in taken.places}
            assert found == {"ab" * 32, "gone"}
            user = inline.place.instances.user
            assert user(BundleKey("k8s.io", "pod")) is not None
            assert user(BundleKey("k8s.io", "stopped")) is not None
            assert inline.place.instances.user_of_id("stopped") is not None
            assert user(BundleKey("k8s.io", "gone")) is None
            bundle = made.bundle("dead")
            assert_cleaned(inline.clean(bundle), bundle)


@pytest.mark.safety
@private_mounts
def test_a_shim_in_another_containerds_sandbox_leaves_no_answer(short: Path) -> None:
    with inline_worker(short) as (made, inline):
        sandbox = short / "other" / SANDBOXES.decode() / "k8s.io" / "pod"
        sandbox.mkdir(parents=True)
        listens = Path(os.fsdecode(made.layout.sockets)) / "of-the-other"
        with living_shim(sandbox, listens, "/run/other.sock") as shim:
            why = inline.place.instances.user(BundleKey("k8s.io", "gone"))
            assert why is not None
            assert f"pid {shim.pid} " in why
