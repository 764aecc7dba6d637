"""Who else has a name: other containerds of the node, as their living shims show them."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.clock import SystemClock
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.layout import SANDBOXES, TASKS, Layout
from reconciler.model.outcome import Result, StepResult
from reconciler.model.processes import UnreadProcess
from reconciler.probe import ending
from reconciler.probe.ttl_cache import TTLCache
from reconciler.worker import context
from reconciler.worker.instances import Instances
from reconciler.worker.inventory import take
from reconciler.worker.messages import Progress, WorkerScope
from tests.support.bundles import listen
from tests.support.children import UNTIL_TOLD, wait_for_its_first_thread_to_end
from tests.support.inline import assert_cleaned, inline_worker, step
from tests.support.mountns import private_mounts
from tests.support.shims import living_shim, working_in


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's."""
    return tmp_path_factory.mktemp("d")


@pytest.mark.safety
@private_mounts
def test_that_nobody_has_a_name_holds_for_one_pass_and_that_name_alone(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        one, other = BundleKey("default", "one"), BundleKey("default", "other")
        tree = tmp_path / "another" / TASKS.decode()
        with working_in(tree / "default" / "web") as pid:
            passes = [ProcessScan(True, shims=(ShimProcess(other, pid),))]
            found = Instances(made.layout, lambda _: passes[-1])
            assert [bool(found.user(key)) for key in (one, one, other)] == [False, False, True]
            (tree / "default" / "one").mkdir()
            assert found.user(one), "its tree is asked again, though the pass is the same"
            (tree / "default" / "one").rmdir()
            assert found.user(one) is None
            passes.append(ProcessScan(True, shims=(ShimProcess(one, pid),)))
            assert found.user(one) == "a shim of default/one is running"


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
                (ProcessScan(True, unread=(UnreadProcess(out, key),)), f"pid {out}"),
                (ProcessScan(True, unread=(UnreadProcess(out),)), f"pid {out}"),
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
                    assert type(user) is str, "the encoder of messages takes no other"
        other = (UnreadProcess(os.getpid(), BundleKey("other", "member")),)
        found = Instances(made.layout, lambda _: ProcessScan(True, unread=other))
        assert found.user_of_id(key.id) is not None


@pytest.mark.parametrize("home", [TASKS, SANDBOXES])
@private_mounts
def test_a_shim_whose_bundle_was_removed_under_it_is_still_ours(
    tmp_path: Path, home: bytes
) -> None:
    with inline_worker(tmp_path) as (made, _):
        place = Path(os.fsdecode(made.layout.state + b"/" + home)) / "default" / "gone"
        (Path(os.fsdecode(made.layout.tasks)) / "default" / "ours").mkdir(parents=True)
        with working_in(place) as pid:
            place.rmdir()
            scanned = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "gone"), pid),))
            found = Instances(made.layout, lambda _: scanned)
            for name in ("none", "ours"):
                assert found.user(BundleKey("default", name)) is None
                assert found.user_of_id(name) is None


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
                place._scan = place._everybody = TTLCache(place.clock, lambda _: ProcessScan(), 1.0)

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
        for found in (stays, ended):
            assert found.user_of_id("none") is None


def zombies(tree: Path, *ids: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give processes that work in bundles; each is dead, and a zombie, once it is killed."""
    for id_ in ids:
        (tree / "default" / id_).mkdir(parents=True)
        yield subprocess.Popen(["sleep", "60"], cwd=tree / "default" / id_)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and leave the zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def shims_of(processes: Iterable["subprocess.Popen[bytes]"]) -> tuple[ShimProcess, ...]:
    return tuple(
        ShimProcess(BundleKey("default", f"pod{number}"), process.pid)
        for number, process in enumerate(processes)
    )


@private_mounts
def test_shims_that_end_one_after_the_other_leave_an_answer(tmp_path: Path) -> None:
    """On a busy node one ends before each pass is looked at: they are of no containerd any more."""
    with inline_worker(tmp_path) as (made, _), ExitStack() as started:
        them = list[subprocess.Popen[bytes]]()
        for number in range(8):
            tree = tmp_path / f"other{number}" / TASKS.decode()
            for one in zombies(tree, f"pod{number}"):
                them.append(started.enter_context(one))
                started.callback(one.kill)
        left, found = iter(them), ProcessScan(True, shims=shims_of(them))

        def scan(_: bool) -> ProcessScan:
            for one in islice(left, 1):
                end(one)
            return replace(found)

        instances = Instances(made.layout, scan)
        assert instances.user(BundleKey("default", "none")) is None
        assert list(left) == []
        assert instances.user_of_id("none") is None
        for key in (shim.key for shim in found.shims):
            assert instances.user(key) is None
            assert instances.runner(key) is None


@pytest.mark.safety
@private_mounts
def test_who_came_while_a_shim_ended_is_looked_for(tmp_path: Path) -> None:
    """Its containerd may have started another one, which leads to the same tree."""
    tree = tmp_path / "other" / TASKS.decode()
    with inline_worker(tmp_path) as (made, _), ExitStack() as started:
        one, other = (started.enter_context(each) for each in zombies(tree, "pod0", "pod1"))
        started.callback(other.kill)
        shims = shims_of((one, other))
        passes: list[bool] = []

        def scan(anew: bool) -> ProcessScan:
            passes.append(anew)
            return ProcessScan(True, shims=shims[: len(passes)])

        end(one)
        user = Instances(made.layout, scan).user(BundleKey("default", "pod0"))
        assert user is not None
        assert f"pid {other.pid}" in user
        assert passes == [False, False], "whoever came is enough: no whole pass is needed"


@pytest.mark.safety
@pytest.mark.parametrize("ends", [False, True])
@private_mounts
def test_one_that_is_on_its_way_out_is_waited_for_and_counts_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Its first thread has left its directory already; another one lives on, or ends at last."""
    monkeypatch.setattr(ending, "PATIENCE", 20.0 if ends else 0.01)
    place = tmp_path / "other" / TASKS.decode() / "default" / "pod"
    place.mkdir(parents=True)
    with (
        inline_worker(tmp_path) as (made, _),
        subprocess.Popen(
            [sys.executable, "-c", UNTIL_TOLD], cwd=place, stdin=subprocess.PIPE
        ) as shim,
    ):
        wait_for_its_first_thread_to_end(shim.pid)
        found = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), shim.pid),))

        def scan(_: bool) -> ProcessScan:
            if ends and shim.stdin is not None:
                shim.stdin.close()
            return found

        instances = Instances(made.layout, scan)
        for name in ("pod", "none"):
            assert (instances.user(BundleKey("default", name)) is None) == ends
        assert (instances.runner(BundleKey("default", "pod")) is None) == ends
        with instances.others(found) as (trees, why):
            assert (trees, bool(why)) == ([], not ends)


@private_mounts
def test_a_helper_that_ends_keeps_nothing(tmp_path: Path) -> None:
    key = BundleKey("default", "pod")
    with inline_worker(tmp_path) as (made, _):
        passed = ProcessScan(True, helpers=frozenset({key}))
        ended = Instances(made.layout, lambda anew: ProcessScan(True) if anew else passed)
        works = Instances(made.layout, lambda _: passed)
        for found in (ended, works):
            is_free = found is ended
            assert (found.runner(key) is None) == is_free
            assert (found.user(key) is None) == is_free
            assert (found.user_of_id(key.id) is None) == is_free


@pytest.mark.safety
@private_mounts
def test_a_tree_is_held_while_it_is_read_whoever_ends_meanwhile(tmp_path: Path) -> None:
    tree = tmp_path / "other" / TASKS.decode()
    with inline_worker(tmp_path) as (made, _):
        before = os.listdir("/proc/self/fd")
        (process,) = zombies(tree, "pod0")
        with process:
            found = ProcessScan(True, shims=shims_of([process]))
            with Instances(made.layout, lambda _: found).others(found) as (trees, why):
                end(process)
                assert why == ""
                assert [os.listdir(path + b"/default") for path in trees] == [[b"pod0"]]
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.safety
def test_whoever_was_started_since_the_last_pass_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = BundleKey("default", "web")
    nobody, shown = ProcessScan(True), ProcessScan(True, shims=(ShimProcess(key, os.getpid()),))

    def since(before: ProcessScan, came: range, **_: object) -> ProcessScan:
        return shown if before is nobody and came else before

    monkeypatch.setattr(context, "scan", lambda **_: nobody)
    monkeypatch.setattr(context, "scan_since", since)
    monkeypatch.setattr(context, "FEW_PIDS", 1 << 15)
    place = context.WorkerContext(
        WorkerScope(Layout()), SystemClock(), lambda _: None, lambda: None, lambda: False
    )
    assert place.scan() is place.scan() is nobody
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
def test_a_shim_in_another_containerds_sandbox_leads_to_that_ones_trees(tmp_path: Path) -> None:
    sandbox = BundleKey("k8s.io", "pod")
    with inline_worker(tmp_path) as (made, _):
        state = tmp_path / "other"
        place = state / SANDBOXES.decode() / "k8s.io" / "pod"
        with working_in(place) as pid, working_in(tmp_path / "elsewhere") as out:
            only = ProcessScan(True, shims=(ShimProcess(sandbox, pid),))
            instances = Instances(made.layout, lambda _: replace(only))
            for known in ({"pod"}, {"pod", "member"}):
                if "member" in known:
                    (state / TASKS.decode() / "k8s.io" / "member").mkdir(parents=True)
                for id_ in ("pod", "member", "gone"):
                    key = BundleKey("k8s.io", id_)
                    assert (instances.user(key) is not None) == (id_ in known), id_
                    assert (instances.user_of_id(id_) is not None) == (id_ in known), id_
            with instances.others(only) as (trees, why):
                assert why == ""
                listed = [os.listdir(path + b"/k8s.io") for path in trees]
                assert listed == [[b"pod"], [b"member"]]
            lost = ProcessScan(True, shims=(ShimProcess(sandbox, out),))
            why = Instances(made.layout, lambda _: lost).user(BundleKey("k8s.io", "gone")) or ""
            assert f"pid {out} " in why
