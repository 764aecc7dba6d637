"""The table of watches: which directory each watch descriptor stands for.

Watches follow inodes while names move, events are older than the tree they describe, and a watch
may end by itself: the table keeps names and descriptors one to one through all of that. It emits
nothing and keeps no directory handle between calls: one would keep mounts busy.

A directory is entered beneath the root, never through a symlink or a mount, by an O_PATH handle
that lives for one call. So a name that was swapped for a symlink is not followed, and what is
mounted over a bundle, a dead FUSE for instance, is not asked anything.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from reconciler import kernel
from reconciler.model.ids import TASK_TREE, BundleKey, Identity, escape, unescape
from reconciler.probe.beneath import beneath, identity_of, visible
from reconciler.watch import inotify_fd
from reconciler.watch.inotify_fd import Handle, raise_if_exhausted

SLICE: Final = 1000
"""Watches added in one go: 15 ms of work."""

ROOT_MASK: Final = (
    inotify_fd.NAMES | inotify_fd.DELETE_SELF | inotify_fd.MOVE_SELF | inotify_fd.ONLYDIR
)
NAMESPACE_MASK: Final = inotify_fd.NAMES | inotify_fd.DELETE_SELF | inotify_fd.ONLYDIR
BUNDLE_MASK: Final = (
    inotify_fd.NAMES | inotify_fd.CLOSE_WRITE | inotify_fd.EXCL_UNLINK | inotify_fd.ONLYDIR
)

_PATH_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(Enum):
    """A watched directory that is neither a namespace nor a bundle."""

    ROOT = "root"
    ANCESTOR = "ancestor"


Target = BundleKey | str | Place
"""What a watch stands for; text names a namespace."""


class WatchTable:
    """Adds and drops watches below one state tree.

    Args:
        inotify: The instance to use.
        tasks: Path of the tree.
        tree: Which tree that is, as keys have it.
    """

    def __init__(self, inotify: Handle, tasks: bytes, tree: str = TASK_TREE) -> None:
        self._inotify = inotify
        self._tasks = tasks
        self._tree = tree
        self._targets: dict[int, Target] = {}
        self._wds: dict[Target, int] = {}
        self._pending: dict[BundleKey, None] = {}
        self._leaving: set[int] = set()
        self._root_fd = -1

    # ------------------------------------------------------------------ questions

    def target(self, wd: int) -> Target | None:
        """Return what an event's descriptor stands for; None if nothing any more."""
        return self._targets.get(wd)

    @property
    def pending(self) -> bool:
        """There are bundles that wait for their watch."""
        return bool(self._pending)

    def __len__(self) -> int:
        return len(self._targets)

    # ------------------------------------------------------------------ adding

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold the root open for a batch of additions, if there is one; re-entrant."""
        if self._root_fd >= 0:
            yield
            return
        try:
            self._root_fd = os.open(self._tasks, _PATH_HANDLE)
        except OSError as error:
            raise_if_exhausted(error)
        try:
            yield
        finally:
            if self._root_fd >= 0:
                os.close(self._root_fd)
            self._root_fd = -1

    def add_root(self) -> Identity | None:
        """Watch the root; return which object that is, None if there is none."""
        with self.entered():
            if self._root_fd < 0:
                return None
            wd = self._watch(self._root_fd, ROOT_MASK)
            if wd is not None:
                self._bind(wd, Place.ROOT)
            found = kernel.statx_handle(self._root_fd)
            return identity_of(found)

    def add_tree(self) -> None:
        """Watch every namespace, and put its bundles in line."""
        with self.entered():
            if self._root_fd >= 0:
                for name in self._names("."):
                    self.add_namespace(name)

    def add_namespace(self, namespace: str) -> None:
        """Watch a namespace first, then list it, and put its bundles in line."""
        if self._add(namespace, namespace, NAMESPACE_MASK):
            for name in self._names(namespace):
                key = BundleKey(namespace, name, self._tree)
                if key not in self._wds:
                    self._pending[key] = None

    def add_bundle(self, key: BundleKey) -> None:
        """Watch a bundle, if it is a directory."""
        self._pending.pop(key, None)
        self._add(key, key.name, BUNDLE_MASK)

    def add_pending(self) -> list[BundleKey]:
        """Watch a slice of the bundles in line; return which are out of it."""
        done: list[BundleKey] = []
        with self.entered():
            while self._pending and len(done) < SLICE:
                key = next(iter(self._pending))
                self.add_bundle(key)
                done.append(key)
        if not self._pending:
            self._pending = {}  # the emptied one is as large as the line was
        return done

    # ------------------------------------------------------------------ dropping

    def drop(self, target: BundleKey | str) -> None:
        """Stop watching a name that is gone: a bundle, or a namespace with its bundles."""
        wd = self._wds.pop(target, None)
        if wd is not None:
            self._retire(wd)
        if isinstance(target, BundleKey):
            self._pending.pop(target, None)
            return
        for key in [key for key in self._wds if _is_in(key, target)]:
            self._retire(self._wds.pop(key))
        for key in [key for key in self._pending if key.namespace == target]:
            del self._pending[key]

    def ended(self, wd: int) -> None:
        """Note that the kernel has ended a watch."""
        self._leaving.discard(wd)
        target = self._targets.pop(wd, None)
        if target is not None and self._wds.get(target) == wd:
            del self._wds[target]

    def stranger(self, wd: int) -> None:
        """Drop a watch that stands for nothing: its directory was moved away unseen."""
        if wd not in self._leaving:
            self._retire(wd)

    def forget(self, *, drop: bool) -> None:
        """Believe nothing any more.

        Args:
            drop: End the watches, too. Without it those whose directories are added again stay as
                they are, and the others end with their first event (:meth:`stranger`).
        """
        wds = list(self._targets) if drop else []
        self._targets.clear()
        self._wds.clear()
        self._pending.clear()
        self._leaving.clear()
        for wd in wds:
            self._retire(wd)

    def fit(self, listed: Collection[BundleKey]) -> list[BundleKey]:
        """Put in line what was listed and is not watched; drop what is not there any more.

        Returns:
            Bundles that are there although they were not listed.
        """
        with self.entered():
            for key in listed:
                wd = self._wds.pop(key, None)
                if wd is not None:
                    # By the key of the listing, which others keep as well: one object is enough.
                    self._wds[key], self._targets[wd] = wd, key
                else:
                    if key.namespace not in self._wds:
                        self.add_namespace(key.namespace)
                    self._pending[key] = None
        unlisted = {key for key in self._wds if isinstance(key, BundleKey)}.difference(listed)
        there = []
        for key in unlisted:
            if self._is_there(key):
                there.append(key)
            else:
                self.drop(key)
        return there

    # ------------------------------------------------------------------ ancestors

    def add_ancestor(self, path: bytes, mask: int) -> int | None:
        """Watch a directory above the tree, symlinks followed; None if there is none."""
        try:
            wd = self._inotify.add_watch(path, mask | inotify_fd.ONLYDIR)
        except OSError as error:
            raise_if_exhausted(error)
            return None
        self._targets.setdefault(wd, Place.ANCESTOR)
        return wd

    def drop_ancestor(self, wd: int) -> None:
        """Stop watching it."""
        if self._targets.get(wd) is Place.ANCESTOR:
            self._retire(wd)

    # ------------------------------------------------------------------ inside

    def _is_there(self, key: BundleKey) -> bool:
        try:
            kernel.statx(kernel.AT_FDCWD, self._tasks + b"/" + key.path)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # no answer is not a no
        return True

    def _add(self, target: BundleKey | str, path: str, mask: int) -> bool:
        with self.entered():
            if self._root_fd < 0:
                return False
            try:
                fd = kernel.open_beneath(self._root_fd, unescape(path), directory=False)
            except OSError as error:
                raise_if_exhausted(error)
                return False  # gone, a symlink, a mount: nothing of ours to watch
            try:
                wd = self._watch(fd, mask)
            finally:
                os.close(fd)
            if wd is None:
                return False
            self._bind(wd, target)
            return True

    def _watch(self, fd: int, mask: int) -> int | None:
        try:
            return self._inotify.add_watch(b"/proc/self/fd/%d" % fd, mask)
        except OSError as error:
            raise_if_exhausted(error)
            return None  # not a directory, or not ours to read

    def _bind(self, wd: int, target: Target) -> None:
        before = self._targets.get(wd)
        if before is not None and before != target and self._wds.get(before) == wd:
            del self._wds[before]  # renamed; the event that says what is there now is to come
        old = self._wds.get(target)
        if old is not None and old != wd:
            self._retire(old)
        self._targets[wd] = target
        self._wds[target] = wd

    def _retire(self, wd: int) -> None:
        self._targets.pop(wd, None)
        try:
            self._inotify.rm_watch(wd)
        except OSError:
            return  # it has ended by itself
        self._leaving.add(wd)  # until the kernel confirms: events already queued still name it

    def _names(self, path: str) -> list[str]:
        """List what is not hidden in the root (``.``) or in a namespace."""
        try:
            with beneath(self._root_fd, unescape(path)) as directory:
                return [escape(name) for name in visible(directory)]
        except OSError as error:
            raise_if_exhausted(error)
            return []  # gone meanwhile


def _is_in(target: Target, namespace: str) -> bool:
    return isinstance(target, BundleKey) and target.namespace == namespace
