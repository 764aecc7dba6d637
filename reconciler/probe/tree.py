"""The inspector: lists the state tree and looks at its bundles. Read only.

Holds no handle on the tree between calls: one would keep it from being unmounted. Every directory
is entered beneath the one above it, never through a symlink or a mount. What a listing cannot
answer for is said so, and never taken for emptiness. Nothing is opened that may hang.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from msgspec.structs import replace
from typing_extensions import override

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.evidence import Look, PartialLook
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import SANDBOXES, Layout
from reconciler.model.observations import Hidden, Listed, Seen
from reconciler.ports import BatchInspector, Clock, Inspector
from reconciler.probe.beneath import beneath, enter, identity_of, names, opened, visible
from reconciler.probe.bundle import look_at_each
from reconciler.probe.context import NodeContext


class TreeInspector:
    """Looks at one state tree, and keeps these annotations; implements `ports.Inspector`."""

    def __init__(
        self,
        layout: Layout,
        *,
        annotation_keys: frozenset[str] = frozenset(),
        clock: Clock | None = None,
    ) -> None:
        self.annotation_keys = annotation_keys
        self.others: BatchInspector | None = None
        self._layout = layout
        self._clock = clock or SystemClock()
        self._around = NodeContext(layout, near=True)

    def moment(self) -> AbstractContextManager[object]:
        """Begin a batch of looks: read the mount table again if it has changed."""
        self._around.refresh()
        return self._around.handles

    def close(self) -> None:
        """Give handles back (none of them is on the tree)."""
        self._around.close()

    def look(self, key: BundleKey) -> Look | PartialLook | None:
        """Look at one bundle, as far as nothing can hang; None if there is no such name."""
        return look_at_each(self._around, (key,), self.annotation_keys)[0]

    def look_each(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None]:
        """Look at several, as :meth:`look` does at each."""
        return look_at_each(self._around, keys, self.annotation_keys)

    def list(self, namespace: str | None = None) -> Listed:
        """List the state tree or one namespace of it."""
        began = self._clock.monotonic()
        found: list[Seen | Hidden] = []
        present = True
        try:
            with opened(self._layout.tasks) as tree:
                found.extend(_walk(tree, namespace))
        except FileNotFoundError:
            present = False
        except OSError:
            seconds = self._clock.monotonic() - began
            return Listed(answered=False, present=True, namespace=namespace, seconds=seconds)
        sandboxes = self._list_sandboxes(namespace)
        found += sandboxes or ()
        return Listed(
            answered=True,
            present=present or bool(found),
            bundles=tuple([one for one in found if isinstance(one, Seen)]),
            hidden=tuple([one for one in found if isinstance(one, Hidden)]),
            namespace=namespace,
            seconds=self._clock.monotonic() - began,
            sandboxes=sandboxes is not None,
        )

    def _list_sandboxes(self, namespace: str | None) -> Sequence[Seen | Hidden] | None:
        """List the tree of sandboxes, which few nodes have; None if it cannot be read."""
        try:
            with opened_sandboxes(self._layout) as tree:
                return [_in_sandboxes(one) for one in _walk(tree, namespace)]
        except FileNotFoundError:
            return []
        except OSError:
            return None


def _walk(tree: int, only: str | None) -> Iterator[Seen | Hidden]:
    """Give what is in the namespaces, or in one; no bundle is looked at below a mount."""
    for namespace in enter(tree, visible(tree) if only is None else _name(only)):
        if namespace.fd >= 0:
            yield from _walk_namespace(namespace.fd, escape(namespace.name))


@contextmanager
def opened_sandboxes(layout: Layout) -> Iterator[int]:
    """Open the tree of sandboxes, on the mount of the state directory and no other.

    Raises:
        OSError: It cannot be opened there; FileNotFoundError if there is none.
    """
    with opened(layout.state, os.O_PATH) as state, beneath(state, SANDBOXES) as tree:
        yield tree


def has_sandboxes(layout: Layout) -> bool:
    """Return whether there is a tree of sandboxes, and it can be opened."""
    try:
        with opened_sandboxes(layout):
            return True
    except OSError:
        return False


def _in_sandboxes(found: Seen | Hidden) -> Seen | Hidden:
    return replace(found, key=found.key.sandbox)


def _name(only: str) -> tuple[bytes, ...]:
    """Give the name of a namespace; nothing if that is none containerd could have made."""
    name = unescape(only)
    return () if name.startswith(b".") or b"/" in name else (name,)


def _walk_namespace(fd: int, namespace: str) -> Iterator[Seen | Hidden]:
    for name in names(fd):
        try:
            seen = kernel.statx(fd, name)
        except FileNotFoundError:
            continue
        key = BundleKey(namespace, escape(name))
        if name.startswith(b"."):
            ours = parse_hidden(key.id) == seen.ino
            yield Hidden(key, identity_of(seen), seen.mtime, ours=ours)
        else:
            yield Seen(key, identity_of(seen))


@dataclass(frozen=True, slots=True)
class FilteredInspector(Inspector):
    """Sees only the wanted bundles, for ``--namespace`` and `explain`: unseen means untouched."""

    inspector: Inspector
    wanted: Callable[[BundleKey], bool]

    @property
    @override
    def others(self) -> None:
        """Let nobody look in our place: others wear no blinkers."""
        return None

    @override
    def list(self, namespace: str | None = None) -> Listed:
        """List what may be seen."""
        listed = self.inspector.list(namespace)
        return replace(
            listed,
            bundles=tuple(seen for seen in listed.bundles if self.wanted(seen.key)),
            hidden=tuple(one for one in listed.hidden if self.wanted(one.key)),
        )

    @override
    def look(self, key: BundleKey) -> Look | PartialLook | None:
        """Look at a bundle if it may be seen."""
        return self.inspector.look(key) if self.wanted(key) else None

    @override
    def look_each(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None]:
        """Look at those that may be seen."""
        looks = iter(self.inspector.look_each([key for key in keys if self.wanted(key)]))
        return [next(looks) if self.wanted(key) else None for key in keys]

    @override
    def moment(self) -> AbstractContextManager[object]:
        """Begin a batch of looks."""
        return self.inspector.moment()
