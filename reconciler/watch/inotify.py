"""The inotify backend: one watch on the root, one per namespace, one per bundle, none below.

Events become hints (look at this bundle) and resyncs (list this again). The order is always: add
the watch, then say that something is there; so what happens in between is seen by the look or is
an event. Between events nothing here wakes up. No event is believed: it may be older than the
tree, and what it names may be gone.
"""

from collections.abc import Callable, Collection
from typing import Final

import anyio
import anyio.lowlevel

from reconciler.clock import SystemClock
from reconciler.model.ids import TASK_TREE, BundleKey, Identity, escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Hint, Observation, Resync, ResyncKind
from reconciler.ports import Clock, Emit
from reconciler.watch import inotify_fd
from reconciler.watch.ancestors import SELF, Ancestors, identify
from reconciler.watch.backend import BackendError
from reconciler.watch.inotify_fd import Event, Handle, Inotify
from reconciler.watch.mounts import watch_mounts
from reconciler.watch.table import Place, WatchTable

GATHER: Final = 0.002
"""Seconds for which events that follow others are gathered; the budget for latency is 5 ms."""

_PIDS: Final = frozenset({b"init.pid", b"shim.pid"})
"""Files of that name which are evidence: of the init, and of a runtime that is not runc."""

QUIET: Final = 0.0015
"""Seconds without an event after which the next one is taken at once."""


def _is_of_an_exec(event: Event) -> bool:
    """Recognize the pid file of an exec, or the name it has while it is written: it is no evidence.

    Exec probes create several a second and never delete them, so a look for each would cost more
    and more. The next look sees them as a sign of life: there is one when the task ends, at every
    listing and before a removal.
    """
    name = event.name
    return name.endswith(b".pid") and name not in _PIDS and not event.mask & inotify_fd.ISDIR


class InotifyBackend:
    """Watches one state tree; implements `backend.Backend`.

    Args:
        layout: Where the tree is.
        make: Makes the inotify instance.
        clock: Gives whether events come thick and fast.
        tree: Which of containerd's trees, as keys have it.
    """

    name = "inotify"
    relist_hint = None

    def __init__(
        self,
        layout: Layout,
        make: Callable[[], Handle] = Inotify,
        clock: Clock | None = None,
        *,
        tree: str = TASK_TREE,
    ) -> None:
        self._clock = clock or SystemClock()
        self._tree = tree
        self._tasks = layout.tree(tree)
        self._make = make
        self._inotify: Handle | None = None
        self._table: WatchTable
        self._ancestors: Ancestors
        self._root: Identity | None = None
        self._outbox: list[Observation] = []  # until somebody receives it
        self._emit: Emit = self._outbox.append
        self._more = anyio.Event()
        self._mounted = anyio.Event()
        self._unsettled = False
        self._suspect = False
        self._lost = False
        self._hints: dict[BundleKey, None] = {}
        self._resyncs: dict[Resync, None] = {}

    # ------------------------------------------------------------------ the backend's five

    def open(self) -> None:
        """Begin to watch the root, its namespaces and a first slice of their bundles."""
        if self._inotify is not None:
            return
        self._inotify = self._make()
        self._table = WatchTable(self._inotify, self._tasks, self._tree)
        self._ancestors = Ancestors(self._table, self._tasks)
        try:
            self._watch_anew()
        except BackendError:
            self.close()
            raise

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Make watches fit a listing; what it did not list is hinted at."""
        self._check_root()
        for key in self._table.fit(bundles):
            self._emit(Hint(key))
        self._table.add_pending()
        if self._table.pending:
            self._more.set()

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled, and close."""
        try:
            self.open()
            self._emit = emit
            while self._outbox:
                emit(self._outbox.pop(0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._add_in_slices)
                try:
                    await tasks.start(watch_mounts, self._ring)
                except OSError as error:
                    raise BackendError(f"cannot watch the mount table: {error}") from error
                tasks.start_soon(self._check_after_mounts)
                await self._read()
        finally:
            self._emit = self._outbox.append
            self.close()

    def close(self) -> None:
        """End all watches."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None

    # ------------------------------------------------------------------ tasks

    async def _read(self) -> None:
        """Take one bounded chunk of events per turn of the loop.

        The first event after a while is taken at once; those on its heels are gathered, because
        waking up costs more than all there is to do for an event.
        """
        quiet_at = float("-inf")
        while self._inotify is not None:
            await anyio.wait_readable(self._inotify.fileno())
            if self._clock.monotonic() < quiet_at:
                await anyio.sleep(GATHER)
            self._digest(self._inotify)
            quiet_at = self._clock.monotonic() + QUIET

    async def _add_in_slices(self) -> None:
        """Add the watches that were too many for one go; the look may have come before them."""
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            while self._table.pending:
                for key in self._table.add_pending():
                    self._emit(Hint(key))
                await anyio.lowlevel.checkpoint()

    async def _check_after_mounts(self) -> None:
        while True:
            self._check_root()
            await self._mounted.wait()
            self._mounted = anyio.Event()

    def _ring(self) -> None:
        self._mounted.set()

    # ------------------------------------------------------------------ events

    def _digest(self, inotify: Handle) -> None:
        """Turn a chunk of events into at most one hint per bundle."""
        overflowed = False
        with self._table.entered():
            for event in inotify.read():
                overflowed |= bool(event.mask & inotify_fd.OVERFLOW)
                self._take(event)
        if overflowed:
            self._table.forget(drop=False)
            self._watch_anew()
            self._resyncs[Resync(ResyncKind.OVERFLOW)] = None
        if self._unsettled:
            self._unsettled = False
            self._ancestors.settle()
        if self._suspect:
            self._suspect = False
            self._check_root()
        hints, self._hints = self._hints, {}
        resyncs, self._resyncs = self._resyncs, {}
        for key in hints:
            self._emit(Hint(key))
        for resync in resyncs:
            self._emit(resync)
        if self._table.pending:
            self._more.set()

    def _take(self, event: Event) -> None:
        target = self._table.target(event.wd)
        if isinstance(target, BundleKey):
            if not _is_of_an_exec(event):
                self._hints[target] = None
            if event.mask & inotify_fd.GONE:
                self._end(event)
        elif isinstance(target, str):
            self._take_namespace(target, event)
        elif target is Place.ROOT:
            self._take_root(event)
        elif target is Place.ANCESTOR:
            self._take_ancestor(event)
        elif event.mask & inotify_fd.IGNORED:
            self._table.ended(event.wd)
        elif event.wd >= 0:
            self._table.stranger(event.wd)

    def _take_namespace(self, namespace: str, event: Event) -> None:
        """Something in a namespace directory, or the end of it."""
        if event.mask & inotify_fd.GONE:
            self._end(event)
            self._table.drop(namespace)
            self._resyncs[Resync(ResyncKind.WATCH_LOST, namespace)] = None
        elif event.mask & inotify_fd.DELETE_SELF:
            self._table.drop(namespace)
            self._resyncs[Resync(ResyncKind.NAMESPACE, namespace)] = None
        elif not event.name.startswith(b"."):
            key = BundleKey(namespace, escape(event.name), self._tree)
            self._hints[key] = None
            if not event.mask & inotify_fd.CAME:
                self._table.drop(key)
            elif event.mask & inotify_fd.ISDIR:
                self._table.add_bundle(key)

    def _take_root(self, event: Event) -> None:
        """A namespace came or went, or something befell the root itself."""
        if event.mask & inotify_fd.GONE:
            self._end(event)
            self._lost = self._suspect = True
        elif event.mask & SELF:
            self._suspect = True
        elif not event.name.startswith(b"."):
            namespace = escape(event.name)
            if not event.mask & inotify_fd.CAME:
                self._table.drop(namespace)
            elif event.mask & inotify_fd.ISDIR:
                self._table.add_namespace(namespace)
            self._resyncs[Resync(ResyncKind.NAMESPACE, namespace)] = None

    def _take_ancestor(self, event: Event) -> None:
        if event.mask & inotify_fd.GONE:
            self._table.ended(event.wd)
        self._unsettled |= bool(event.mask & (inotify_fd.GONE | SELF)) or self._root is None
        self._suspect = True

    def _end(self, event: Event) -> None:
        """Note that a watch has ended; after an unmount the root may be another."""
        self._table.ended(event.wd)
        self._suspect |= bool(event.mask & inotify_fd.UNMOUNT)

    # ------------------------------------------------------------------ the root

    def _check_root(self) -> None:
        """If the path of the tree means another directory than the one watched, start anew."""
        if identify(self._tasks) == self._root and not self._lost:
            return
        self._lost = False
        self._table.forget(drop=True)
        self._watch_anew()
        self._emit(Resync(ResyncKind.ROOT_CHANGED))

    def _watch_anew(self) -> None:
        """Watch whatever there is: outside in, and first watch, then list."""
        self._ancestors.settle()
        self._root = self._table.add_root()
        self._table.add_tree()
        self._table.add_pending()
        if self._table.pending:
            self._more.set()
