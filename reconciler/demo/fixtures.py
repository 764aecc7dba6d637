"""The fixtures: which bundles the demo makes, and what is promised of each. Pure.

Their files are as containerd, the shim and runc write them; a fixture says what is odd.
"""

import os
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

from reconciler.model.decisions import Phase, Verdict
from reconciler.model.ids import BundleKey


class Promise(Enum):
    """How a bundle must end."""

    KEPT = "untouched"
    BLOCKED = "kept, blocked"
    CLEANED = "removed"


@dataclass(frozen=True, slots=True)
class Fixture:
    """One bundle of the demo.

    Attributes:
        key: Its name.
        story: What it is, for people.
        shim: Whether a shim serves it: its own, or that of ``group``.
        init: Whether its init process lives.
        verdict: What it must be judged as while nothing is killed.
        promise: How it must end.
        group: The id its shim was started for, where that is not its own.
        missing: Files it lacks; ``*`` for every file.
        killed: Whether its shim and init are killed half way.
        data: Whether somebody's data lies in its rootfs directory.
    """

    key: BundleKey
    story: str
    shim: bool
    init: bool
    verdict: Verdict
    promise: Promise
    group: str | None = None
    missing: tuple[str, ...] = ()
    killed: bool = False
    data: bool = False

    @property
    def phase(self) -> Phase:
        """The phase in which it must end."""
        return {
            Promise.KEPT: Phase.NONE,
            Promise.BLOCKED: Phase.BLOCKED,
            Promise.CLEANED: Phase.CLEANED,
        }[self.promise]


def _live(  # noqa: PLR0913 - a row of the table below
    namespace: str,
    name: str,
    story: str,
    verdict: Verdict,
    *,
    shim: bool = True,
    init: bool = True,
    missing: tuple[str, ...] = (),
    group: str | None = None,
) -> Fixture:
    key = BundleKey(namespace, name)
    return Fixture(key, story, shim, init, verdict, Promise.KEPT, group=group, missing=missing)


def _dead(namespace: str, name: str, story: str, *missing: str, data: bool = False) -> Fixture:
    promise = Promise.BLOCKED if data else Promise.CLEANED
    return Fixture(
        BundleKey(namespace, name),
        story,
        shim=False,
        init=False,
        verdict=Verdict.LEFTOVER,
        promise=promise,
        missing=missing,
        data=data,
    )


_UNBORN: Final = ("init.pid", "log.json", "options.json", "runtime", "state.json")


def fixtures(which: int = 1) -> tuple[Fixture, ...]:
    """Give the roles of one demo.

    Args:
        which: Which one of those that run at a time, from 1. Each has names of its own: a living
            shim of the same namespace and id contradicts a death, whoever it belongs to.
    """
    demo = "demo" if which == 1 else f"demo{which}"
    # A namespace of their own: where every file is gone only the absence of any shim in the
    # namespace proves that none serves the bundle.
    pods, crashed = demo + "-pods", demo + "-crashed"
    stopped = "stopped: its init has ended, its shim lives"
    ended = "a pod's container that has ended; the pod's shim lives"
    no_runtime = "dead, `runtime` missing: containerd 1.x never cleans it"
    has_data = "dead, somebody's data in its rootfs directory"
    return (
        _live(demo, "web", "running", Verdict.RUNNING),
        _live(demo, "batch", stopped, Verdict.STOPPED, init=False),
        _live(demo, "lonely", "orphaned: shim killed, init alive", Verdict.ORPHANED, shim=False),
        _live(
            demo,
            "newborn",
            "being created: no init yet",
            Verdict.STARTING,
            init=False,
            missing=_UNBORN,
        ),
        _live(pods, "pod", "a pod's sandbox", Verdict.RUNNING, group="pod"),
        _live(pods, "pod-app", "a pod's container", Verdict.RUNNING, group="pod"),
        _live(pods, "pod-job", ended, Verdict.STOPPED, init=False, group="pod"),
        _dead(crashed, "complete", "dead, nothing missing"),
        _dead(crashed, "no-runtime", no_runtime, "runtime"),
        _dead(crashed, "no-init-pid", "dead, `init.pid` missing", "init.pid"),
        _dead(crashed, "emptied", "dead, every file missing", "*"),
        _dead(crashed, "has-data", has_data, data=True),
        Fixture(
            BundleKey(demo, "victim"),
            "running; its shim and init are killed half way",
            shim=True,
            init=True,
            verdict=Verdict.RUNNING,
            promise=Promise.CLEANED,
            killed=True,
        ),
    )


SANDBOX = "io.kubernetes.cri.sandbox-id"


@dataclass(frozen=True, slots=True)
class Task:
    """What the files of a bundle tell.

    Attributes:
        key: Its name.
        pid: The pid of its init, which may be gone.
        start_ticks: When that process started, field 22 of /proc/PID/stat.
        socket: Its shim's socket.
        group: The id its shim was started for, where a sandbox's shim serves it.
        runc_root: Where runc keeps its state.
    """

    key: BundleKey
    pid: int
    start_ticks: int
    socket: bytes
    group: str | None
    runc_root: bytes


def contents(task: Task) -> dict[str, bytes]:
    """Give the regular files of a bundle."""
    return {
        "address": b"unix://" + task.socket,
        "config.json": msgspec.json.encode(_config(task)),
        "init.pid": str(task.pid).encode(),
        "log.json": b"",
        "options.json": msgspec.json.encode({"root": os.fsdecode(task.runc_root)}),
        "runtime": b"",
        "shim-binary-path": b"/usr/bin/containerd-shim-runc-v2",
    }


def runc_state(task: Task, bundle: bytes) -> bytes:
    """Give runc's own state.json, with what is read of it; ``bundle`` is where that lies."""
    return msgspec.json.encode(
        {
            "id": task.key.id,
            "init_process_pid": task.pid,
            "init_process_start": task.start_ticks,
            "created": "2024-01-01T00:00:00Z",
            "cgroup_paths": {},
            "config": {"labels": ["bundle=" + os.fsdecode(bundle)], "Hooks": {}},
        }
    )


def _config(task: Task) -> dict[str, str | dict[str, str]]:
    annotations: dict[str, str] = {}
    if task.group is not None:
        kind = "sandbox" if task.group == task.key.id else "container"
        annotations = {
            SANDBOX: task.group,
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-name": task.group,
            "io.kubernetes.cri.sandbox-namespace": task.key.namespace,
            "io.kubernetes.cri.container-name": task.key.id,
        }
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "annotations": annotations,
        "linux": {"cgroupsPath": f"/{task.key.namespace}/{task.key.id}"},
    }
