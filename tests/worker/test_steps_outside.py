"""The steps that others take part in: containerd, hooks, members of a pod, streams' openers."""

import os
import stat
import time
from pathlib import Path

import pytest

from reconciler.model.evidence import Containerd, ContainerdState, ProcessScan
from reconciler.model.hidden import hidden_name
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Result, StepResult
from reconciler.probe.ttl_cache import TTLCache
from reconciler.worker.fifos import (
    FRESH_SECONDS,
    PATIENCE,
    FifoDir,
    FifoDirs,
    Times,
    remove_fifo_dir,
)
from reconciler.worker.groups import carries
from reconciler.worker.hooks import pick_runc
from reconciler.worker.messages import WorkerScope
from reconciler.worker.objects import find
from reconciler.worker.sockets import hidden_path, remove_socket
from reconciler.worker.step_log import Kept, Tally
from tests.support.bundles import LONG_AGO, Bundle, Site, identify, listen
from tests.support.clock import VirtualClock
from tests.support.inline import (
    InlineWorker,
    assert_blocked,
    assert_cleaned,
    assert_untouched,
    inline_worker,
    step,
)
from tests.support.mountns import private_mounts

HOOK: list[dict[str, object]] = [{"path": "/bin/true"}]
SANDBOX = "io.kubernetes.cri.sandbox-id"


def claim(inline: InlineWorker) -> None:
    inline.containerd, inline.listed = Containerd(ContainerdState.UP), True


@pytest.mark.fault("I6")
@pytest.mark.safety
@pytest.mark.parametrize("trouble", ["it took too long", ""])
@private_mounts
def test_what_containerd_began_when_it_was_asked_is_seen(tmp_path: Path, trouble: str) -> None:
    """Its own `shim delete` may run on, whatever it answered."""
    with inline_worker(tmp_path) as (made, inline):
        claim(inline)
        bundle = made.bundle()
        left, helpers = bundle.left(), set[BundleKey]()
        told = TTLCache[None, ProcessScan](
            inline.place.clock, lambda _: ProcessScan(True, frozenset(helpers)), 1.0
        )
        inline.place._scan = told

        def delete() -> str:
            helpers.add(bundle.key)
            return trouble

        inline.delete = delete
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED, outcome
        assert bundle.left() == left


@private_mounts
def test_containerd_is_asked_first_and_its_refusal_is_a_warning(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        claim(inline)
        bundle = made.bundle()
        inline.delete = lambda: "the task is in a strange state"
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert bundle.left() == []
        asked = step(outcome, "containerd")
        assert asked.result is StepResult.WARNING
        assert "strange" in asked.detail
        assert inline.began[:4] == ["guards", "containerd", "guards", "hooks"]


@private_mounts
def test_what_containerd_removed_when_asked_is_cleaned(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        claim(inline)
        bundle = made.bundle(mounted=False)

        def delete() -> str:
            bundle.path.rename(tmp_path / "run" / "removed")
            return ""

        inline.delete = delete
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert step(outcome, "containerd").result is StepResult.DONE


@private_mounts
def test_no_answer_from_containerd_touches_nothing(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        claim(inline)
        bundle = made.bundle()
        left = bundle.left()
        inline.delete = lambda: None
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.CONTAINERD)
        assert_untouched(outcome, bundle, left)


@private_mounts
def test_containerd_is_not_asked_about_a_bundle_that_lives(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        claim(inline)
        bundle = made.bundle()
        bundle.socket.unlink()
        with listen(bundle.socket):
            outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert inline.began == ["guards"]


def fake_runc(directory: Path, script: str) -> Path:
    runc = directory / "fake-runc"
    runc.write_text(f"#!/bin/sh\n{script}\n")
    runc.chmod(0o755)
    return runc


@private_mounts
def test_poststop_hooks_are_left_to_runc(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(hooks=HOOK)
        said = tmp_path / "said"
        runc = fake_runc(tmp_path, f'echo "$@" > {said}; rm -r {bundle.runc_state}')
        inline.bind(WorkerScope(made.layout, runc=str(runc)))
        assert_cleaned(inline.clean(bundle), bundle)
        root = bundle.runc_state.parent
        assert said.read_text() == f"--root {root} delete --force {bundle.path.name}\n"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no such hook >&2; exit 3", "no such hook"),
        ("exec sleep 60", "not ended"),
        (None, "found"),
    ],
)
@private_mounts
def test_hooks_that_did_not_run_keep_the_bundle(
    tmp_path: Path, script: str | None, why: str
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(hooks=HOOK)
        left = bundle.left()
        runc = tmp_path / "none" if script is None else fake_runc(tmp_path, script)
        inline.bind(WorkerScope(made.layout, runc=str(runc), hook_seconds=0.3))
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.HOOKS)
        assert why in outcome.detail
        assert_untouched(outcome, bundle, left)
        assert bundle.mounts() == [str(bundle.rootfs)]


@private_mounts
def test_hooks_lost_with_a_torn_state_are_a_warning(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(hooks=HOOK)
        state = bundle.runc_state / "state.json"
        state.write_text('{"id": "c1", "config": {"Hooks": {"pos')
        os.utime(state, (LONG_AGO, LONG_AGO))
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert step(outcome, "hooks").result is StepResult.WARNING
        assert bundle.left() == []


def test_a_binary_named_by_a_bundle_is_run_only_if_root_alone_can_change_it(
    tmp_path: Path,
) -> None:
    runc = fake_runc(tmp_path, "exit 0")
    assert pick_runc(str(runc), "runc") == (str(runc) if os.geteuid() == 0 else "runc")
    runc.chmod(0o777)
    assert pick_runc(str(runc), "runc") == "runc"
    assert pick_runc("bin/runc", "runc") == "runc"
    assert pick_runc(str(tmp_path / "none"), "runc") == "runc"


def join_pod(made: Site, id_: str, sandbox: Bundle) -> Bundle:
    """Make a member of a pod: its files name the sandbox's socket, it has none of its own."""
    member = made.bundle(id_, annotations={SANDBOX: sandbox.path.name}, cgroups=False)
    member.socket.unlink()
    (member.path / "address").write_text(f"unix://{sandbox.socket}")
    return member


@private_mounts
def test_a_shared_socket_goes_with_the_last_of_the_pod(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        annotations = {SANDBOX: made.unique("pod")}
        sandbox = made.bundle("pod", annotations=annotations, cgroups=False)
        members = [join_pod(made, f"m{number}", sandbox) for number in range(2)]
        for bundle in (members[0], sandbox):
            outcome = inline.clean(bundle)
            assert outcome.result is Result.CLEANED, outcome.detail
            assert step(outcome, "shim-socket").result is StepResult.WARNING
            assert sandbox.socket.exists()
        assert_cleaned(inline.clean(members[1]), members[1])
        assert not sandbox.socket.exists()


def remove(path: bytes, tally: Tally, sockets: bytes = b"") -> bool:
    """Remove a socket that was just judged, whatever name it has."""
    found = (find(path), find(hidden_path(path)))
    judged = frozenset(one for one in found if one is not None)
    before = tally.mutations
    remove_socket(sockets or os.path.dirname(path), path, judged, tally)
    return tally.mutations > before


def test_a_socket_that_is_listened_on_is_kept(tmp_path: Path) -> None:
    sockets = os.fsencode(tmp_path)
    with listen(tmp_path / "alive"), pytest.raises(Kept):
        remove(sockets + b"/alive", tally := Tally())
    assert tally.mutations == 0
    assert (tmp_path / "alive").is_socket()
    assert remove(sockets + b"/alive", tally)  # its listener is gone now
    assert not remove(sockets + b"/alive", tally)
    assert tally.mutations == 2
    assert list(tmp_path.iterdir()) == []


def test_a_socket_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    sockets = os.fsencode(tmp_path)
    listen(tmp_path / "s").close()
    (tmp_path / "s").rename(tmp_path / ".reconciler-s")
    assert remove(sockets + b"/s", Tally())
    assert list(tmp_path.iterdir()) == []


def test_a_socket_hidden_while_somebody_began_to_listen_gets_its_name_back(tmp_path: Path) -> None:
    sockets = os.fsencode(tmp_path)
    with listen(tmp_path / "s"):
        (tmp_path / "s").rename(tmp_path / ".reconciler-s")
        with pytest.raises(Kept):
            remove(sockets + b"/s", Tally())
        assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["file", "link", "sub/s", ".."])
def test_only_a_socket_among_the_sockets_is_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "sub").mkdir()
    listen(tmp_path / "sub" / "s").close()
    (tmp_path / "link").symlink_to("sub/s")
    with pytest.raises(Kept):
        remove(os.fsencode(tmp_path / name), Tally(), os.fsencode(tmp_path))
    assert (tmp_path / "file").read_text() == "precious"
    assert (tmp_path / "sub" / "s").is_socket()
    assert (tmp_path / "link").is_symlink()


def test_a_cgroup_is_a_containers_only_if_its_name_says_so() -> None:
    assert carries("c1", "c1")
    assert carries("cri-containerd-c1.scope", "c1")
    assert not carries("cri-containerd-c1", "c1")
    assert not carries("c10", "c1")
    assert not carries("system.slice", "c1")


@private_mounts
def test_a_cgroup_that_does_not_carry_the_id_is_kept(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        shared = made.bundle("c2")
        for name in ("config.json", "state.json"):
            ours = bundle.path if name == "config.json" else bundle.runc_state
            text = (ours / name).read_text().replace(bundle.path.name, shared.path.name)
            (ours / name).write_text(text)
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert step(outcome, "cgroup").result is StepResult.WARNING
        assert all(group.exists() for group in shared.cgroups)


@private_mounts
def test_a_runc_root_named_by_a_file_is_removed_only_if_it_looks_like_runcs(
    tmp_path: Path,
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        elsewhere = tmp_path / "elsewhere"
        place = elsewhere / "default" / bundle.path.name
        place.mkdir(parents=True)
        (place / "precious").write_text("precious")
        (bundle.path / "options.json").write_text(f'{{"root": "{elsewhere}"}}')
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert step(outcome, "runc-state").result is StepResult.WARNING
        assert (place / "precious").read_text() == "precious"


def streams(directory: Path, id_: str) -> Path:
    directory.mkdir()
    for end in ("stdin", "stdout", "stderr"):
        os.mkfifo(directory / f"{id_}-{end}")
    return directory


def remove_streams(directory: Path, times: Times, id_: str = "c1") -> int:
    """Remove the FIFOs of an id in a directory and say how many changes that took."""
    top, number = os.fsencode(directory.parent), os.fsencode(directory.name)
    remove_fifo_dir(FifoDir(top, number), id_, times.refuse, tally := Tally())
    return tally.mutations


def after() -> Times:
    """The times of a bundle that is made now."""
    return Times(time.time() + 1, time.time() + 2)


def test_streams_made_before_the_bundle_are_removed_unopened(tmp_path: Path) -> None:
    # three names, and the directory, which is taken out of use before
    assert remove_streams(streams(tmp_path / "1", "c1"), after()) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("FIFOs of a client that comes later")
@pytest.mark.safety
def test_streams_made_after_the_bundle_stay_until_nobody_waits(tmp_path: Path) -> None:
    made = time.time()
    directory = streams(tmp_path / "1", "c1")
    with pytest.raises(Kept, match="a client may wait"):
        remove_streams(directory, Times(made - 5, made + PATIENCE - 1))
    assert len(list(directory.iterdir())) == 3
    assert remove_streams(directory, Times(made - 5, made + PATIENCE + 1)) == 5


@pytest.mark.parametrize(
    "times", [Times(None, 2e9), Times(2e10, 1e9)], ids=["no birth", "clock set back"]
)
def test_streams_stay_if_times_tell_nothing(tmp_path: Path, times: Times) -> None:
    directory = streams(tmp_path / "1", "c1")
    with pytest.raises(Kept):
        remove_streams(directory, times)
    assert len(list(directory.iterdir())) == 3


def test_a_directory_of_streams_that_is_anothers_by_now_stays(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()  # about to be filled
    streams(tmp_path / "2", "c2")
    for number in ("1", "2", "3"):
        assert remove_streams(tmp_path / number, after()) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_directories_of_streams_are_listed_once_a_moment(tmp_path: Path) -> None:
    clock, fifos = VirtualClock(), os.fsencode(tmp_path)
    dirs = FifoDirs(clock)
    streams(tmp_path / "1", "c1")
    assert (dirs.of(fifos, "c1"), dirs.of(fifos, "c2")) == ([b"1"], [])
    streams(tmp_path / "2", "c2")
    clock.now += FRESH_SECONDS
    assert (dirs.of(fifos, "c1"), dirs.of(fifos, "c2")) == ([b"1"], [b"2"])


@pytest.mark.fault("hidden .id")
@private_mounts
def test_finishes_a_removal_of_ours_and_no_other(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(mounted=False)
        name = hidden_name(bundle.identity.ino, b"12345678")
        hidden = bundle.path.with_name(name)
        bundle.path.rename(hidden)
        key = BundleKey("default", name)
        outcome = inline.finish(key, bundle.identity)
        assert outcome.result is Result.CLEANED, outcome
        assert not hidden.exists()
        for other in (".c1", hidden_name(1, b"12345678")):
            path = bundle.path.with_name(other)
            path.mkdir()
            outcome = inline.finish(BundleKey("default", other), identify(path))
            assert_blocked(outcome, BlockReason.CHANGED)
            assert stat.S_ISDIR(path.lstat().st_mode)
