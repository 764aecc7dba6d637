"""Debris: what is left outside a bundle; its place in the model (design section 3)."""

from dataclasses import dataclass
from enum import Enum


class DebrisKind(Enum):
    """What kind of thing was left behind."""

    HIDDEN_BUNDLE = "hidden-bundle"
    SHIM_SOCKET = "shim-socket"
    FIFO_DIR = "fifo-dir"
    RUNC_STATE = "runc-state"
    CGROUP = "cgroup"
    WORK_DIR = "work-dir"
    MOUNT = "mount"


@dataclass(frozen=True, slots=True)
class Debris:
    """One thing left behind outside a bundle.

    Attributes:
        kind: What it is.
        path: Where it is, for people.
        namespace, id: Whom it belonged to, empty if unknown.
        mtime: Its modification time, seconds since the epoch.
        reason: Why it is debris.
    """

    kind: DebrisKind
    path: str
    namespace: str
    id: str
    mtime: float
    reason: str
