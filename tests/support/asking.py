"""Asks a containerd as the product does, but for the worker: its lock is looked at here and now."""

from collections.abc import Awaitable

from msgspec.structs import replace

from reconciler.containerd import health
from reconciler.containerd.answers import NOBODY, Singles
from reconciler.containerd.health import DEADLINE, ReadLock
from reconciler.model.evidence import Containerd
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState, lock_holder
from reconciler.probe.owner import doubt_about_root


def reading(layout: Layout) -> ReadLock:
    """Read a lock without a worker."""

    async def read(*, owner: bool = False) -> Lock:
        lock = lock_holder(layout.metadata_lock)
        if not owner or lock.state is not LockState.FREE:
            return lock
        return replace(lock, doubt=doubt_about_root(layout))

    return read


def ask(
    layout: Layout,
    *,
    deadline: float = DEADLINE,
    without_containerd: bool = False,
    singles: Singles = NOBODY,
) -> Awaitable[Containerd]:
    """Ask for everything."""
    return health.ask(
        layout,
        reading(layout),
        deadline=deadline,
        without_containerd=without_containerd,
        singles=singles,
    )


def ask_one(layout: Layout, key: BundleKey, *, deadline: float = DEADLINE) -> Awaitable[Containerd]:
    """Ask for one bundle."""
    return health.ask_one(layout, key, reading(layout), deadline=deadline)
