"""Finds: everything in the places where containerd, shims and runc keep what is a bundle's. Reads.

Each function lists one place once, whatever the number of bundles, and yields what it holds with
what the thing itself shows: whether anybody lives in it, and when it last changed. It asks nobody
else; whose a find may be is asked when all are listed (`reconciler.worker.inventory.owners`).
Nothing is opened that could wake somebody: no FIFO, no log. A connection that is accepted is hung
up at once, as every look does.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EIO, ENOENT, ESRCH
from typing import Final

from msgspec.structs import replace

from reconciler import kernel
from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess, ShimState
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import NOWHERE, BundleKey, Identity, escape, is_identifier, unescape
from reconciler.model.layout import Layout
from reconciler.probe.beneath import enter, identity_of, names, opened
from reconciler.probe.context import NodeContext
from reconciler.probe.process import Stat, parents, read_stat
from reconciler.probe.sockets import Address, SocketProbe
from reconciler.worker.objects import HIDDEN
from reconciler.worker.preflight import serves_sandbox, works_in
from reconciler.worker.roots import named_roots
from reconciler.worker.shims import runs_runc_shim, was_in_our_tree

Wanted = Callable[[bytes], bool]
"""Says of a path whether a place there is wanted: few of many can be looked at again cheaply."""

_ENDS: Final = (b"stdin", b"stdout", b"stderr")
_HIDDEN: Final = escape(HIDDEN)
_UNITS: Final = (".slice", ".scope", ".service", ".socket", ".mount", ".swap")
"""Types of units that have cgroups of their own (systemd.resource-control(5))."""

_OTHERS: Final = frozenset({"docker", "kubepods", "libpod_parent", "lxc", "machine"})
"""Groups at the top in which others than containerd keep theirs."""

_BY_SOCKET: Final = {
    ShimState.ALIVE: Answer.YES,
    ShimState.DEAD: Answer.NO,
    ShimState.UNNAMED: Answer.NONE,
    ShimState.NONE: Answer.NONE,
}


def everything(_: bytes) -> bool:
    """Want every place."""
    return True


def sockets(directory: bytes, probe: SocketProbe, wanted: Wanted = everything) -> Iterator[Place]:
    """Find the sockets in a directory; a listener anywhere on the node counts, whatever its netns.

    One that is bound and does not listen yet refuses, too: only age can tell that.

    Raises:
        OSError: The directory cannot be read.
    """
    with suppress(FileNotFoundError), opened(directory) as top:
        for name in names(top):
            path = directory + b"/" + name
            found = _stat(top, name) if wanted(path) else None
            if found is None or not stat.S_ISSOCK(found.mode):
                continue
            state, why = probe.probe(Address(path))
            yield Place(
                PlaceKey(DebrisKind.SHIM_SOCKET, escape(path)),
                identity_of(found),
                since=max(found.mtime, found.btime),
                lives=_BY_SOCKET[state],
                detail=why,
            )


def fifo_dirs(directory: bytes, wanted: Wanted = everything) -> Iterator[Place]:
    """Find directories of FIFOs, one place for each; never opens one.

    Who waits at a FIFO cannot be seen without opening it. That nobody does is shown by its id
    having no owner, and by its age: that is for those who judge.

    Raises:
        OSError: The directory cannot be read.
    """
    with suppress(FileNotFoundError), opened(directory) as top:
        numbers = (name for name in names(top) if name.removeprefix(HIDDEN).isdigit())
        for number in enter(top, (one for one in numbers if wanted(directory + b"/" + one))):
            if number.fd >= 0:
                yield _fifo_dir(directory + b"/" + number.name, number.fd)


def _fifo_dir(path: bytes, fd: int) -> Place:
    seen = kernel.statx_handle(fd)
    ids, since, strange = set[str](), max(seen.mtime, seen.btime), False
    for name in names(fd):
        id_, _, end = name.rpartition(b"-")
        found = _stat(fd, name)
        if found is None:
            continue
        since = max(since, found.mtime, found.btime)
        if id_ and end in _ENDS and stat.S_ISFIFO(found.mode):
            ids.add(escape(id_))
        else:
            strange = True
    place = Place(PlaceKey(DebrisKind.FIFO_DIR, escape(path)), identity_of(seen), since=since)
    if strange or len(ids) > 1:
        return replace(place, detail="it holds other things than the FIFOs of one id")
    return replace(place, id="".join(ids), lives=Answer.NO)


def runc_states(around: NodeContext, wanted: Wanted = everything) -> Iterator[Place]:
    """Find runc's states; :mod:`~reconciler.worker.inventory.liveness` says whose one is.

    In its default root, and in those that some bundles name and nobody but root can write to. Also
    those that a run of ours which was killed has taken out of use.

    Raises:
        OSError: The default root cannot be read.
    """
    layout = around.layout
    for root in (layout.runc_root, *named_roots(around)):
        for path, key, found in _named_twice(root, wanted):
            bare = BundleKey(key.namespace, key.id.removeprefix(_HIDDEN))
            if is_identifier(bare.id):
                yield replace(_place(DebrisKind.RUNC_STATE, path, bare, found), lives=Answer.NONE)


def work_dirs(layout: Layout, wanted: Wanted = everything) -> Iterator[Place]:
    """Find containerd's work directories. Nobody lives in one that has no bundle.

    Raises:
        OSError: The tree cannot be read.
    """
    for root in (layout.work, layout.sandbox_work):
        for path, key, found in _named_twice(root, wanted):
            if is_identifier(key.id):
                yield _place(DebrisKind.WORK_DIR, path, key, found)


def hidden_bundles(layout: Layout, wanted: Wanted = everything) -> Iterator[Place]:
    """Find what a removal of containerd's left under a hidden name, ``.<id>``, in any tree.

    Ours in a state tree are finished otherwise; in a work tree they have no id any more.

    Raises:
        OSError: A tree cannot be read.
    """
    works = (layout.work, layout.sandbox_work)
    for root in (layout.tasks, layout.sandboxes, *works):
        for path, key, found in _named_twice(root, wanted):
            ours = parse_hidden(key.id)
            bare = BundleKey(key.namespace, key.id.removeprefix("."))
            if ours is None and bare.id != key.id and is_identifier(bare.id):
                yield _place(DebrisKind.HIDDEN_BUNDLE, path, bare, found)
            elif ours == found.ino and root in works:
                nameless = BundleKey(key.namespace, "")
                yield _place(DebrisKind.HIDDEN_BUNDLE, path, nameless, found)


def cgroups(
    around: NodeContext, namespaces: frozenset[str], wanted: Wanted = everything
) -> Iterator[Place]:
    """Find the groups ``/<namespace>/<id>`` of containerd's default layout, in every hierarchy.

    :mod:`~reconciler.worker.inventory.liveness` says which object one is, and who lives in it. A
    group by the name of a unit is systemd's, and what other managers have is theirs.

    Raises:
        OSError: A hierarchy cannot be read.
    """
    if around.cgroups is None:
        raise OSError(EIO, "the cgroup hierarchies cannot be read")
    for namespace in sorted(namespaces - _OTHERS):
        if namespace.endswith(_UNITS):
            continue
        for path in around.cgroups.below_named(unescape(namespace)):
            id_ = escape(path.rpartition(b"/")[2])
            if is_identifier(id_) and not id_.endswith(_UNITS) and wanted(path):
                yield Place(PlaceKey(DebrisKind.CGROUP, escape(path)), NOWHERE, namespace, id_)


def _place(kind: DebrisKind, path: bytes, key: BundleKey, found: kernel.Stat) -> Place:
    """Make a place by a bundle's name in which nobody lives by itself."""
    since = max(found.mtime, found.btime)
    where = PlaceKey(kind, escape(path))
    return Place(where, identity_of(found), key.namespace, key.id, since, Answer.NO)


def _named_twice(root: bytes, wanted: Wanted) -> Iterator[tuple[bytes, BundleKey, kernel.Stat]]:
    """Give the wanted directories ``<root>/<namespace>/<name>``, each with its path and key."""
    with suppress(FileNotFoundError), opened(root, os.O_RDONLY) as top:
        for namespace in enter(top, (name for name in names(top) if is_identifier(escape(name)))):
            if namespace.fd < 0:
                continue
            above = b"/".join((root, namespace.name, b""))
            for name in names(namespace.fd):
                found = _stat(namespace.fd, name) if wanted(above + name) else None
                if found is not None and stat.S_ISDIR(found.mode):
                    yield above + name, BundleKey(escape(namespace.name), escape(name)), found


def _stat(parent: int, name: bytes) -> kernel.Stat | None:
    try:
        return kernel.statx(parent, name)
    except FileNotFoundError:
        return None


def mounts(around: NodeContext, wanted: Wanted = everything) -> Iterator[Place]:
    """Find mounts in the state tree; what is below a bundle is that bundle's, dead or hidden, too.

    A mount keeps the directory that it is on, and so the name of its bundle: nearly always that
    one owns it, and its own cleanup takes rootfs's stack and stops at anything else. Nobody's are
    only those of which the name is gone, as where something was mounted over the tree.

    Raises:
        OSError: The mount table cannot be read.
    """
    if around.mounts is None:
        raise OSError(EIO, "the mount table cannot be read")
    tree = around.tree
    for key, below in around.mounts.all().bundles.items():
        for one in below:
            path = b"/".join((tree, key.path, unescape(one.path))).rstrip(b"/")
            if not wanted(path):
                continue
            yield Place(
                PlaceKey(DebrisKind.MOUNT, escape(path)),
                Identity(0, 0, one.mount_id),
                key.namespace,
                key.id,
                lives=Answer.NO,
                detail=one.fstype,
            )


def shims(processes: ProcessScan, layout: Layout) -> Iterator[Place]:
    """Find living shims of runc of which it is not shown that they work in a bundle that is there.

    One that has children serves somebody; a zombie is nobody, and neither is one that has ended
    since. Another runtime's may serve whom we cannot see. Of one that is not shown to have worked
    in our tree nobody can tell.

    Raises:
        OSError: Who has children cannot be known.
    """
    serving: frozenset[int] | None = None
    for shim in processes.shims:
        answer = works_in(layout, shim)
        if answer is not Answer.NONE or shim.address not in {"", escape(layout.address)}:
            continue
        if serves_sandbox(layout, shim):
            continue
        seen = _stat_of(shim.pid)
        lives = _lives(layout, shim)
        if seen is None or seen.is_nobody or lives is Answer.YES:
            continue
        if serving is None:
            serving = parents()
        yield Place(
            PlaceKey(DebrisKind.SHIM, str(shim.pid)),
            Identity(0, seen.start, 0),
            shim.key.namespace,
            shim.key.id,
            lives=Answer.YES if shim.pid in serving else lives,
            detail=f"shim of {shim.key}, pid {shim.pid}",
        )


def _stat_of(pid: int) -> Stat | None:
    """Read what a process is; None if it has ended.

    Raises:
        OSError: It does not tell.
    """
    try:
        return read_stat(pid)
    except OSError as error:
        if error.errno in {ENOENT, ESRCH}:
            return None
        raise


def _lives(layout: Layout, shim: ShimProcess) -> Answer:
    """Tell whether a shim without children may serve somebody: another runtime's does."""
    with suppress(OSError):
        if not runs_runc_shim(layout, shim.pid):
            return Answer.YES
        if was_in_our_tree(layout, shim.key, shim.pid):
            return Answer.NO
    return Answer.NONE
