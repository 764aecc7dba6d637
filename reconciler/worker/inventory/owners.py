"""Owners: who may still own what carries a bundle's name; asked once for an inventory. Reads.

Places are listed first and owners asked afterwards: whoever is not found then was not there when
the place was seen, or is gone. What could not be asked makes every answer that hangs on it no
answer, and never a no:

1. Our own tree: its bundles, also hidden ones, for an id is free only when both names are gone. A
   namespace that cannot be entered may have any bundle.
2. Other containerds' trees, to which their living shims lead (`reconciler.worker.instances`).
3. Living shims and shim helpers of any containerd.
4. For FIFOs also what was executed in a container: its shim wrote ``<exec id>.pid`` into the
   bundle, and somebody may attach to it by the names of its FIFOs. Other runtimes' shims need not
   write that; so a bundle that is not shown to be runc's may have executed anything. Its own files
   show it, its sandbox's, or runc's state that says itself that it is about this bundle: only runc
   writes one there, and only for a shim of its own.

What containerd lists is asked by the parent and added where places are judged (`decide.debris`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import force_setattr

from reconciler import kernel
from reconciler.model.debris import DebrisKind
from reconciler.model.evidence import Answer, ProcessScan, RuntimeState
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe import documents
from reconciler.probe.beneath import Entered, beneath, enter, names, opened
from reconciler.probe.folder import read_files
from reconciler.probe.metadata import group_of, runtime_of, spec_of
from reconciler.worker.objects import HIDDEN
from reconciler.worker.sockets import sockets_named_in

_PID: Final = b".pid"
_LIMIT: Final = 8 << 20
_State = Callable[[], bool]
_SHIM: Final = ("shim-binary-path",)


class Owners(msgspec.Struct, frozen=True):
    """Everybody who may own something by a bundle's name.

    Attributes:
        bundles: In our tree and in those of other containerds.
        barred: Namespaces of which not all bundles are known.
        sockets: Those that bundles name.
        processes: Ids for which a shim or a helper runs.
        execs: Ids of what was executed in the bundles; None if not all of them are known.
        silent: Whose silence keeps us from saying no, for people; empty if all have answered.
    """

    bundles: frozenset[BundleKey] = frozenset()
    barred: frozenset[str] = frozenset()
    sockets: frozenset[bytes] = frozenset()
    processes: frozenset[BundleKey] = frozenset()
    execs: frozenset[str] | None = frozenset()
    silent: str = ""
    _ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Index by id what is asked for without a namespace."""
        keys = (*self.bundles, *self.processes)
        force_setattr(self, "_ids", frozenset(key.id for key in keys))

    def of(self, key: BundleKey) -> Answer:
        """Return whether somebody may own what bears a name."""
        if key in self.bundles or key in self.processes:
            return Answer.YES
        return Answer.NONE if self.silent or key.namespace in self.barred else Answer.NO

    def of_socket(self, path: bytes) -> Answer:
        """Return the same for a socket, by its path or the one it was taken out of use by."""
        directory, _, name = path.rpartition(b"/")
        if directory + b"/" + name.removeprefix(HIDDEN) in self.sockets:
            return Answer.YES
        return Answer.NONE if self.silent or self.barred else Answer.NO

    def of_hidden(self, key: BundleKey) -> Answer:
        """Return the same for a hidden bundle: whoever removes it, or lives of that id."""
        if key in self.processes:
            return Answer.YES
        return Answer.NONE if self.silent else Answer.NO

    def of_id(self, id_: str) -> Answer:
        """Return the same for FIFOs, which bear an id and no namespace, or nothing at all."""
        if id_ in self._ids or id_ in (self.execs or ()):
            return Answer.YES
        is_sure = not self.barred and self.execs is not None
        return Answer.NO if is_sure and not self.silent else Answer.NONE


class Unexplained:
    """Says of a path whether no bundle of our tree explains it by its name, as most are explained.

    Listed before the places are. What it leaves out would be found to be owned in the end, but in
    two cases: the bundle goes meanwhile, or a socket has the name that its shim derives while its
    files name another one. Then an inventory finds it when the bundle has gone. So nothing is taken
    for nobody's here, and only names that are left over are looked at closely.
    """

    def __init__(self, layout: Layout) -> None:
        self._fifos, self._tree = layout.fifos, layout.tasks + b"/"
        self._ids: dict[bytes, set[bytes]] = {}  # by namespace
        digests: set[bytes] = set()
        self._explained: dict[bytes, set[bytes]] = {
            layout.sockets: digests,
            layout.own_sockets: digests,
        }
        with opened(layout.tasks) as top:
            for namespace in enter(top, names(top)):
                if namespace.fd < 0:
                    continue
                above, ids = escape(namespace.name), self._ids.setdefault(namespace.name, set())
                for id_ in names(namespace.fd):
                    ids.add(id_.removeprefix(b"."))
                    if not id_.startswith(b"."):  # one that containerd was removing names none
                        digests.add(layout.shim_digest(above, escape(id_)))

    def __call__(self, path: bytes) -> bool:
        """Return whether it is to be looked at: what lies in no place of a known bundle's name."""
        above, _, name = path.rpartition(b"/")
        explained = self._explained.get(above)
        if explained is None:
            if path.startswith(self._tree):  # what is below a bundle is that bundle's
                namespace, _, below = path[len(self._tree) :].partition(b"/")
                return below.partition(b"/")[0] not in self._ids.get(namespace, ())
            namespace = above.rpartition(b"/")[2]
            explained = set() if above == self._fifos else self._ids.get(namespace, set())
            self._explained[above] = explained
        return name not in explained


def find_owners(
    trees: Iterable[bytes],
    processes: ProcessScan,
    lost: str,
    kinds: Collection[DebrisKind],
    layout: Layout,
) -> Owners:
    """Ask everybody.

    Args:
        trees: The state trees, ours and those other containerds' shims lead to.
        processes: A pass over /proc, made after the places were listed.
        lost: Why not all other trees are known, empty if they are.
        kinds: Of which kinds places were found: bundles are read only where one asks for it.
        layout: Says which shims are runc's, and where runc keeps its states.

    Raises:
        OSError: A tree cannot be read.
    """
    bundles: set[BundleKey] = set()
    execs: set[str] = set()
    knows_execs = True
    sockets: set[bytes] = set()
    barred: set[str] = set()
    for tree in trees:
        with opened(tree) as top:
            for namespace in enter(top, names(top)):
                name = escape(namespace.name)
                if namespace.fd < 0:
                    barred.add(name)
                    continue
                ids = list(names(namespace.fd))
                for id_ in ids:
                    bundles.add(BundleKey(name, escape(id_)))
                    if id_.startswith(b"."):
                        bundles.add(BundleKey(name, escape(id_[1:])))
                for bundle in enter(namespace.fd, ids if DebrisKind.FIFO_DIR in kinds else ()):
                    state = _state_of(layout.runc_root, tree, namespace.name + b"/" + bundle.name)
                    knows_execs = knows_execs and _is_runcs(
                        namespace, bundle, layout.runc_shims, state
                    )
                    execs.update(_execs_in(bundle.fd))
                if DebrisKind.SHIM_SOCKET in kinds:
                    sockets.update(sockets_named_in(namespace.fd))
    running = {*processes.helpers, *(shim.key for shim in processes.shims)}
    running.update(one.key for one in processes.unread if one.key is not None)
    silent = lost
    if not processes.answered or any(one.key is None for one in processes.unread):
        silent = "which shims run cannot be known"
    return Owners(
        frozenset(bundles),
        frozenset(barred),
        frozenset(sockets),
        frozenset(running),
        frozenset(execs) if knows_execs else None,
        silent,
    )


def _is_runcs(
    namespace: Entered, bundle: Entered, runc_shims: Collection[str], state: _State
) -> bool:
    """Return whether a bundle, or the sandbox that it is a member of, shows a shim of runc's.

    ``state``: runc's own, of its name; it speaks only where no file names the shim.
    """
    if bundle.fd < 0:
        return False
    folder, peer = read_files(bundle.fd, _SHIM), None
    if not folder.text("shim-binary-path"):
        if not folder.is_barred("shim-binary-path") and state():
            return True
        key = BundleKey(escape(namespace.name), escape(bundle.name))
        folder = read_files(bundle.fd, (*_SHIM, "config.json", "sandbox"))
        group = group_of(key, folder, spec_of(folder))
        if group is None or group == key.id:
            return False
        try:
            with beneath(namespace.fd, unescape(group)) as sandbox:
                peer = read_files(sandbox, _SHIM)
        except OSError:
            return False  # also if it is in a tree of its own: not known for runc's
    return runtime_of(folder, peer, runc_shims).state is RuntimeState.KNOWN


def _state_of(root: bytes, tree: bytes, path: bytes) -> _State:
    """Ask later whether runc's state of a name says that it is about this bundle.

    Args:
        root: Where the states are.
        tree: The bundle's tree.
        path: Its path within that, which is the state's within the root.
    """

    def is_of_it() -> bool:
        try:
            with opened(root) as top:
                data = kernel.read_beneath(top, path + b"/state.json", _LIMIT)
        except OSError:
            return False
        said = documents.parse_state(data)
        if said is None or said.is_youki:
            return False
        return documents.to_path(said.bundle) == tree + b"/" + path

    return is_of_it


def _execs_in(bundle: int) -> Iterator[str]:
    """Give the ids of what was executed in a bundle, by a handle on it; nothing without one."""
    if bundle >= 0:
        ends = (name for name in names(bundle) if name.endswith(_PID))
        yield from (escape(name.removesuffix(_PID)) for name in ends)
