"""Instances: other containerds of this node, as their living shims show them. Reads only.

Several containerds may share runc's root, the names of cgroups and the directory of FIFOs. A shim
works in its bundle (`reconciler.worker.preflight`), so a shim of another instance leads to that
instance's tree. Whatever may be used there under a bundle's name is not removed here, and nobody is
ended. What nobody serves has no living user, and an instance without any living shim has none at
all. This is the one place that is asked, and it never takes no answer for "nobody".
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import TASKS, Layout
from reconciler.worker.going import stays
from reconciler.worker.preflight import serves_sandbox, works_in

_TREE: Final = b"/proc/%d/cwd/../.."
_TRIES: Final = 3
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW

_Object = tuple[int, int]  # device, inode


class Instances:
    """Remembers which trees one pass over /proc leads to.

    ``scan`` gives a pass that shows everybody who runs by now, made anew if asked for.
    """

    def __init__(self, layout: Layout, scan: Callable[[bool], ProcessScan]) -> None:
        self._layout = layout
        self._scan = scan
        self._scanned: ProcessScan | None = None
        self._trees: dict[_Object, int] = {}
        """One shim's pid for each tree that is not ours."""
        self._lost = 0
        """A shim of which even a new pass did not tell where it works."""

    def user(self, key: BundleKey, *, even_going: bool = False) -> str | None:
        """Say who else may use the name of a bundle, or that this cannot be known; None if nobody.

        Also a bundle that is being removed now, if ``even_going``: to what is dead it has no more
        claim than the bundle at hand.
        """
        return self._ask(_Name(key.id, key.namespace, even_going))

    def user_of_id(self, id_: str) -> str | None:
        """Say the same for an id, whatever the namespace."""
        return self._ask(_Name(id_))

    def runner(self, key: BundleKey) -> str | None:
        """Say which shim or helper of that name runs, or that this cannot be known."""
        scanned = self._scan(False)  # noqa: FBT003 -- see `__init__`
        if not scanned.answered:
            return "which shims run cannot be known"
        return _named(scanned, _Name(key.id, key.namespace))

    def _ask(self, name: "_Name") -> str | None:
        sandbox = self._sandbox(name)
        if sandbox is not None:
            return sandbox
        unanswered = "which shims run cannot be known"
        for number in range(_TRIES):
            scanned = self._scan(number > 0)
            if not scanned.answered:
                continue  # that may have been for a moment
            why = _named(scanned, name)
            if why is not None:
                return why
            try:
                pid = self._having(scanned, name)
            except _LostError as shim:
                unanswered = f"where the shim with pid {shim.pid} works cannot be known"
                lost, self._lost = self._lost, shim.pid
                if lost == shim.pid:
                    break
                continue  # it may only have ended since: who leads there now?
            if pid is None:
                return None
            return f"another containerd, that of the shim with pid {pid}, has one so named"
        return unanswered

    def _sandbox(self, name: "_Name") -> str | None:
        """Say that our own containerd has a sandbox so named, or that this cannot be known."""
        tree = self._layout.sandboxes
        try:
            there = any(
                stays(kernel.AT_FDCWD, tree + b"/" + key.path, even_going=name.even_going)
                for key in name.keys_in(tree)
            )
        except FileNotFoundError:  # containerd has no such tree
            return None
        except OSError as error:
            return f"which sandboxes there are cannot be known: {error.strerror}"
        return "a sandbox of containerd's has that name" if there else None

    def _having(self, scanned: ProcessScan, name: "_Name") -> int | None:
        """Give a pid of an instance that has a bundle of such a name.

        Raises:
            _LostError: A shim does not lead to its tree, or not any more.
        """
        if scanned is not self._scanned:
            self._trees = dict(_trees(self._layout, scanned))
            self._scanned = scanned
        for tree, pid in self._trees.items():
            path = _TREE % pid
            try:
                there = any(
                    stays(kernel.AT_FDCWD, path + b"/" + key.path, even_going=name.even_going)
                    for key in name.keys_in(path)
                )
                # Nothing was there: that counts only if it was that tree which was asked.
                if _object(path) != tree:
                    raise _LostError(pid)
            except OSError:
                raise _LostError(pid) from None
            if there:
                return pid
        return None


class _Name(NamedTuple):
    """What is asked about: an id, in one namespace or in any."""

    id: str
    namespace: str | None = None
    even_going: bool = False

    def fits(self, key: BundleKey) -> bool:
        return key.id == self.id and self.namespace in {None, key.namespace}

    def keys_in(self, tree: bytes) -> list[BundleKey]:
        if self.namespace is not None:
            return [BundleKey(self.namespace, self.id)]
        return [BundleKey(escape(namespace), self.id) for namespace in os.listdir(tree)]


class _LostError(Exception):
    """A shim does not lead to its tree, or not any more."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


def _named(scanned: ProcessScan, name: _Name) -> str | None:
    """Say which process of a pass bears such a name, or may."""
    for key in (*scanned.helpers, *(shim.key for shim in scanned.shims)):
        if name.fits(key):
            return f"a shim of {key} is running"
    for one in scanned.unread:
        if one.key is None or name.fits(one.key):
            return f"whose shim the process with pid {one.pid} is cannot be known"
    return None


def _trees(layout: Layout, scanned: ProcessScan) -> Iterator[tuple[_Object, int]]:
    """Find the trees that are not ours, also those of shims of which only the directory is known.

    Raises:
        _LostError: A shim leads neither to our tree nor to where a bundle is or was in another one.
    """
    ours = _object(layout.tasks)
    silent = (ShimProcess(one.key, one.pid) for one in scanned.unread if one.key is not None)
    for shim in (*scanned.shims, *silent):
        where = works_in(layout, shim)
        if where is Answer.YES or serves_sandbox(layout, shim):
            continue
        try:
            tree = _object(_TREE % shim.pid)
        except OSError:
            raise _LostError(shim.pid) from None
        if tree == ours:
            continue  # its bundle was removed under it
        if where is not Answer.NO and not _was_in_a_bundle(shim):
            raise _LostError(shim.pid)
        yield tree, shim.pid


def _was_in_a_bundle(shim: ShimProcess) -> bool:
    """Return whether a shim works where a bundle of its namespace was, in whatever tree.

    Its bundle may have been hidden or removed under it; the kernel keeps both names above.
    """
    try:
        path = os.readlink(b"/proc/%d/cwd" % shim.pid)
    except OSError:
        return False
    namespace = b"/".join((b"", TASKS, unescape(shim.key.namespace)))
    return path.rpartition(b"/")[0].endswith(namespace)


def other_trees(layout: Layout, scanned: ProcessScan) -> tuple[dict[bytes, _Object], str]:
    """Give a path to each tree of another containerd, and which object it is.

    Returns:
        The paths, and why these may not be all; empty if they are.
    """
    try:
        return {_TREE % pid: tree for tree, pid in dict(_trees(layout, scanned)).items()}, ""
    except _LostError as shim:
        return {}, f"where the shim with pid {shim.pid} works cannot be known"
    except OSError as error:
        return {}, f"the state tree cannot be looked at: {error.strerror}"


def lead_there(paths: Mapping[bytes, _Object]) -> bool:
    """Return whether every path still leads to its tree: what was read there counts only then."""
    try:
        return all(_object(path) == tree for path, tree in paths.items())
    except OSError:
        return False


def _object(path: bytes) -> _Object:
    found = kernel.statx(kernel.AT_FDCWD, path, _FOLLOW)
    return found.dev, found.ino
