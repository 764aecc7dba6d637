"""Trees: watches the tree of tasks and, where there is one, that of sandboxes (containerd 2.x).

A node without that tree pays one system call with each listing of the whole node. Where the tree
appears later, containerd was started, and that is followed by such a listing.
"""

from collections.abc import Callable, Collection

import anyio

from reconciler.model.ids import SANDBOX_TREE, BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Resync, ResyncKind
from reconciler.ports import Emit
from reconciler.probe.tree import has_sandboxes
from reconciler.watch.handle import Handle, Inotify
from reconciler.watch.select import Choice, Watching


class Trees:
    """Watches both trees of a containerd; implements `ports.Watcher`.

    Args:
        layout: Where they are.
        backend: What to begin with.
        make_inotify: Makes inotify instances.
    """

    def __init__(
        self,
        layout: Layout,
        backend: Choice = "auto",
        *,
        make_inotify: Callable[[], Handle] = Inotify,
    ) -> None:
        self._layout = layout
        self._tasks = Watching(layout, backend, make_inotify=make_inotify)
        self._backend, self._make_inotify = backend, make_inotify
        self._sandboxes: Watching | None = None
        self._begun = anyio.Event()

    @property
    def backend(self) -> str:
        """Which backend works now for the tree of tasks."""
        return self._tasks.backend

    @property
    def reason(self) -> str:
        """Why it is not the one we began with, in one line; empty if it is."""
        other = self._sandboxes
        if self._tasks.reason or other is None or not other.reason:
            return self._tasks.reason
        return f"sandboxes: {other.reason}"

    @property
    def relist_hint(self) -> float | None:
        """Seconds between listings that make up for what cannot be seen; None if all can."""
        both = (self._tasks, self._sandboxes)
        hints = [one.relist_hint for one in both if one is not None and one.relist_hint]
        return min(hints, default=None)

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Make watches fit a listing of both trees."""
        sandboxes = [key for key in bundles if key.tree]
        self._tasks.follow([key for key in bundles if not key.tree] if sandboxes else bundles)
        self._begin_if_there()
        if self._sandboxes is not None:
            self._sandboxes.follow(sandboxes)

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled, and close."""
        self._begin_if_there()
        is_late = self._sandboxes is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tasks.run, emit)
            await self._begun.wait()
            if is_late:  # what happened between the listing and the watch was not seen
                emit(Resync(ResyncKind.ROOT_CHANGED))
            if self._sandboxes is not None:
                await self._sandboxes.run(emit)

    def _begin_if_there(self) -> None:
        if self._sandboxes is None and has_sandboxes(self._layout):
            self._sandboxes = Watching(
                self._layout, self._backend, make_inotify=self._make_inotify, tree=SANDBOX_TREE
            )
            self._begun.set()

    def close(self) -> None:
        """Give everything back, where :meth:`run` has not."""
        for one in (self._tasks, self._sandboxes):
            if one is not None:
                one.close()
