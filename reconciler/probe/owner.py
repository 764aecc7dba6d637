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
from collections.abc import Callable, Iterator
from errno import EINVAL, ELOOP, ENOENT
from typing import Final, NamedTuple

import msgspec

from reconciler.clock import Deadline, SystemClock
from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout
from reconciler.probe.beneath import Entered, beneath, enter, opened, visible

BUDGET: Final = 5.0
"""Seconds that asking all bundles may take."""

QUIET: Final = 2.0
"""Seconds for which a directory must not have changed for its times to show the next change."""

_NO_LINK: Final = frozenset({ENOENT, EINVAL})


class _State(NamedTuple):
    """What of a directory changes when a name in it comes or goes."""

    device: int
    inode: int
    links: int
    modified: int
    changed: int


class Vouchers(msgspec.Struct):
    """Remembers that every bundle of a tree has named its root, until one may have come.

    Who makes or renames a bundle changes the times of its namespace's directory, and who makes a
    namespace those of the tree's. So while these directories are the same and unchanged there is no
    bundle that was not asked, and no link of those that were asked has another target (see above).
    Times have the resolution of a tick: a change within the tick of the one before would not show.
    So nothing is remembered of directories that had changed within :data:`QUIET` before they were
    listed, nor where a bundle had no link (yet).

    Attributes:
        roots: The root, as bundles may name it.
        states: The directories, by name from the tree on, as they were before they were listed.
    """

    roots: frozenset[bytes] = frozenset()
    states: dict[bytes, _State] = msgspec.field(default_factory=dict)

    def keep(self, roots: frozenset[bytes], states: dict[bytes, _State], began: float) -> None:
        """Remember the directories that bundles of one root are in, listed from ``began`` on."""
        newest = max(max(one.modified, one.changed) for one in states.values())
        self.roots = roots
        self.states = states if newest < (began - QUIET) * 1e9 else {}

    def stand(self, roots: frozenset[bytes], tree: bytes) -> bool:
        """Return whether no bundle can have come to the tree since, for one of these roots."""
        states = self.states
        if not states or self.roots != roots:
            return False
        try:
            with opened(tree) as top:
                return all(_state(top, name) == state for name, state in states.items())
        except OSError:
            return False


def doubt_about_root(
    layout: Layout, vouchers: Vouchers | None = None, *, budget: float = BUDGET
) -> str:
    """Say why the tree may belong to another root than the layout's; empty if it does not.

    Args:
        layout: Where the tree and the root are.
        vouchers: What was found before; bundles are asked again only if some may have come.
        budget: Seconds that asking may take.
    """
    vouchers = vouchers or Vouchers()
    own = frozenset({os.path.normpath(layout.root), os.path.realpath(layout.root)})
    if vouchers.stand(own, layout.tasks):
        return ""
    tree, began = escape(layout.tasks), SystemClock().wall()
    deadline = Deadline(budget)
    states: dict[bytes, _State] = {}
    empty, vouched, all_vouched = True, False, True
    try:
        for root in _roots(layout.tasks, states.__setitem__):
            if root is not None and root not in own:
                return f"bundles in {tree} belong to a containerd with root {escape(root)}"
            empty, vouched = False, vouched or root is not None
            all_vouched = all_vouched and root is not None
            if deadline.is_over:
                return f"{tree} holds more bundles than could be asked for theirs in {budget:g} s"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{tree} cannot be read: {os.strerror(error.errno or 0)}"
    if all_vouched:
        vouchers.keep(own, states, began)
    return "" if empty or vouched else f"no bundle in {tree} says to which root it belongs"


def _state(top: int, name: bytes) -> _State:
    with beneath(top, name) as directory:
        return _state_of(directory)


def _state_of(directory: int) -> _State:
    found = os.fstat(directory)
    return _State(found.st_dev, found.st_ino, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns)


def _roots(tree: bytes, note: Callable[[bytes, _State], None]) -> Iterator[bytes | None]:
    """Give the root that each bundle names, or None; None also for what cannot be looked into.

    ``note`` is told of each directory before it is listed, by its name from the tree on.
    """
    with opened(tree) as top:
        note(b".", _state_of(top))
        for namespace in _covered_or_entered(top):
            if namespace.fd < 0:
                yield None  # bundles may lie below what is mounted there
                continue
            note(namespace.name, _state_of(namespace.fd))
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
