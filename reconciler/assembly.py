"""Assembly: puts the real stages of one state tree together, and takes all apart again.

The only place that knows which adapter stands behind which port. Imported only by commands that do
something, for it draws in most of the program.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace
from typing_extensions import override

from reconciler.clock import SystemClock
from reconciler.containerd import health
from reconciler.containerd.answers import Singles, is_absent
from reconciler.model.containerd import ShimGroup
from reconciler.model.debris import Inventory
from reconciler.model.evidence import Containerd, Look, PartialLook, ProcessScan
from reconciler.model.ids import BundleKey
from reconciler.ports import (
    BatchInspector,
    Emit,
    Exits,
    Inspector,
    NodeSource,
    RemoteInspector,
    Source,
    Stages,
    Watcher,
)
from reconciler.probe.points import BundleMounts, MountPoints
from reconciler.probe.tree import FilteredInspector, TreeInspector
from reconciler.setup import Setup, acts, options_of
from reconciler.worker.client import ForkServerClient
from reconciler.worker.guards import NodeGuards
from reconciler.worker.lock import InstanceLock, directory
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import LOOKERS, WorkerPool

_T = TypeVar("_T")


class LiveNodeSource(NodeSource):
    """The two witnesses that speak about the whole node."""

    def __init__(self, setup: Setup, pool: WorkerPool) -> None:
        self._setup = setup
        self._pool = pool
        self._slow: frozenset[str] = frozenset()

    @override
    async def scan(self) -> ProcessScan:
        """Pass over /proc in a worker, which can be killed should it hang."""
        return await self._pool.scan()

    @override
    async def inventory(self) -> Inventory:
        """Have a worker find what lies outside of bundles."""
        taken, asked = await self._pool.inventory(), self._setup.namespaces
        if not asked:
            return taken
        # Of what names no namespace nobody can say that it is in one of these.
        return replace(taken, places=tuple(one for one in taken.places if one.namespace in asked))

    @override
    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        """Ask containerd, unless the operator says that there is none."""
        layout, without_containerd = self._setup.layout, self._setup.without_containerd
        singles, read_lock = Singles(about, self._slow, shims), self._pool.lock
        said = await health.ask(
            layout, read_lock, without_containerd=without_containerd, singles=singles
        )
        self._slow = said.unlisted
        return said

    @override
    async def task(self, key: BundleKey, shim: ShimGroup = ()) -> Containerd:
        """Ask containerd for one bundle alone."""
        layout, without_containerd = self._setup.layout, self._setup.without_containerd
        return await health.ask_one(
            layout, key, self._pool.lock, shim=shim, without_containerd=without_containerd
        )


class WorkerInspector(BatchInspector):
    """Workers that look, where there is a second processor.

    Some more than there are processors: each waits for the loop's next turn between two handfuls.

    For one-shot commands: a look made elsewhere arrives a moment after it was made, and a
    daemon, which learns what changes meanwhile, should never have to compare the two.
    """

    def __init__(self, pool: WorkerPool, inspector: TreeInspector) -> None:
        self.many = LOOKERS if len(os.sched_getaffinity(0)) > 1 else 0
        self._pool = pool
        self._inspector = inspector

    @override
    async def look(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None] | None:
        """Look in a worker, which can be killed should it hang."""
        return await _with_all_asked(self._inspector, partial(self._pool.look, keys))


class KillableInspector(RemoteInspector):
    """Workers that look where the parent may not: each can be killed should it hang."""

    def __init__(self, pool: WorkerPool, inspector: TreeInspector) -> None:
        self._pool = pool
        self._inspector = inspector

    @override
    async def look(
        self, keys: Sequence[BundleKey], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        """Look in a worker."""
        look = partial(self._pool.look_far, keys, places=places)
        return await _with_all_asked(self._inspector, look)


async def _with_all_asked(
    inspector: TreeInspector, look: Callable[[frozenset[str]], Awaitable[_T | None]]
) -> _T | None:
    """Look again if a reload asked for more annotations meanwhile: it must not be taken for new."""
    while True:
        asked = inspector.annotation_keys
        looks = await look(asked)
        if looks is None or inspector.annotation_keys <= asked:
            return looks


class NoExits(Exits):
    """For one-shot commands: they end before it matters when a process ends."""

    @override
    async def run(self, emit: Emit) -> None:
        """Do nothing."""

    @override
    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        """Do nothing."""

    @override
    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        """Do nothing."""

    @override
    def expect_containerd(self, pid: int | None) -> None:
        """Do nothing."""

    @override
    def forget(self, key: BundleKey) -> None:
        """Do nothing."""


class Opened(msgspec.Struct, frozen=True):
    """The stages of a session, and those among them that can be given something new.

    Attributes:
        setup: What it was opened with; where things are does not change while it is open.
        stages: The stages.
        pool: The cleaner.
        inspector: Looks at bundles.
        lock: Held by whoever may remove something.
    """

    setup: Setup
    stages: Stages
    pool: WorkerPool
    inspector: TreeInspector
    lock: InstanceLock

    def configure(self, setup: Setup) -> None:
        """Let another setup hold from the next look, job and check of the guards on.

        What can fail comes first: then nothing of it holds.
        """
        self.pool.configure(options_of(setup), parallel=setup.policies.parallel)
        self.inspector.annotation_keys = setup.policies.annotation_keys
        self.lock.acting = acts(setup.policies)


@asynccontextmanager
async def opened(
    setup: Setup,
    *,
    acting: bool = False,
    watching: bool = False,
    server: ForkServerClient | None = None,
    listens: str = "",
) -> AsyncIterator[Opened]:
    """Put the stages together; all processes and handles are gone when it closes.

    Args:
        setup: What the operator said.
        acting: Something may be removed: be the only one on this tree that may.
        watching: For a run that lasts: follow changes, not only look once.
        server: A fork server that was started for this setup already.
        listens: The socket at which it can be asked.
    """
    policies, layout = setup.policies, setup.layout
    clock = SystemClock()

    async def delete(key: BundleKey) -> str:
        return await health.connect(layout.address).delete(key)

    pool = WorkerPool(
        WorkerScope(layout),
        options_of(setup),
        parallel=policies.parallel,
        delete=delete,
        server=server,
    )
    where = setup.locks or directory(os.environ)
    lock = InstanceLock(where, acting=acting, listens=listens)
    guards = NodeGuards(
        layout, pool.preflight, lock, allow_disk=setup.allow_disk, own_tree=setup.own_tree
    )
    with ExitStack() as cleanup:
        asked = policies.annotation_keys | setup.annotation_keys
        inspector = TreeInspector(layout, annotation_keys=asked, clock=clock)
        for closes in (inspector.close, lock.release):
            cleanup.callback(closes)
        exits, watcher, sources = _watchers(setup, cleanup) if watching else _NONE
        if not watching:
            inspector.others = WorkerInspector(pool, inspector)
        async with pool:
            if not (setup.without_containerd or is_absent(layout.address)):
                health.connect(layout.address)  # loads gRPC, while the fork server starts
            stages = Stages(
                clock=clock,
                inspector=_narrowed(inspector, setup.namespaces),
                node_source=LiveNodeSource(setup, pool),
                cleaner=pool,
                guards=guards,
                exits=exits,
                far=KillableInspector(pool, inspector),
                watcher=watcher,
                sources=sources,
            )
            yield Opened(setup, stages, pool, inspector, lock)


_Watchers = tuple[Exits, Watcher | None, tuple[Source, ...]]
_NONE: Final[_Watchers] = (NoExits(), None, ())


def _watchers(setup: Setup, cleanup: ExitStack) -> _Watchers:
    # Here, because commands that look once start without them a tenth sooner.
    from reconciler.watch.exits import ExitWatch
    from reconciler.watch.mounts import MountWatch
    from reconciler.watch.select import Trees

    layout = setup.layout
    exits, watcher = ExitWatch(), Trees(layout, setup.backend)
    points = MountPoints(SystemClock())
    for closes in (exits, watcher, points):
        cleanup.callback(closes.close)
    mounts = MountWatch(
        lambda: BundleMounts(points.now(anew=True), os.path.realpath(layout.tasks)).all()
    )
    if setup.without_containerd:
        return exits, watcher, (mounts,)
    from reconciler.containerd.client import Events  # loads gRPC

    return exits, watcher, (mounts, Events(health.connect(layout.address), SystemClock()))


def _narrowed(inspector: Inspector, namespaces: frozenset[str]) -> Inspector:
    if not namespaces:
        return inspector
    return FilteredInspector(inspector, lambda key: key.namespace in namespaces)
