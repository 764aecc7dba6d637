"""Poststop hooks with a real runc: what they said, and who has the id once they have run."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from reconciler.model.layout import TASKS
from reconciler.model.outcome import Outcome, Result, StepResult
from reconciler.probe.processes import scan
from tests.support import mountns
from tests.support.bundles import LONG_AGO, Bundle, Site
from tests.support.inline import InlineWorker, assert_cleaned, inline_worker, step
from tests.support.mountns import private_mounts


class Runc:
    """A real runc with the site's root, and containers that wait for a file."""

    def __init__(self, made: Site) -> None:
        self.made = made
        self.root = made.run / "runc" / "default"
        self.tools = made.base / "tools"
        (self.tools / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox") or pytest.skip("needs busybox")
        for name in ("sh", "sleep", "true"):
            shutil.copy(busybox, self.tools / "bin" / name)

    def __call__(self, *words: object) -> str:
        command = ["runc", "--root", self.root, *words]
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, path: Path, id_: str, group: str, *hooks: str) -> int:
        """Start a container in a bundle; gives the pid of its init."""
        log = path / "runc.log"
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/bin/sleep", "60"],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "hooks": {
                "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", hook]} for hook in hooks]
            },
            "linux": {
                "cgroupsPath": group,
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
            },
        }
        (path / "config.json").write_text(json.dumps(spec))
        pid = path / "init.pid"
        with log.open("w") as said:
            words = ["runc", "--root", str(self.root), "run", "--detach", "--bundle", str(path)]
            done = subprocess.run(
                [*words, "--pid-file", str(pid), id_],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            )
        assert done.returncode == 0, log.read_text()
        log.unlink()
        return int(pid.read_text())

    def dead(self, *hooks: str) -> Bundle:
        """Make a bundle whose container ran and was killed."""
        bundle = self.made.bundle(mounted=False, cgroups=False)
        shutil.rmtree(bundle.runc_state)
        (self.tools / "proc").mkdir(exist_ok=True)
        mountns.bind(self.tools, bundle.rootfs)
        init = self.start(bundle.path, bundle.path.name, self.made._cgroup_path(bundle), *hooks)
        end(init)
        deadline = time.monotonic() + 20
        while bundle.key.id in scan().cgroup_names:  # somebody of it is still on his way out
            assert time.monotonic() < deadline
        for path in bundle.path.iterdir():
            if path.name != "rootfs":
                os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
        os.utime(bundle.path, (LONG_AGO, LONG_AGO))
        return bundle


def end(pid: int) -> None:
    """Kill a process and wait until it is gone, or a zombie."""
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, 9)
        deadline = time.monotonic() + 20
        while "Z" not in state_of(pid) and time.monotonic() < deadline:
            os.sched_yield()
    finally:
        os.close(pidfd)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@contextmanager
def real_runc(base: Path) -> Iterator[tuple[Site, InlineWorker, Runc]]:
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    with inline_worker(base) as (made, inline):
        yield made, inline, Runc(made)


@pytest.mark.fault("an id started by another containerd while hooks run")
@pytest.mark.safety
@pytest.mark.parametrize("shares_group", [False, True], ids=["own cgroup", "same cgroup"])
@private_mounts
def test_a_container_started_while_hooks_run_keeps_its_state(
    tmp_path: Path, shares_group: bool
) -> None:
    with real_runc(tmp_path) as (made, inline, runc):
        reached, gate = tmp_path / "reached", tmp_path / "gate"
        os.mkfifo(gate)
        bundle = runc.dead(f": >{reached}; read -r _ <{gate}")
        id_ = bundle.path.name
        outcomes: list[Outcome] = []
        worker = Thread(target=lambda: outcomes.append(inline.clean(bundle)))
        worker.start()
        deadline = time.monotonic() + 20
        while not reached.exists() and time.monotonic() < deadline:
            os.sched_yield()
        other = tmp_path / "other" / TASKS.decode() / "default" / id_
        (other / "rootfs").mkdir(parents=True)
        mountns.bind(runc.tools, other / "rootfs")
        group = made._cgroup_path(bundle) if shares_group else f"/{made.cgroup}/other/{id_}"
        pid = runc.start(other, id_, group)
        try:
            gate.write_text("go\n")
            worker.join()
            assert json.loads(runc("state", id_))["status"] == "running", outcomes
            runc("exec", id_, "/bin/true")
            assert outcomes[0].result is Result.SKIPPED, outcomes
            assert bundle.path.exists()
        finally:
            end(pid)
        # It was runc's last word about the first one; with the other one's end all can go.
        runc("delete", "--force", id_)
        deadline = time.monotonic() + 20
        while bundle.key.id in inline.place.scan(anew=True).cgroup_names:
            assert time.monotonic() < deadline
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome


@pytest.mark.fault("a poststop hook that fails")
@private_mounts
def test_a_hook_that_fails_is_a_warning_though_runc_ends_well(tmp_path: Path) -> None:
    with real_runc(tmp_path) as (_, inline, runc):
        bundle = runc.dead("exit 3")
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome
        hooks = step(outcome, "hooks")
        assert hooks.result is StepResult.WARNING
        assert "exit status 3" in hooks.detail
        assert bundle.left() == []
        assert [one.step for one in outcome.steps][:3] == ["guards", "hooks", "guards"]


@private_mounts
def test_hooks_that_ran_are_told_and_the_bundle_is_judged_again(tmp_path: Path) -> None:
    with real_runc(tmp_path) as (_, inline, runc):
        ran = tmp_path / "ran"
        bundle = runc.dead(f": >{ran}")
        assert_cleaned(inline.clean(bundle), bundle)
        assert ran.exists()
