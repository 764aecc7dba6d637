"""The eyes: lists the state tree and looks at its bundles. Read only.

Holds no handle on the tree between calls: one would keep it from being unmounted. Every directory
is entered beneath the one above it, never through a symlink or a mount. What a listing cannot
answer for is said so, and never taken for emptiness. Nothing is opened that may hang.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.evidence import Look, PartialLook
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import BundleKey, Identity, escape, unescape
from reconciler.model.layout import Layout
from reconciler.model.observations import Hidden, Listed, Seen
from reconciler.ports import Clock, Lookers
from reconciler.probe.bundle import Examination, examine, look_at
from reconciler.probe.surroundings import Surroundings

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_NAMESPACE: Final = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV})


class TreeEyes:
    """Looks at one state tree; implements `ports.Eyes`.

    Args:
        layout: Where things are.
        annotation_keys: Annotations that rules match on, kept in every look.
        addresses: Further containerd addresses that shims may have been started with.
        clock: Times the listings.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        annotation_keys: frozenset[str] = frozenset(),
        addresses: tuple[bytes, ...] = (),
        clock: Clock | None = None,
    ) -> None:
        self.annotation_keys = annotation_keys
        self.others: Lookers | None = None
        self._layout = layout
        self._clock = clock or SystemClock()
        self._around = Surroundings(layout, addresses, near=True)

    def moment(self) -> AbstractContextManager[object]:
        """Begin a batch of looks: read the mount table again if it has changed."""
        self._around.refresh()
        return self._around.handles

    def close(self) -> None:
        """Give handles back (none of them is on the tree)."""
        self._around.close()

    def look(self, key: BundleKey) -> Look | PartialLook | None:
        """Look at one bundle, as far as nothing can hang; None if there is no such name."""
        return look_at(self._around, key, self.annotation_keys)

    def examine(self, key: BundleKey) -> Examination | None:
        """Look at one bundle and at what belongs to it; None if there is no such name."""
        return examine(self._around, key, self.annotation_keys)

    def list(self, namespace: str | None = None) -> Listed:
        """List the state tree or one namespace of it."""
        began = self._clock.monotonic()
        bundles: list[Seen] = []
        hidden: list[Hidden] = []
        present = True
        try:
            tree_fd = os.open(self._layout.tasks, _DIRECTORY)
            try:
                for found in _walk(tree_fd, namespace):
                    if isinstance(found, Seen):
                        bundles.append(found)
                    else:
                        hidden.append(found)
            finally:
                os.close(tree_fd)
        except FileNotFoundError:
            present = False
        except OSError:
            seconds = self._clock.monotonic() - began
            return Listed(answered=False, present=True, namespace=namespace, seconds=seconds)
        return Listed(
            answered=True,
            present=present,
            bundles=tuple(bundles),
            hidden=tuple(hidden),
            namespace=namespace,
            seconds=self._clock.monotonic() - began,
        )


def _walk(tree_fd: int, only: str | None) -> Iterator[Seen | Hidden]:
    names = map(os.fsencode, os.listdir(tree_fd)) if only is None else (unescape(only),)
    for namespace in names:
        if namespace.startswith(b".") or b"/" in namespace:
            continue  # containerd skips them, too
        try:
            namespace_fd = kernel.open_beneath(tree_fd, namespace)
        except OSError as error:
            if error.errno in _NO_NAMESPACE:
                continue
            raise
        try:
            yield from _walk_namespace(namespace_fd, escape(namespace))
        finally:
            os.close(namespace_fd)


def _walk_namespace(fd: int, namespace: str) -> Iterator[Seen | Hidden]:
    for name in map(os.fsencode, os.listdir(fd)):
        try:
            seen = kernel.statx(fd, name)
        except FileNotFoundError:
            continue
        key = BundleKey(namespace, escape(name))
        identity = Identity(seen.dev, seen.ino, seen.mount_id)
        if name.startswith(b"."):
            yield Hidden(key, identity, seen.mtime, ours=parse_hidden(key.id) == seen.ino)
        else:
            yield Seen(key, identity)
