"""The watchfiles backend: for where inotify has nothing left, or the operator chose it.

Non-recursive, on the root and its namespaces only, so it reports bundles that come and go and,
when polling, of files that come and go in them, unless within the second of the change before (it
compares whole seconds); the rest waits for a listing. It drops what overflows without a word, so
listings must be more frequent (:attr:`WatchfilesBackend.relist_hint`).
Its paths are fixed when it starts, so it starts again whenever a namespace comes or goes, and
everything is doubted then. Events are gathered in a thread of its own.
"""

import os
from collections.abc import Collection
from contextlib import aclosing, suppress
from typing import Final

import anyio
import anyio.lowlevel
from watchfiles import awatch

from reconciler.model.ids import TASK_TREE, BundleKey, Identity, escape, is_identifier
from reconciler.model.layout import Layout
from reconciler.model.observations import Hint, Resync, ResyncKind
from reconciler.ports import Emit
from reconciler.probe.beneath import opened
from reconciler.watch.ancestors import identify
from reconciler.watch.backend import BackendError

STEP_MS: Final = 50
"""How long changes are gathered: about half of it is the delay without polling."""

MOST_MS: Final = 200
"""How long changes are gathered at most while they keep coming."""

POLL_MS: Final = 500
"""How often it looks when polling; every look is one stat per bundle, in its thread."""

ROOT_CHECK: Final = 1.0
"""Seconds between checks that the root is still the same directory: one system call."""


class WatchfilesBackend:
    """Watches one state tree; implements `backend.Backend`.

    Args:
        layout: Where the tree is.
        tree: Which of containerd's trees, as keys have it.
        polling: Look at the disk again and again instead of asking the kernel.
    """

    relist_hint = 60.0

    def __init__(self, layout: Layout, *, polling: bool, tree: str = TASK_TREE) -> None:
        self.name = "poll" if polling else "watchfiles"
        self._tree = tree
        self._tasks = layout.tree(tree)
        self._polling = polling
        self._namespaces: dict[bytes, int] = {}

    def open(self) -> None:
        """Check that the path can be given to watchfiles; watching begins with :meth:`run`."""
        try:
            self._tasks.decode()
        except UnicodeDecodeError as error:
            raise BackendError("watchfiles needs a state directory named in UTF-8") from error

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Nothing to fit: no bundle is watched."""

    def close(self) -> None:
        """Nothing to close: :meth:`run` closes what it opens."""

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled. Every start is a resync: what changed before it was not seen."""
        while True:
            root = identify(self._tasks)
            if root is None:
                await anyio.sleep(ROOT_CHECK)
            else:
                await self._run_round(root, emit)
            if identify(self._tasks) != root:
                emit(Resync(ResyncKind.ROOT_CHANGED))

    async def _run_round(self, root: Identity, emit: Emit) -> None:
        """Watch until there are other namespaces or another root."""
        stop = anyio.Event()
        self._namespaces = self._list_namespaces()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, emit, stop)
            try:
                # It begins to watch in its first step, which comes before our next one.
                await anyio.lowlevel.checkpoint()
                emit(Resync(ResyncKind.BACKEND))
                while not stop.is_set() and identify(self._tasks) == root:
                    with anyio.move_on_after(ROOT_CHECK):
                        await stop.wait()
            finally:
                stop.set()  # its thread is deaf to cancellation

    async def _watch(self, emit: Emit, stop: anyio.Event) -> None:
        """Watch until a stop is requested; set ``stop`` when the namespaces are others."""
        names = [name for name in self._namespaces if is_identifier(escape(name))]
        paths = [self._tasks, *(self._tasks + b"/" + name for name in names)]
        changes = awatch(
            *(os.fsdecode(path) for path in paths),
            watch_filter=None,
            debounce=MOST_MS,
            step=STEP_MS,
            rust_timeout=0,
            stop_event=stop,
            force_polling=self._polling,
            poll_delay_ms=POLL_MS,
            recursive=False,
        )
        try:
            async with aclosing(changes):
                async for batch in changes:
                    self._digest({path for _, path in batch}, emit, stop)
        except FileNotFoundError:
            await anyio.sleep(ROOT_CHECK)  # gone since it was listed: begin anew, without haste
        except ExceptionGroup as group:
            if not group.split(RuntimeError)[0]:
                raise
            await anyio.sleep(ROOT_CHECK)  # it fails on any name that is not UTF-8: likewise
        except (OSError, RuntimeError) as error:
            raise BackendError(f"watchfiles: {error}") from error
        stop.set()

    def _digest(self, paths: set[str], emit: Emit, stop: anyio.Event) -> None:
        """Emit one hint per bundle."""
        for path in paths:
            below = os.fsencode(path)[len(self._tasks) + 1 :]
            namespace, slash, name = below.partition(b"/")
            if not slash:
                if self._list_namespaces() != self._namespaces:
                    stop.set()
            elif not name.startswith(b"."):
                emit(Hint(BundleKey(escape(namespace), escape(name), self._tree)))

    def _list_namespaces(self) -> dict[bytes, int]:
        """Find the namespaces and which directories they are."""
        found: dict[bytes, int] = {}
        # One that is gone, or goes meanwhile, has none: the root is checked.
        with suppress(OSError), opened(self._tasks) as tree, os.scandir(tree) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    found[os.fsencode(entry.name)] = entry.inode()
        return found
