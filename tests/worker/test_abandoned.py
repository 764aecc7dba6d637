"""Ending the shim of an abandoned bundle: after a second look at it and at all who may share it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.worker.abandoned import end_abandoned
from reconciler.worker.messages import CleanupOptions, EndShimJob
from tests.support.bundles import Bundle, Site
from tests.support.cgroups import join
from tests.support.inline import InlineWorker, assert_blocked, inline_worker, step
from tests.support.mountns import private_mounts
from tests.support.shims import LivingShim, living_shim

pytestmark = pytest.mark.safety

_UP = Containerd(ContainerdState.UP)
_NOBODY = 65534
_POD = "io.kubernetes.cri.sandbox-id"


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory whose path leaves room for that of a socket (unix(7))."""
    return tmp_path_factory.mktemp("a")


def denying(*keys: BundleKey) -> Containerd:
    return replace(_UP, unrecorded=frozenset(keys))


def end(inline: InlineWorker, bundle: Bundle, said: Containerd) -> Outcome:
    job = EndShimJob(bundle.key, bundle.identity, said.about(bundle.key), inline.options)
    return end_abandoned(inline.place, job)


@contextmanager
def serving(site: Site, bundle: Bundle) -> Iterator[LivingShim]:
    """Have a shim of our containerd at work in a bundle, and an impostor beside it."""
    address = os.fsdecode(site.layout.address)
    impostor = bundle.socket.with_name("impostor")
    with (
        living_shim(bundle.path, impostor, address, user=_NOBODY) as canary,
        living_shim(bundle.path, bundle.socket, address) as shim,
    ):
        yield shim
        assert canary.process.poll() is None, "a process that only calls itself a shim was ended"


def member_of(site: Site, pod: Bundle, id_: str) -> Bundle:
    """Make a dead container of a pod: it names the pod's socket."""
    made = site.bundle(id_, mounted=False, annotations={_POD: pod.key.id})
    (made.path / "address").write_text(f"unix://{pod.socket}")
    return made


@private_mounts
def test_the_shim_of_an_abandoned_bundle_is_ended_and_nothing_is_removed(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle()
        with serving(site, bundle) as shim:
            left = bundle.left()
            outcome = end(inline, bundle, denying(bundle.key))
            assert outcome.result is Result.KILLED, outcome
            assert shim.process.wait(5) == -signal.SIGTERM
            assert step(outcome, "shim").mutations == 1
            assert bundle.left() == left
            assert bundle.mounts()
        inline.place.scan(anew=True)
        outcome = end(inline, bundle, denying(bundle.key))
        assert outcome.result is Result.SKIPPED, outcome
        inline.containerd = _UP
        assert inline.clean(bundle).result is Result.CLEANED


@private_mounts
def test_whoever_containerd_may_know_or_who_lives_keeps_his_shim(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        key, told = bundle.key, denying(bundle.key)
        with serving(site, bundle) as shim:
            for said in (
                _UP,
                Containerd(ContainerdState.DOWN),
                Containerd(ContainerdState.NONE, unrecorded=told.unrecorded),
                replace(told, tasks=frozenset({key})),
                replace(told, recorded=frozenset({key})),
            ):
                outcome = end(inline, bundle, said)
                assert outcome.result is Result.SKIPPED, (said, outcome)
                assert outcome.look is not None
            with subprocess.Popen(["sleep", "600"]) as process:
                join(process.pid, bundle.cgroups)
                inline.place.scan(anew=True)
                outcome = end(inline, bundle, told)
                process.kill()
            assert outcome.result is Result.SKIPPED, outcome
            os.utime(bundle.path)  # it is young again
            assert end(inline, bundle, told).result is Result.SKIPPED
            assert shim.process.poll() is None


@private_mounts
def test_a_pod_keeps_its_shim_until_nobody_of_it_is_left_or_known(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        pod = site.bundle("pod", mounted=False)
        app, job = (member_of(site, pod, name) for name in ("app", "job"))
        everybody = denying(pod.key, app.key, job.key)
        inline.options = CleanupOptions(settle=0.0)
        with serving(site, pod) as shim:
            outcome = end(inline, job, denying(pod.key, job.key))
            assert_blocked(outcome, BlockReason.SHIM)
            assert "was not asked about" in outcome.detail
            with subprocess.Popen(["sleep", "600"]) as process:
                (app.path / "init.pid").write_text(str(process.pid))
                join(process.pid, app.cgroups)
                inline.place.scan(anew=True)
                outcome = end(inline, job, everybody)
                process.kill()
            assert_blocked(outcome, BlockReason.SHIM)
            assert f"may serve {app.key}" in outcome.detail
            (app.path / "config.json").unlink()  # nothing tells that it is of this pod
            (app.path / "address").unlink()
            (app.path / "init.pid").unlink()
            outcome = end(inline, job, denying(pod.key, job.key))
            assert_blocked(outcome, BlockReason.SHIM)
            assert shim.process.poll() is None
            assert end(inline, job, everybody).result is Result.KILLED
            assert shim.process.wait(5) == -signal.SIGTERM


@private_mounts
def test_another_runtimes_shim_lives_though_its_bundle_does_not_name_it(short: Path) -> None:
    """A virtual machine is no child of its shim, and in no cgroup that we know of."""
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        for name in ("init.pid", "runtime", "shim-binary-path"):
            (bundle.path / name).unlink(missing_ok=True)
        inline.options = CleanupOptions(settle=0.0)
        address, kata = os.fsdecode(site.layout.address), "containerd-shim-kata-v2"
        with living_shim(bundle.path, bundle.socket, address, program=kata) as shim:
            inline.place.scan(anew=True)
            outcome = end(inline, bundle, denying(bundle.key))
            assert_blocked(outcome, BlockReason.SHIM)
            assert "is not runc's shim" in outcome.detail
            assert shim.process.poll() is None
