"""Setup: everything a session needs to know, made from a configuration. A value: nothing is opened.

Apart from :mod:`reconciler.assembly`, which draws in most of the program: a command knows its
setup, and has the fork server started, before it loads that.
"""

import os
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from reconciler.model.layout import Layout
from reconciler.model.policy import Policies
from reconciler.probe import boots
from reconciler.probe.namespaces import tree_mount
from reconciler.settings.load import Loaded
from reconciler.settings.schema import Log
from reconciler.worker.messages import CleanupOptions

Backend = Literal["auto", "inotify", "watchfiles", "poll"]

_RELIST: Final = 300.0


class Setup(msgspec.Struct, frozen=True):
    """Everything a session needs to know.

    Attributes:
        layout: Where things are.
        policies: What may be removed, and when.
        backend: How to watch: ``auto``, ``inotify``, ``watchfiles`` or ``poll``.
        relist: Seconds between two listings of the whole tree.
        without_containerd: There is no containerd, the operator says.
        allow_disk: The state directory may be on a disk.
        lazy_unmount: Detach a busy rootfs instead of leaving it.
        namespaces: Only these; empty for all.
        annotation_keys: Annotations that a look keeps beside those that rules match on.
        locks: Where the lock of the acting instance lies; None for the usual place.
        own_tree: The tree is of our own making (`demo`), so no privileges are needed.
        log: What the configuration says of the log.
        hints: What it says that is probably not meant.
        socket: Where a daemon that runs beside us can be asked; empty for nowhere.
        files: The configuration files that were read, the strongest last; None for no layers.
    """

    layout: Layout = msgspec.field(default_factory=Layout)
    policies: Policies = msgspec.field(default_factory=Policies)
    backend: Backend = "auto"
    relist: float = _RELIST
    without_containerd: bool = False
    allow_disk: bool = False
    lazy_unmount: bool = False
    namespaces: frozenset[str] = frozenset()
    annotation_keys: frozenset[str] = frozenset()
    locks: bytes | None = None
    own_tree: bool = False
    log: Log = msgspec.field(default_factory=Log)
    hints: tuple[str, ...] = ()
    socket: str = ""
    files: tuple[str, ...] | None = None


def setup_from(loaded: Loaded) -> Setup:
    """Make a setup from a configuration."""
    settings = loaded.settings
    layout = loaded.layout
    if settings.containerd.allow_disk and not _is_volatile(layout):
        layout = replace(layout, boots=boots.place(os.environ, layout))
    return Setup(
        layout=layout,
        policies=loaded.policies(volatile=_is_volatile(layout)),
        backend=settings.watch.backend.value,
        relist=settings.watch.relist_seconds,
        allow_disk=settings.containerd.allow_disk,
        lazy_unmount=settings.cleanup.lazy_unmount,
        log=settings.log,
        hints=tuple(loaded.hints),
        socket=settings.http.socket,
        files=tuple(loaded.files),
    )


def _is_volatile(layout: Layout) -> bool:
    """Return whether a boot empties the tree; unless it is known to last, no file is that old."""
    try:
        mount = tree_mount(layout.tasks)
    except FileNotFoundError:
        return True
    return mount is None or mount.fstype in {"tmpfs", "ramfs"}


def acts(policies: Policies) -> bool:
    """Return whether any policy lets something be removed."""
    return policies.default.enforce or any(rule.policy.enforce for rule in policies.rules)


def options_of(setup: Setup) -> CleanupOptions:
    """Say how to clean."""
    return CleanupOptions(settle=setup.policies.settle, lazy_unmount=setup.lazy_unmount)
