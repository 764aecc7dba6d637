"""A shim that never answers: told from one that is not asked, ended only where nobody needs it."""

import fcntl
import os
import signal
from pathlib import Path
from unittest import mock

import pytest

from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result
from reconciler.probe import process
from reconciler.worker import wedged
from reconciler.worker.messages import CleanupOptions, EndWedgedJob, PingJob
from reconciler.worker.wedged import ask_shims, end_wedged
from tests.support.inline import inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import living_shim
from tests.worker.test_abandoned import member_of

pytestmark = pytest.mark.safety

DOWN = Containerd(ContainerdState.DOWN)

ANSWERS = """python3 -c '
import os, socket, stat
for fd in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            break
    except OSError:
        pass
door = socket.socket(fileno=fd)
print(flush=True)
while True:
    caller, _ = door.accept()
    asked = caller.recv(4096)
    if not asked:
        continue  # somebody only looked whether it is there
    assert b"containerd.task.v2.Task" in asked and b"Connect" in asked, asked
    assert int.from_bytes(asked[:4], "big") == len(asked) - 10, asked
    caller.send(bytes((0, 0, 0, 0, 0, 0, 0, 1, 2, 0)))
'
"""


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory whose path leaves room for that of a socket (unix(7))."""
    return tmp_path_factory.mktemp("w")


@private_mounts
def test_only_an_identified_shim_is_asked_and_silence_is_told_from_an_answer(short: Path) -> None:
    with inline_worker(short) as (site, inline), mock.patch.object(wedged, "PATIENCE", 0.5):
        silent, other = site.bundle("silent", mounted=False), site.bundle("other", mounted=False)
        talks, dead = site.bundle("talks", mounted=False), site.bundle("dead", mounted=False)
        ours = os.fsdecode(site.layout.address)
        with (
            living_shim(silent.path, silent.socket, ours) as shim,
            living_shim(other.path, other.socket, ours + "2"),
            living_shim(talks.path, talks.socket, ours, before=ANSWERS) as talking,
        ):
            keys = tuple(one.key for one in (silent, other, talks, dead))
            inline.place.scan(anew=True)
            pings = ask_shims(inline.place, PingJob((*keys, BundleKey("no", "body")))).pings
            told = [(one.answers, one.pid) for one in pings]
            assert told == [
                (Answer.NO, shim.pid),
                (Answer.NONE, 0),
                (Answer.YES, talking.pid),
                (Answer.NONE, 0),
                (Answer.NONE, 0),
            ]


@private_mounts
def test_a_wedged_shim_of_the_dead_is_ended_only_while_containerd_is_down(short: Path) -> None:
    with inline_worker(short) as (site, inline), mock.patch.object(wedged, "PATIENCE", 0.2):
        bundle, talks = site.bundle(mounted=False), site.bundle("talks", mounted=False)
        ours = os.fsdecode(site.layout.address)
        options = CleanupOptions(settle=0.0)
        with (
            living_shim(bundle.path, bundle.socket, ours) as shim,
            living_shim(talks.path, talks.socket, ours, before=ANSWERS) as talking,
        ):
            inline.place.scan(anew=True)
            for state in (ContainerdState.UP, ContainerdState.NONE, ContainerdState.SKIPPED):
                said = Containerd(state, tasks=frozenset({bundle.key}))
                job = EndWedgedJob(bundle.key, bundle.identity, said, options)
                assert end_wedged(inline.place, job).result is Result.SKIPPED
            job = EndWedgedJob(talks.key, talks.identity, DOWN, options)
            with mock.patch.object(process, "parents", return_value=frozenset()):
                assert end_wedged(inline.place, job).detail == "its shim answers"
            job = EndWedgedJob(bundle.key, bundle.identity, DOWN, options)
            database = Path(os.fsdecode(site.layout.metadata_lock))
            database.parent.mkdir(parents=True)
            with database.open("wb") as held:  # it has started since it was proven down
                fcntl.flock(held, fcntl.LOCK_EX)
                outcome = end_wedged(inline.place, job)
                assert outcome.detail == "containerd may have started meanwhile"
            assert shim.process.poll() is talking.process.poll() is None
            outcome = end_wedged(inline.place, job)
            assert outcome.result is Result.KILLED, outcome
            assert shim.process.wait(5) == -signal.SIGTERM


@private_mounts
def test_a_silent_shim_of_a_pod_that_is_not_runcs_throughout_lives(short: Path) -> None:
    """A virtual machine is no child of its shim, and in no cgroup that we know of."""
    with inline_worker(short) as (site, inline), mock.patch.object(wedged, "PATIENCE", 0.2):
        pod = site.bundle("pod", mounted=False)
        member = member_of(site, pod, "member")
        ours = os.fsdecode(site.layout.address)
        job = EndWedgedJob(pod.key, pod.identity, DOWN, CleanupOptions(settle=0.0))
        with living_shim(pod.path, pod.socket, ours) as shim:
            inline.place.scan(anew=True)
            kata = "/opt/kata/bin/containerd-shim-kata-v2"
            for bundle, alien in ((pod, kata), (pod, " "), (member, kata), (member, " ")):
                named = bundle.path / "shim-binary-path"
                runc = named.read_text()
                named.write_text(alien)
                outcome = end_wedged(inline.place, job)
                assert outcome.result in {Result.SKIPPED, Result.BLOCKED}, (alien, outcome)
                assert "the runtime is not shown to be runc" in outcome.detail
                named.write_text(runc)
            assert shim.process.poll() is None
            assert end_wedged(inline.place, job).result is Result.KILLED
