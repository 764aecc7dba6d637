"""A small state tree, an ear for what a watcher says, and a mirror that believes it."""

import asyncio
import os
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import TASKS, Layout
from reconciler.model.observations import Hint, HintKind, Observation, Resync, ResyncKind
from reconciler.ports import Source, Watcher
from tests.support.handles import open_files

PATIENCE = 10.0


class Tree:
    """A state tree below a directory of the test's own."""

    def __init__(self, state: Path, *, make: bool = True) -> None:
        self.state = state
        self.layout = Layout(state=os.fsencode(state))
        self.root = state / TASKS.decode()
        if make:
            self.root.mkdir(parents=True)

    def namespace(self, name: str = "ns") -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def bundle(self, id_: str, namespace: str = "ns") -> Path:
        path = self.root / namespace / id_
        path.mkdir(parents=True)
        return path

    def listed(self) -> list[BundleKey]:
        """List it as the loop would."""
        return sorted(
            BundleKey(escape(os.fsencode(ns.name)), escape(os.fsencode(bundle.name)))
            for ns in self.root.iterdir()
            if ns.is_dir() and not ns.is_symlink()
            for bundle in ns.iterdir()
            if not bundle.name.startswith(".")
        )

    def look(self, key: BundleKey) -> tuple[int, frozenset[str]] | None:
        """Tell which object a bundle is and what is in it; None if there is none."""
        path = self.root / os.fsdecode(key.path)
        try:
            if path.parent.is_symlink():
                return None
            found = path.lstat()
            names = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
            return found.st_ino, frozenset(name.name for name in names)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def truth(self) -> dict[BundleKey, tuple[int, frozenset[str]]]:
        if not self.root.exists():
            return {}
        return {key: look for key in self.listed() if (look := self.look(key)) is not None}


class Inbox:
    """Hears what is emitted, and lets a test wait until it has heard enough."""

    def __init__(self) -> None:
        self.received: list[Observation] = []
        self._more = anyio.Event()

    def __call__(self, observation: Observation) -> None:
        self.received.append(observation)
        self._more.set()

    def hints(self, kind: HintKind = HintKind.CHANGED) -> list[BundleKey]:
        return [o.key for o in self.received if isinstance(o, Hint) and o.kind is kind]

    def resyncs(self) -> list[Resync]:
        return [o for o in self.received if isinstance(o, Resync)]

    def kinds(self) -> list[ResyncKind]:
        return [doubt.kind for doubt in self.resyncs()]

    def forget(self) -> None:
        self.received.clear()

    async def until(self, received: Callable[[], bool]) -> None:
        """Wait until a condition on what was heard holds; fail after a while."""
        with anyio.move_on_after(PATIENCE):
            while not received():
                self._more = anyio.Event()
                await self._more.wait()
        assert received(), f"never came; heard {self.received[-20:]}"

    async def hint(self, namespace: str, id_: str, kind: HintKind = HintKind.CHANGED) -> None:
        key = BundleKey(escape(os.fsencode(namespace)), escape(os.fsencode(id_)))
        await self.until(lambda: key in self.hints(kind))

    async def resync(self, kind: ResyncKind, namespace: str | None = None) -> None:
        await self.until(lambda: Resync(kind, namespace) in self.received)


@asynccontextmanager
async def running(source: Source, inbox: Inbox) -> AsyncIterator[None]:
    """Run a source beside the test."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, inbox)
        await anyio.wait_all_tasks_blocked()
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def turn() -> None:
    """Let the event loop turn, so that what has happened so far is heard."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def wake_ups(seconds: float) -> int:
    """Count the turns of the event loop while nobody here does anything."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # not public
    assert isinstance(selector, selectors.BaseSelector)
    select, turns = selector.select, 0

    def counted(timeout: float | None = None) -> Sequence[object]:
        nonlocal turns
        turns += 1
        return select(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selector, "select", counted)
        with anyio.move_on_after(seconds):
            await anyio.sleep_forever()
    assert turns, "nothing was counted"
    return turns


class Mirror:
    """Believes about the tree only what it looked up when told to, as the engine does."""

    def __init__(self, tree: Tree, watcher: Watcher) -> None:
        self._tree = tree
        self._watcher = watcher
        self._inbox: list[Observation] = []
        self._more = anyio.Event()
        self.seen: dict[BundleKey, tuple[int, frozenset[str]]] = {}
        self.resyncs: list[ResyncKind] = []

    def emit(self, observation: Observation) -> None:
        self._inbox.append(observation)
        self._more.set()

    def relist(self, namespace: str | None = None) -> None:
        keys = self._tree.listed() if self._tree.root.exists() else []
        listed = [key for key in keys if namespace in {None, key.namespace}]
        if namespace is None:
            self._watcher.follow(listed)
        known = [key for key in self.seen if namespace in {None, key.namespace}]
        for key in {*listed, *known}:
            self._look(key)

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.move_on_after(PATIENCE):
            while True:
                self._take_in()
                if condition():
                    return
                self._more = anyio.Event()
                await self._more.wait()
        truth = self._tree.truth()
        missing = {key for key in truth.keys() | self.seen if truth.get(key) != self.seen.get(key)}
        raise AssertionError(f"the mirror differs from the tree: {missing}")

    async def until_true(self) -> None:
        """Wait until what is believed is the truth."""
        await self.until(lambda: self.seen == self._tree.truth())

    def _take_in(self) -> None:
        inbox, self._inbox = self._inbox, []
        for observation in inbox:
            match observation:
                case Hint(key=key):
                    self._look(key)
                case Resync(kind=kind, namespace=namespace):
                    self.resyncs.append(kind)
                    self.relist(namespace)
                case _:
                    raise AssertionError(observation)

    def _look(self, key: BundleKey) -> None:
        look = self._tree.look(key)
        if look is None:
            self.seen.pop(key, None)
        else:
            self.seen[key] = look


def watches() -> int:
    """Count the inotify watches this process has, as the kernel tells."""
    count = 0
    for name in os.listdir("/proc/self/fdinfo"):
        try:
            count += Path(f"/proc/self/fdinfo/{name}").read_text().count("inotify wd:")
        except FileNotFoundError:
            continue
    return count


async def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until something holds that rings no bell; tell whether it came to hold."""
    with anyio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- nobody would set the event
            await anyio.sleep(0.002)
    return condition()


async def only_open(before: set[str]) -> bool:
    """Wait until no more is open than before; threads of libraries close in their own time."""
    return await eventually(lambda: open_files() <= before)
