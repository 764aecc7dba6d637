"""Owner: whose state tree this is, told by its bundles themselves. Reads only, one link of each.

That a metadata lock lies free proves its containerd down. It proves something about the bundles
only if that containerd is theirs, and a database from an installation long gone lies free for ever.
containerd leaves in each bundle a link to its work directory, `work` ->
`<root>/io.containerd.runtime.v2.task/<namespace>/<id>` (`runtime/v2/bundle.go`, 1.6 to 2.1), made
before anything else is in there; only root could change it. So the tree is that root's if links say
so and none says otherwise. Other hints prove less: a shim's socket is derived from containerd's
address alone, and times of a database tell neither a copy nor a quiet node from a stale one.

Every bundle is asked, because the few that another containerd has made may be any of very many. It
takes about 7 us a bundle; where the time is not enough, there is no answer. To be called in a
worker.

Where links name several roots (it was moved while containers ran), or damage has left no link at
all, there is no answer. An empty tree is anybody's: there is nothing to be wrong about.
"""

import os
from collections.abc import Iterator
from errno import EINVAL, ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout

BUDGET: Final = 5.0
"""Seconds that asking all bundles may take."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_BUNDLE: Final = frozenset({ENOENT, ENOTDIR, ELOOP})
_NO_LINK: Final = frozenset({ENOENT, EINVAL})


def doubt_about_root(layout: Layout, *, budget: float = BUDGET) -> str:
    """Say why the tree may belong to another root than the layout's; empty if it does not."""
    own = frozenset({os.path.normpath(layout.root), os.path.realpath(layout.root)})
    tree = escape(layout.tasks)
    clock = SystemClock()
    until = clock.monotonic() + budget
    empty, vouched = True, False
    try:
        for root in _roots(layout.tasks):
            if root is not None and root not in own:
                return f"bundles in {tree} belong to a containerd with root {escape(root)}"
            empty, vouched = False, vouched or root is not None
            if clock.monotonic() > until:
                return f"{tree} holds more bundles than could be asked for theirs in {budget:g} s"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{tree} cannot be read: {os.strerror(error.errno or 0)}"
    return "" if empty or vouched else f"no bundle in {tree} says to which root it belongs"


def _roots(tree: bytes) -> Iterator[bytes | None]:
    """Give the root that each bundle names, or None; None also for what cannot be looked into."""
    tree_fd = os.open(tree, _DIRECTORY)
    try:
        for namespace, fd in _entered(tree_fd):
            if fd is None:
                yield None  # bundles may lie below what is mounted there
                continue
            try:
                for name, bundle in _entered(fd):
                    tail = b"/".join((b"", TASKS, namespace, name))
                    yield None if bundle is None else _root_of(bundle, tail)
            finally:
                os.close(fd)
    finally:
        os.close(tree_fd)


def _entered(parent: int) -> Iterator[tuple[bytes, int | None]]:
    """Open each directory that containerd would take for one; None if something covers it."""
    with os.scandir(parent) as entries:  # not a list of them all: there may be very many
        for name in (os.fsencode(entry.name) for entry in entries):
            if name.startswith(b"."):
                continue
            try:
                fd: int | None = kernel.open_beneath(parent, name)
            except OSError as error:
                if error.errno in _NO_BUNDLE:
                    continue
                if error.errno != EXDEV:
                    raise
                fd = None
            yield name, fd


def _root_of(bundle: int, tail: bytes) -> bytes | None:
    try:
        target = os.path.normpath(os.readlink(b"work", dir_fd=bundle))
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        raise
    finally:
        os.close(bundle)
    root = target.removesuffix(tail)
    return None if root == target or not root.startswith(b"/") else root
