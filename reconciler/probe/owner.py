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
from errno import EINVAL, ELOOP, ENOENT
from typing import Final

from reconciler.clock import Deadline
from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout
from reconciler.probe.beneath import Entered, enter, opened, visible

BUDGET: Final = 5.0
"""Seconds that asking all bundles may take."""

_NO_LINK: Final = frozenset({ENOENT, EINVAL})


def doubt_about_root(layout: Layout, *, budget: float = BUDGET) -> str:
    """Say why the tree may belong to another root than the layout's; empty if it does not."""
    own = frozenset({os.path.normpath(layout.root), os.path.realpath(layout.root)})
    tree = escape(layout.tasks)
    deadline = Deadline(budget)
    empty, vouched = True, False
    try:
        for root in _roots(layout.tasks):
            if root is not None and root not in own:
                return f"bundles in {tree} belong to a containerd with root {escape(root)}"
            empty, vouched = False, vouched or root is not None
            if deadline.is_over:
                return f"{tree} holds more bundles than could be asked for theirs in {budget:g} s"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{tree} cannot be read: {os.strerror(error.errno or 0)}"
    return "" if empty or vouched else f"no bundle in {tree} says to which root it belongs"


def _roots(tree: bytes) -> Iterator[bytes | None]:
    """Give the root that each bundle names, or None; None also for what cannot be looked into."""
    with opened(tree) as top:
        for namespace in _covered_or_entered(top):
            if namespace.fd < 0:
                yield None  # bundles may lie below what is mounted there
                continue
            for bundle in _covered_or_entered(namespace.fd):
                tail = b"/".join((b"", TASKS, namespace.name, bundle.name))
                yield None if bundle.fd < 0 else _root_of(bundle.fd, tail)


def _covered_or_entered(parent: int) -> Iterator[Entered]:
    """Give each directory that containerd would take for one; it follows no symlink, either."""
    return (one for one in enter(parent, visible(parent)) if one.errno != ELOOP)


def _root_of(bundle: int, tail: bytes) -> bytes | None:
    try:
        target = os.path.normpath(os.readlink(b"work", dir_fd=bundle))
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        raise
    root = target.removesuffix(tail)
    return None if root == target or not root.startswith(b"/") else root
