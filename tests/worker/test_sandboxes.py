"""Bundles in the tree of sandboxes: what is removed of a dead one, and that nothing else is."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.model.evidence import Containerd, ContainerdState, RuntimeState
from reconciler.model.ids import NOWHERE, BundleKey
from reconciler.model.labels import Known
from reconciler.model.layout import SANDBOXES
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Match, Policy, Rule
from reconciler.probe.bundle import examine
from reconciler.probe.tree import TreeInspector
from reconciler.worker import steps
from reconciler.worker.abandoned import end_abandoned
from reconciler.worker.inventory import take
from reconciler.worker.messages import CleanJob, CleanupOptions, EndShimJob, FinishJob
from tests.support import canary, mountns
from tests.support.bundles import LONG_AGO, Bundle, Site, identify, listen
from tests.support.inline import InlineWorker, inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import living_shim

pytestmark = pytest.mark.safety

NS = "default"


class Sandbox:
    """A dead sandbox's bundle, as containerd 2.1 and a shim leave one, an hour ago."""

    def __init__(self, made: Site, id_: str, *, shim: str = "containerd-shim-runc-v2") -> None:
        self.made = made
        self.key = BundleKey(NS, id_).sandbox
        self.path = Path(os.fsdecode(made.layout.bundle(self.key)))
        self.work = Path(os.fsdecode(made.layout.work_of(self.key))) / NS / id_
        self.socket = Path(os.fsdecode(made.layout.shim_socket(NS, id_)) + "-sandbox")
        for path in (self.path / "rootfs", self.work):
            path.mkdir(parents=True)
        (self.path / "work").symlink_to(self.work)
        if shim:
            listen(self.socket).close()
            where = {"version": 3, "address": f"unix://{self.socket}", "protocol": "ttrpc"}
            (self.path / "bootstrap.json").write_text(json.dumps(where))
            (self.path / "shim-binary-path").write_text(f"/usr/bin/{shim}")
            (self.path / "config.json").write_text('{"ociVersion": "1.0.0"}')
            os.mkfifo(self.path / "log")
        for path in (self.path, *self.path.iterdir(), self.work):
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)

    def left(self) -> list[Path]:
        return [one for one in (self.path, self.work, self.socket) if os.path.lexists(one)]


def clean(inline: InlineWorker, key: BundleKey, path: Path, *, kept: bool = False) -> Outcome:
    word = frozenset({key})
    said = Containerd(
        ContainerdState.UP,
        recorded=word if kept else frozenset(),
        unrecorded=frozenset() if kept else word,
    )
    return steps.clean(inline.place, CleanJob(key, identify(path), said, inline.options))


@contextmanager
def dead(base: Path, id_: str = "pod") -> Iterator[tuple[Sandbox, InlineWorker]]:
    with inline_worker(base) as (made, inline):
        yield Sandbox(made, made.unique(id_)), inline


@private_mounts
def test_a_dead_one_goes_with_its_socket_and_its_work_directory(tmp_path: Path) -> None:
    with dead(tmp_path) as (pod, inline):
        outcome = clean(inline, pod.key, pod.path)
        assert outcome.result is Result.CLEANED, outcome
        assert pod.left() == []
        order = "guards unmount rootfs shim-socket work-dir bundle"
        assert [one.step for one in outcome.steps] == order.split()
        assert [one.step for one in outcome.steps if one.result.value == "warning"] == []


@private_mounts
def test_one_that_was_never_started_goes_as_well(tmp_path: Path) -> None:
    """A pod on the host's network ends containerd 2.1 right here (containerd issue 12983)."""
    with inline_worker(tmp_path) as (made, inline):
        pod = Sandbox(made, made.unique("pod"), shim="")
        assert clean(inline, pod.key, pod.path).result is Result.CLEANED
        assert pod.left() == []


@pytest.mark.parametrize("kept", ["containerd", "not asked", "alien", "lost its name", "member"])
@private_mounts
def test_one_that_may_be_needed_stays_untouched(tmp_path: Path, kept: str) -> None:
    with inline_worker(tmp_path) as (made, inline):
        alien = "containerd-shim-kata-v2" if kept == "alien" else "containerd-shim-runc-v2"
        pod = Sandbox(made, made.unique("pod"), shim=alien)
        if kept == "lost its name":
            (pod.path / "shim-binary-path").unlink()
        if kept == "member":
            made.bundle("member", annotations={"io.kubernetes.cri.sandbox-id": pod.key.id})
        left = pod.left()
        if kept == "not asked":
            said = Containerd(ContainerdState.UP)
            job = CleanJob(pod.key, identify(pod.path), said, inline.options)
            outcome = steps.clean(inline.place, job)
        else:
            outcome = clean(inline, pod.key, pod.path, kept=kept == "containerd")
        assert outcome.result is Result.SKIPPED, outcome
        assert pod.left() == left


@private_mounts
def test_a_living_shim_at_its_socket_keeps_it(tmp_path: Path) -> None:
    with dead(tmp_path) as (pod, inline):
        pod.socket.unlink()
        with listen(pod.socket):
            outcome = clean(inline, pod.key, pod.path)
        assert outcome.result is Result.SKIPPED
        assert "running" in outcome.detail


@private_mounts
def test_the_same_id_in_the_other_tree_is_not_touched_either_way(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        task = made.bundle("same", fifos=True)
        pod = Sandbox(made, task.key.id)
        # A task of that name that somebody may need: it may be of the pod, so the pod stays.
        assert clean(inline, pod.key, pod.path).result is Result.SKIPPED
        everything = task.left()
        assert pod.left()
        # The other way round: the task is dead, and what is the sandbox's stays, whole.
        before = pod.left()
        # What is named by the id alone may be the sandbox's, and is kept with a warning.
        assert inline.clean(task).result is Result.CLEANED
        assert set(task.left()) < set(everything)
        assert not task.path.exists()
        assert pod.left() == before
        assert clean(inline, pod.key, pod.path).result is Result.CLEANED
        assert pod.left() == []


@private_mounts
def test_what_is_named_by_the_id_alone_stays_for_the_inventory(tmp_path: Path) -> None:
    """runc's state and cgroups of that name are a task's, which containerd may know of."""
    with inline_worker(tmp_path) as (made, inline):
        task = made.bundle("same")
        pod = Sandbox(made, task.key.id)
        aside = made.run / "aside"
        mountns.umount(task.rootfs)
        task.path.rename(aside)
        outcome = clean(inline, pod.key, pod.path)
        assert outcome.result is Result.CLEANED, outcome
        assert task.runc_state.exists()
        assert all(group.exists() for group in task.cgroups)


@private_mounts
def test_where_something_is_mounted_it_stays_and_nothing_is_lost(tmp_path: Path) -> None:
    with dead(tmp_path) as (pod, inline):
        precious = canary.plant(tmp_path / "precious")
        target = pod.path / "rootfs" / "data"
        target.mkdir()
        mountns.bind(precious.root, target)
        outcome = clean(inline, pod.key, pod.path)
        # Who uses what is mounted nobody knows: no file names a cgroup.
        assert outcome.result is Result.SKIPPED, outcome
        assert "cgroup" in outcome.detail
        assert precious.intact()


@private_mounts
def test_a_tree_on_another_mount_is_not_worked_in(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        mountns_place = made.run / SANDBOXES.decode()
        mountns_place.mkdir()
        mountns.tmpfs(mountns_place)
        pod = Sandbox(made, made.unique("pod"))
        outcome = clean(inline, pod.key, pod.path)
        assert (outcome.result, outcome.reason) == (Result.BLOCKED, BlockReason.FOREIGN_MOUNT)
        inspector = TreeInspector(made.layout)
        try:
            listed = inspector.list()
        finally:
            inspector.close()
        assert (listed.answered, listed.sandboxes, listed.bundles) == (True, False, ())


@pytest.mark.parametrize("kind", ["mount", "symlink"])
@private_mounts
def test_a_tree_elsewhere_is_not_entered_and_tells_no_runtime(tmp_path: Path, kind: str) -> None:
    """It may hang; and a member whose sandbox cannot be read may be a virtual machine's."""
    with inline_worker(tmp_path) as (made, inline):
        place, aside = made.run / SANDBOXES.decode(), made.run / "aside"
        aside.mkdir()
        if kind == "mount":
            place.mkdir()
            mountns.tmpfs(place)
        else:
            place.symlink_to(aside)
        pod = Sandbox(made, made.unique("pod"))
        member = made.bundle("member", annotations={"io.kubernetes.cri.sandbox-id": pod.key.id})
        (member.path / "shim-binary-path").unlink()
        around = inline.place.around(inline.place.scan())
        seen, found = examine(around, pod.key), examine(around, member.key)
        assert seen is not None
        assert found is not None
        assert seen.look.identity == NOWHERE
        assert found.look.runtime.state is RuntimeState.NONE
        assert clean(inline, pod.key, pod.path).result is Result.BLOCKED
        assert inline.clean(member).result is Result.SKIPPED
        assert pod.left()


@private_mounts
def test_a_removal_that_was_cut_short_is_finished_in_its_own_tree(tmp_path: Path) -> None:
    with dead(tmp_path) as (pod, inline):
        identity = identify(pod.path)
        hidden = f".reconciler-{identity.ino:x}-{'0' * 16}"
        pod.path.rename(pod.path.with_name(hidden))
        key = pod.key._replace(id=hidden)
        assert steps.finish(inline.place, FinishJob(key, identity)).result is Result.CLEANED
        assert not pod.path.with_name(hidden).exists()


@pytest.mark.parametrize("namesake", [False, True], ids=["alone", "beside a task of its name"])
@private_mounts
def test_a_member_takes_its_runtime_from_a_sandbox_in_the_other_tree(
    tmp_path: Path, *, namesake: bool
) -> None:
    """A member of a Kata pod has no `shim-binary-path`, and may live in a virtual machine."""
    with inline_worker(tmp_path) as (made, inline):
        pod = Sandbox(made, made.unique("pod"), shim="containerd-shim-kata-v2")
        member = made.bundle("member", annotations={"io.kubernetes.cri.sandbox-id": pod.key.id})
        (member.path / "shim-binary-path").unlink()
        if namesake:  # it says nothing
            Path(os.fsdecode(made.layout.bundle(pod.key.task))).mkdir()
        found = examine(inline.place.around(inline.place.scan()), member.key)
        assert found is not None
        assert found.look.runtime.state is RuntimeState.ALIEN
        assert inline.clean(member).result is Result.SKIPPED
        assert member.left()


@private_mounts
def test_what_is_left_of_them_outside_is_found(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        living = Sandbox(made, made.unique("living"))
        gone = Sandbox(made, made.unique("gone"))
        hidden = gone.path.with_name(f".{gone.key.id}")
        gone.path.rename(hidden)
        found = {Path(one.key.path) for one in take(inline.place).places}
        assert hidden in found
        assert living.work not in found
        steps_ = {one for one in found if living.key.id in one.name}
        assert steps_ == set()


@private_mounts
def test_a_listing_names_both_trees(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        task: Bundle = made.bundle("same")
        pod = Sandbox(made, task.key.id)
        inspector = TreeInspector(made.layout)
        try:
            listed, one = inspector.list(), inspector.list(NS)
        finally:
            inspector.close()
        assert {seen.key for seen in listed.bundles} == {task.key, pod.key}
        assert replace(one, namespace=None, seconds=listed.seconds) == listed


@private_mounts
def test_a_shim_that_a_sandbox_in_the_other_tree_needs_is_not_ended() -> None:
    """A dead member shows a shim that serves nobody; what else it serves only it can tell."""
    mountns.tmpfs("/mnt")  # a name so short that the shim's socket has room for its whole path
    with inline_worker(Path("/mnt")) as (made, inline):
        pod = Sandbox(made, made.unique("pod"))
        pod.socket.unlink()
        note = {"io.kubernetes.cri.sandbox-id": pod.key.id}
        member = made.bundle("member", mounted=False, annotations=note)
        (member.path / "address").write_text(f"unix://{pod.socket}")
        inline.options = CleanupOptions(settle=0.0)
        everybody = frozenset({member.key, pod.key, pod.key.task})
        said = Containerd(ContainerdState.UP, unrecorded=everybody)
        job = EndShimJob(member.key, member.identity, said, inline.options)
        with living_shim(pod.path, pod.socket, os.fsdecode(made.layout.address)) as shim:
            outcome = end_abandoned(inline.place, job)
            assert outcome.reason is BlockReason.SHIM, outcome
            assert "sandbox" in outcome.detail
            assert shim.process.poll() is None


@private_mounts
def test_without_a_tree_of_tasks_it_is_not_called_gone(tmp_path: Path) -> None:
    with dead(tmp_path) as (pod, inline):
        tasks = Path(os.fsdecode(pod.made.layout.tasks))
        tasks.rename(tasks.with_name("aside"))
        outcome = clean(inline, pod.key, pod.path)
        assert outcome.result is Result.BLOCKED, outcome
        assert pod.left()


@pytest.mark.parametrize("names_pod", [True, False])
@private_mounts
def test_whose_pod_it_is_is_not_known_unless_it_says_so(tmp_path: Path, *, names_pod: bool) -> None:
    """containerd writes no annotations there, so a rule that protects a pod may mean this one."""
    with dead(tmp_path) as (pod, inline):
        if names_pod:
            note = {"io.kubernetes.cri.sandbox-namespace": "kube-system"}
            (pod.path / "config.json").write_text(json.dumps({"annotations": note}))
        found = examine(inline.place.around(inline.place.scan()), pod.key)
        assert found is not None
        assert found.look.labels.known is names_pod
        rule = Rule(Match(pod_namespace="kube-*"), Policy(protect=True))
        assert rule.applies(pod.key, Known(found.look.labels))
