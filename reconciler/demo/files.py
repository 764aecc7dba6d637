"""Files of one bundle, as containerd, the shim and runc write them (names: model.layout).

Values flow in, names and contents flow out. Nothing is written here.
"""

import os
from dataclasses import dataclass

import msgspec

from reconciler.model.ids import BundleKey

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
