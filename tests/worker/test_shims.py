"""Ending a shim that serves nobody: the one that is meant, and nobody else."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from msgspec.structs import replace

from reconciler.model.evidence import ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason
from reconciler.probe.processes import users_of
from reconciler.worker import shims
from reconciler.worker.blocked import Blocked
from reconciler.worker.messages import WorkerScope
from reconciler.worker.shims import ShimTarget, end_shim, find_shim
from reconciler.worker.step_log import Tally
from tests.support.bundles import Bundle, Site
from tests.support.inline import InlineWorker, inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import LivingShim, living_shim

pytestmark = pytest.mark.safety

_NOBODY = 65534


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory whose path leaves room for that of a socket (unix(7))."""
    return tmp_path_factory.mktemp("s")


def address(site: Site) -> str:
    return os.fsdecode(site.layout.address)


def target(bundle: Bundle, shim: LivingShim) -> ShimTarget:
    return ShimTarget(bundle.key, shim.pid, shim.start, frozenset({os.fsencode(bundle.socket)}))


def end(inline: InlineWorker, shim: ShimTarget, look: Callable[[], object] = lambda: None) -> str:
    return end_shim(inline.place, shim, Tally(), look)


def assert_refused(inline: InlineWorker, shim: ShimTarget, living: LivingShim, why: str) -> None:
    with pytest.raises(Blocked, match=why) as refused:
        end(inline, shim)
    assert refused.value.reason is BlockReason.SHIM
    assert living.process.poll() is None


@private_mounts
def test_a_shim_ends_when_it_is_asked_to(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        with living_shim(bundle.path, bundle.socket, address(site)) as living:
            asked: list[bool] = []
            tally = Tally()
            shim = target(bundle, living)
            found = find_shim(inline.place, bundle.key)
            assert found is not None
            assert (found.pid, found.start) == (shim.pid, shim.start)
            end_shim(inline.place, shim, tally, lambda: asked.append(living.process.poll() is None))
            assert asked == [True]
            assert living.process.wait(5) == -signal.SIGTERM
            assert tally.mutations == 1
            with pytest.raises(FileNotFoundError):
                end(inline, shim)
        assert find_shim(inline.place, bundle.key) is None


@private_mounts
def test_one_that_ends_by_itself_while_it_is_proven_has_ended(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        with living_shim(bundle.path, bundle.socket, address(site)) as living:

            def ended(_: ShimProcess) -> str:
                living.process.kill()
                os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
                raise ProcessLookupError(errno.ESRCH, "No such process")

            tally = Tally()
            with (
                mock.patch.object(shims, "_against_process", lambda *found: ended(found[-1])),
                pytest.raises(FileNotFoundError, match="has ended"),
            ):
                end_shim(inline.place, target(bundle, living), tally, lambda: None)
            assert tally.mutations == 0


@private_mounts
def test_a_shim_that_ignores_that_or_was_stopped_is_killed(short: Path) -> None:
    with inline_worker(short) as (site, inline), mock.patch.object(shims, "GRACE_MS", 50):
        bundle = site.bundle(mounted=False)
        for before, stop in (("trap '' TERM", False), ("", True)):
            looked: list[int] = []
            with living_shim(bundle.path, bundle.socket, address(site), before=before) as living:
                if stop:
                    os.kill(living.pid, signal.SIGSTOP)
                shim = target(bundle, living)
                told = end(inline, shim, lambda: looked.append(shim.pid))  # noqa: B023 - in this round
                assert "killed" in told
                assert looked == [shim.pid] * 2, "nobody looked again before it was killed"
                assert living.process.wait(5) == -signal.SIGKILL


@private_mounts
def test_a_shim_that_serves_somebody_by_then_is_not_killed(short: Path) -> None:
    """Whoever comes while it may end by itself is seen before the second signal."""
    with inline_worker(short) as (site, inline), mock.patch.object(shims, "GRACE_MS", 50):
        bundle = site.bundle(mounted=False)
        looked: list[bool] = []

        def serves() -> None:
            looked.append(True)
            if looked[1:]:
                raise Blocked(BlockReason.CHANGED, "", "it serves somebody")

        with living_shim(
            bundle.path, bundle.socket, address(site), before="trap '' TERM"
        ) as living:
            with pytest.raises(Blocked, match="it serves"):
                end(inline, target(bundle, living), serves)
            assert living.process.poll() is None


@private_mounts
def test_only_the_program_of_runcs_shim_is_ended(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle, ours, own = site.bundle(mounted=False), address(site), "containerd-shim-own-v1"
        for program in ("containerd-shim-kata-v2", "containerd-shim-runc-v2x", own):
            with living_shim(bundle.path, bundle.socket, ours, program=program) as living:
                assert_refused(inline, target(bundle, living), living, "is not runc's shim")
        inline.bind(WorkerScope(replace(site.layout, runc_shims=(own,))))
        for program in ("containerd-shim-runc-v1", own):
            with living_shim(bundle.path, bundle.socket, ours, program=program) as living:
                unread = OSError(errno.EACCES, "not allowed")
                with mock.patch.object(shims, "runs_runc_shim", side_effect=unread):
                    assert_refused(inline, target(bundle, living), living, "cannot be looked at")
                end(inline, target(bundle, living))


@private_mounts
def test_a_shim_in_a_bundle_of_that_path_which_was_not_judged_lives(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle, other = site.bundle(mounted=False), site.bundle("c2", mounted=False)
        with living_shim(bundle.path, bundle.socket, address(site)) as living:
            shim = replace(target(bundle, living), bundle=other.identity)
            assert_refused(inline, shim, living, "not shown to work in the bundle")
            end(inline, replace(shim, bundle=bundle.identity))


@private_mounts
def test_whoever_is_not_shown_to_be_that_shim_lives(short: Path) -> None:
    """Each proof alone keeps a process from being ended."""
    with inline_worker(short) as (site, inline):
        bundle, other = site.bundle(mounted=False), site.bundle("c2", mounted=False)
        ours = address(site)
        with living_shim(bundle.path, bundle.socket, ours) as living:
            shim = target(bundle, living)
            later = ShimTarget(shim.key, shim.pid, shim.start + 1, shim.sockets)
            assert_refused(inline, later, living, "started at another time")
            elsewhere = frozenset({os.fsencode(other.socket)})
            deaf = ShimTarget(shim.key, shim.pid, shim.start, elsewhere)
            assert_refused(inline, deaf, living, "does not listen")
            name = ShimTarget(other.key, shim.pid, shim.start, shim.sockets)
            assert_refused(inline, name, living, "is no shim of")
            gone = ShimTarget(shim.key, shim.pid, shim.start, shim.sockets, has_bundle=False)
            assert_refused(inline, gone, living, "was removed")

            def serves() -> None:
                raise Blocked(BlockReason.CHANGED, "", "it serves somebody")

            with pytest.raises(Blocked, match="it serves"):
                end(inline, shim, serves)
            assert living.process.poll() is None
        with living_shim(bundle.path, bundle.socket, ours + "2") as living:
            assert_refused(inline, target(bundle, living), living, "another containerd")
        with living_shim(other.path, bundle.socket, ours, id_=bundle.path.name) as living:
            assert_refused(inline, target(bundle, living), living, "not shown to work in")
        with living_shim(bundle.path, bundle.socket, ours, before="sleep 600 &") as living:
            assert_refused(inline, target(bundle, living), living, "has children")
        with living_shim(bundle.path, bundle.socket, ours, user=_NOBODY) as living:
            assert os.geteuid() in users_of(None)
            assert_refused(inline, target(bundle, living), living, "is no shim of")


@private_mounts
def test_a_shim_whose_bundle_was_removed_is_known_by_its_name_alone(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        with living_shim(bundle.path, bundle.socket, address(site)) as living:
            shutil.rmtree(bundle.path)
            shim = ShimTarget(bundle.key, living.pid, living.start, has_bundle=False)
            bundle.path.mkdir()
            assert_refused(inline, shim, living, "was removed")
            bundle.path.rmdir()
            held = ShimTarget(bundle.key, living.pid, living.start)
            assert_refused(inline, held, living, "not shown to work in")
            other = ShimTarget(BundleKey("default", "other"), living.pid, living.start)
            assert_refused(inline, other, living, "is no shim of")
            end(inline, shim)
            assert living.process.wait(5) == -signal.SIGTERM
