"""What a simulated node is made of: processes, bundles, and what they may truly be."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from reconciler.model.evidence import Entries, Mount
from reconciler.model.ids import BundleKey, Identity

BOOTED: Final = 100_000.0
EPOCH: Final = 1_700_000_000.0
TICK: Final = 0.001
"""Seconds every change takes, so that no two carry the same stamp."""

AT_CREATION: Final = Entries.ROOTFS | Entries.WORK | Entries.CONFIG | Entries.LOG
BY_SHIM: Final = Entries.ADDRESS | Entries.SHIM_BINARY_PATH
BY_RUNC: Final = Entries.OPTIONS | Entries.RUNTIME | Entries.LOG_JSON | Entries.INIT_PID


class Role(Enum):
    """What a process is to the reconciler."""

    INIT = "init"
    MEMBER = "member"  # another process in a container's cgroup
    SHIM = "shim"
    HELPER = "helper"  # `shim start` or `shim delete`
    STRANGER = "stranger"


class Daemon(Enum):
    """How containerd fares."""

    UP = "up"
    HUNG = "hung"  # it runs, or sweeps at its start: its lock is held and nobody answers
    DOWN = "down"


class Truth(Enum):
    """What a bundle really is."""

    ALIVE = "alive"  # removing it would harm somebody
    DEAD = "dead"  # nobody would miss it
    NEITHER = "neither"  # nothing lives, but somebody is at work on it or serves it


@dataclass(slots=True)
class Process:
    """One living process.

    Attributes:
        key: Whose it is; a shim's is the bundle it was started for.
        cgroup: Its cgroup's path.
        group: What a shim's socket is named after: the bundle, or the sandbox of its pod.
        parent: The shim that started it, 0 if none did.
    """

    pid: int
    role: Role
    key: BundleKey
    started: float
    cgroup: str | None = None
    group: str = ""
    parent: int = 0


@dataclass(slots=True)
class Bundle:
    """One bundle directory.

    Attributes:
        group: What its shim's socket is named after: its own id, or that of its pod's sandbox.
        files: The known files it holds.
        mtime: Newest modification time, wall clock.
        init_pid, init_started: What ``init.pid`` and runc's state say, 0 before that.
        runc_state: Whether runc's state directory exists.
        state_is_its: Whether that is about this bundle, and not one of another containerd's.
        cgroup: Whether the cgroup directory exists.
        runtime: What ``shim-binary-path`` names.
        creating: containerd has not finished (or given up) creating it.
        cgroup_path: Where its processes are; mostly what containerd asks for by itself.
        asked_path: What config.json asks for; another driver may have done something else.
        unheard: When it last changed (or began) without an event reaching us.
    """

    key: BundleKey
    identity: Identity
    group: str
    mtime: float
    files: Entries = AT_CREATION
    init_pid: int = 0
    init_started: float = 0.0
    runc_state: bool = False
    state_is_its: bool = True
    cgroup: bool = False
    mounts: list[Mount] = field(default_factory=list)
    runtime: str = "runc"
    creating: bool = True
    pod_namespace: str = "default"
    cgroup_path: str = ""
    asked_path: str = ""
    unheard: float = float("-inf")
