"""Owner: whose state tree this is, told by its bundles themselves. Reads only, a few entries.

That a metadata lock lies free proves its containerd down. It proves something about the bundles
only if that containerd is theirs, and a database from an installation long gone lies free for ever.
containerd leaves in each bundle a link to its work directory, `work` ->
`<root>/io.containerd.runtime.v2.task/<namespace>/<id>` (`runtime/v2/bundle.go`, 1.6 to 2.1), made
before anything else is in there; only root could change it. So the tree is that root's if links say
so and none says otherwise. Other hints prove less: a shim's socket is derived from containerd's
address alone, and times of a database tell neither a copy nor a quiet node from a stale one.

Where links name several roots (it was moved while containers ran), or damage has left no link at
all, there is no answer. An empty tree is anybody's: there is nothing to be wrong about.
"""

import os
from collections.abc import Iterator
from errno import EINVAL, ELOOP, ENOENT, ENOTDIR, EXDEV
from itertools import islice
from typing import Final

from reconciler import kernel
from reconciler.model.ids import show
from reconciler.model.layout import TASKS, Layout

MOST: Final = 256
"""How many bundles are asked: a wrong root is wrong for nearly all of them."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_BUNDLE: Final = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV})
_NO_LINK: Final = frozenset({ENOENT, EINVAL})


def doubt_about_root(layout: Layout) -> str:
    """Say why the tree may belong to another root than the layout's; empty if it does not."""
    own = {os.path.normpath(layout.root), os.path.realpath(layout.root)}
    try:
        named = list(islice(_roots(layout.tasks), MOST))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{show(layout.tasks)} cannot be read: {os.strerror(error.errno or 0)}"
    others = sorted({root for root in named if root is not None} - own)
    if others:
        return f"bundles in {show(layout.tasks)} belong to a containerd with root {show(others[0])}"
    if named and not own.intersection(named):
        return f"no bundle in {show(layout.tasks)} says to which root it belongs"
    return ""


def _roots(tree: bytes) -> Iterator[bytes | None]:
    """Give the root that each bundle names, or None."""
    tree_fd = os.open(tree, _DIRECTORY)
    try:
        for namespace in map(os.fsencode, os.listdir(tree_fd)):
            fd = _open(tree_fd, namespace)
            if fd is None:
                continue
            try:
                with os.scandir(fd) as entries:  # not a list of them all: there may be very many
                    for name in (os.fsencode(entry.name) for entry in entries):
                        if (bundle := _open(fd, name)) is not None:
                            yield _root_of(bundle, b"/".join((b"", TASKS, namespace, name)))
            finally:
                os.close(fd)
    finally:
        os.close(tree_fd)


def _open(parent: int, name: bytes) -> int | None:
    """Open a directory of the tree; None for what containerd would not take for one."""
    if name.startswith(b"."):
        return None
    try:
        return kernel.open_beneath(parent, name)
    except OSError as error:
        if error.errno in _NO_BUNDLE:
            return None
        raise


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
