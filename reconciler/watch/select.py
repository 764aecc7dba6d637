"""The watcher: whichever backend works now, and the way between them.

Down by itself, one rung at a time, when a backend has nothing left: inotify, then watchfiles
polling, then none, which leaves listings alone. Up again, with patience, when the caller's own
listings come by. Every step is a resync, and its reason can be read.

Each tree has a watcher of its own: that of tasks and, where there is one, that of sandboxes
(containerd 2.x). A node without that tree pays one system call with each listing of the whole node.
Where the tree appears later, containerd was started, and that is followed by such a listing.
"""

from collections.abc import Callable, Collection
from typing import Final, Literal

import anyio

from reconciler.model.ids import SANDBOX_TREE, TASK_TREE, BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Resync, ResyncKind
from reconciler.ports import Emit
from reconciler.probe.tree import has_sandboxes
from reconciler.watch.backend import Backend, BackendError
from reconciler.watch.inotify import InotifyBackend
from reconciler.watch.inotify_fd import Handle, Inotify

Choice = Literal["auto", "inotify", "watchfiles", "poll", "none"]

_LADDERS: Final[dict[Choice, tuple[str, ...]]] = {
    "auto": ("inotify", "poll", "none"),
    "inotify": ("inotify", "poll", "none"),
    "watchfiles": ("watchfiles", "poll", "none"),
    "poll": ("poll", "none"),
    "none": ("none",),
}

_PATIENCE: Final = 2
_MOST_PATIENCE: Final = 16
"""Listings between two attempts to step up; doubled by every attempt."""


class NoBackend:
    """Watches nothing; listings find everything, later."""

    name = "none"
    relist_hint = 10.0

    def open(self) -> None:
        """Nothing to open."""

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Nothing to fit."""

    async def run(self, emit: Emit) -> None:  # noqa: ARG002 - it has nothing to say
        """Sleep until cancelled."""
        await anyio.sleep_forever()

    def close(self) -> None:
        """Nothing to close."""


class Watching:
    """Watches one state tree; implements `ports.Watcher`.

    Args:
        layout: Where the tree is.
        backend: What to begin with.
        make_inotify: Makes inotify instances.
        tree: Which of containerd's trees, as keys have it.
    """

    def __init__(
        self,
        layout: Layout,
        backend: Choice = "auto",
        *,
        make_inotify: Callable[[], Handle] = Inotify,
        tree: str = TASK_TREE,
    ) -> None:
        self._tree = tree
        self._layout = layout
        self._make_inotify = make_inotify
        self._ladder = _LADDERS[backend]
        self._rung = 0
        self._reason = ""
        self._current = self._make(0)
        self._running = False
        self._switched = anyio.Event()
        self._patience = _PATIENCE
        self._waited = 0

    @property
    def backend(self) -> str:
        """Which backend works now: ``inotify``, ``watchfiles``, ``poll`` or ``none``."""
        return self._current.name

    @property
    def reason(self) -> str:
        """Why it is not the one we began with, in one line; empty if it is."""
        return self._reason

    @property
    def relist_hint(self) -> float | None:
        """Seconds between listings that make up for what it cannot see; None if it sees all."""
        return self._current.relist_hint

    # ------------------------------------------------------------------ the port

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Make watches fit a listing of the whole tree, and try to step up now and then."""
        if not self._rung:
            self._patience = max(_PATIENCE, self._patience - 1)
        elif self._is_time_to_try():
            self._try_up(bundles)
        try:
            self._current.open()
            self._current.follow(bundles)
        except BackendError as error:
            self._step_down(error)

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled, and close."""
        self._running = True
        if self._rung:
            emit(Resync(ResyncKind.BACKEND))  # it was left before anybody could receive it
        try:
            while True:
                self._switched = anyio.Event()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._drive, self._current, emit)
                    await self._switched.wait()
                    tasks.cancel_scope.cancel()
                emit(Resync(ResyncKind.BACKEND))
        finally:
            self._running = False
            self._current.close()

    def close(self) -> None:
        """Give everything back, where :meth:`run` has not."""
        self._current.close()

    # ------------------------------------------------------------------ up and down

    async def _drive(self, backend: Backend, emit: Emit) -> None:
        try:
            backend.open()
            await backend.run(emit)
        except* BackendError as group:
            if backend is self._current:
                self._step_down(_first(group))

    def _step_down(self, error: BackendError) -> None:
        left = self._current
        self._rung += 1
        self._current = self._make(self._rung)
        self._reason = f"{error}; {self._current.name} instead of {self._ladder[0]}"
        self._leave(left)

    def _try_up(self, bundles: Collection[BundleKey]) -> None:
        for rung in range(self._rung):
            better = self._make(rung)
            try:
                better.open()
                better.follow(bundles)
            except BackendError:
                better.close()
                continue
            left, self._current, self._rung = self._current, better, rung
            if not rung:
                self._reason = ""
            self._leave(left)
            return

    def _leave(self, left: Backend) -> None:
        if self._running:
            self._switched.set()  # it closes what it opened as it is cancelled
        else:
            left.close()

    def _is_time_to_try(self) -> bool:
        self._waited += 1
        if self._waited < self._patience:
            return False
        self._waited = 0
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        return True

    def _make(self, rung: int) -> Backend:
        match self._ladder[rung]:
            case "inotify":
                return InotifyBackend(self._layout, self._make_inotify, tree=self._tree)
            case "watchfiles" | "poll" as name:
                # Here, because it is a megabyte that is not needed where inotify works.
                from reconciler.watch.watchfiles import WatchfilesBackend

                polling = name == "poll"
                return WatchfilesBackend(self._layout, polling=polling, tree=self._tree)
            case _:
                return NoBackend()


def _first(group: BaseExceptionGroup[BackendError]) -> BackendError:
    found = group.exceptions[0]
    return found if isinstance(found, BackendError) else _first(found)


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
