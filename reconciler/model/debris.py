"""Debris: what is left outside a bundle; its place in the model (design section 3)."""

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
