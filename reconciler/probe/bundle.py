"""One close look at one bundle: every piece of evidence it holds, and what a cleanup would need.

The same function serves the watcher and the worker that is about to remove. It opens the bundle
beneath the state tree, never through a mount or a symlink, and closes it again. It never raises
for what a bundle is: missing, torn and hostile files are evidence.
"""

import os
import stat
from collections.abc import Collection, Sequence
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final

import msgspec

from reconciler import kernel
from reconciler.model.cgroups import usual_path
from reconciler.model.evidence import (
    UNSEEN,
    Answer,
    CgroupState,
    Entries,
    Init,
    InitState,
    Kind,
    Labels,
    Look,
    Mount,
    PartialLook,
    Runtime,
    RuntimeState,
    Shim,
    ShimState,
)
from reconciler.model.ids import BundleKey, Identity, escape, unescape
from reconciler.model.labels import doubted
from reconciler.model.layout import SANDBOXES
from reconciler.probe import metadata
from reconciler.probe.beneath import beneath, identity_of
from reconciler.probe.boots import born
from reconciler.probe.cgroups import CgroupDir, Cgroups
from reconciler.probe.context import NodeContext
from reconciler.probe.evidence import BundleFiles, ask_cgroups, ask_init, ask_runtime, ask_shim
from reconciler.probe.folder import (
    BLOCK,
    Counted,
    Folder,
    Unread,
    count_tree,
    read_files,
    read_folder,
)
from reconciler.probe.runc import Runc

_NONE: Final = frozenset[bytes]()
_NOTHING: Final = Counted(0)
_NOT_ASKED: Final = Runc(b"", exists=Answer.NONE)
_NO_CGROUPS: Final = Cgroups(CgroupState.NONE)
_NO_INIT: Final = Init(InitState.NONE)
_NO_SHIM: Final = Shim(ShimState.NONE)
_NO_RUNTIME: Final = Runtime(RuntimeState.NONE)
_NO_BUNDLE: Final = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV})
_SLASH: Final = ord("/")
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_UNSTARTED: Final = Entries.CONFIG | Entries.OPTIONS | Entries.ROOTFS | Entries.WORK
TOGETHER: Final = 32
"""Bundles of which one witness is asked before the next one is. More gain nothing, and each may
name directories of its own, which stay open until the next ones are looked at.
"""
_SHARED: Final = ("shim-binary-path", "bootstrap.json", "address")


class Resources(msgspec.Struct, frozen=True):
    """What belongs to a bundle and has to go with it. All paths absolute.

    Attributes:
        runc: The runtime's binary as options.json names it; empty for the default.
        runc_root: What runc was given as ``--root``: the namespace's directory.
        has_poststop_hooks: Somebody expects to be called once the container is gone.
        keeper: The runtime that can call them, by the form of its state.
        cgroups: Existing directories inside cgroup mounts.
        remembered: What the runtime's own state says; None if nothing was looked at.
    """

    runc: str = ""
    runc_root: bytes = b""
    has_poststop_hooks: bool = False
    keeper: str = "runc"
    cgroups: tuple[CgroupDir, ...] = ()
    remembered: Runc | None = None

    @property
    def knows_all_cgroups(self) -> bool:
        """Whether the runtime's state could be asked; where it could not, it may name others."""
        return self.remembered is not None and self.remembered.exists is not Answer.NONE


class Examination(msgspec.Struct, frozen=True):
    """A look, and the resources that go with the bundle."""

    look: Look
    resources: Resources = Resources()


def examine(
    around: NodeContext, key: BundleKey, annotation_keys: Collection[str] = ()
) -> Examination | None:
    """Look at one bundle and at what belongs to it; None if there is no such name."""
    (seen,) = _see(around, (key,), annotation_keys)
    if seen is None or isinstance(seen, Look):
        return None if seen is None else Examination(seen)
    return Examination(_look_of(seen), _resources(seen))


def look_at(
    around: NodeContext, key: BundleKey, annotation_keys: Collection[str] = ()
) -> Look | PartialLook | None:
    """Look at one bundle, as :func:`examine` does, where nobody asks for its resources.

    Partial only where a node context that is kept near left something out.
    """
    (look,) = look_at_each(around, (key,), annotation_keys)
    return look


def look_at_each(
    around: NodeContext, keys: Sequence[BundleKey], annotation_keys: Collection[str] = ()
) -> list[Look | PartialLook | None]:
    """Look at several bundles, as :func:`look_at` does at each.

    A witness is asked about :data:`TOGETHER` of them before the next one is: what asks it stays in
    the processor's caches, which saves a third of the time. Each bundle's witnesses are asked in
    the order in which they are asked of one alone, only some milliseconds later.
    """
    return [
        _without_resources(seen)
        for first in range(0, len(keys), TOGETHER)
        for seen in _see(around, keys[first : first + TOGETHER], annotation_keys)
    ]


class _Seen(msgspec.Struct, gc=False):
    """A bundle that was entered, and what the witnesses have said of it so far.

    Attributes:
        missed: Where reach ended while they were asked.
    """

    own: BundleFiles
    identity: Identity
    mounts: tuple[Mount, ...]
    labels: Labels
    remembered: Runc = _NOT_ASKED
    cgroups: Cgroups = _NO_CGROUPS
    init: Init = _NO_INIT
    shim: Shim = _NO_SHIM
    runtime: Runtime = _NO_RUNTIME
    work: Counted = _NOTHING
    missed: frozenset[bytes] = _NONE


def _see(
    around: NodeContext, keys: Sequence[BundleKey], annotation_keys: Collection[str]
) -> list[_Seen | Look | None]:
    """Look at bundles; a bare look if one cannot be entered, None if it is not there.

    The witnesses are asked in the order in which one needs another.
    """
    with around.handles as handles:
        found = [_enter(around, key, annotation_keys) for key in keys]
        entered = [one for one in found if isinstance(one, _Seen)]
        missed = handles.missed
        missed.clear()
        for ask in (_ask_runtime, _ask_cgroups, _ask_init, _ask_work, _ask_shim):
            for one in entered:
                ask(one, around)
                if missed:
                    one.missed |= missed
                    missed.clear()
    return found


def _enter(
    around: NodeContext, key: BundleKey, annotation_keys: Collection[str]
) -> _Seen | Look | None:
    """Read a bundle's own files, and close it again."""
    path = key.path
    if not _is_path(path):
        return None
    known = around.mounts_of(key)
    mounts = known.of(key) if known else ()
    try:
        tree_fd = _tree(around, key)
    except OSError as error:
        return None if error.errno == ENOENT else UNSEEN
    try:
        fd = kernel.open_beneath(tree_fd, path)
    except OSError as error:
        return None if error.errno == ENOENT else _from_outside(tree_fd, key, mounts)
    try:
        seen = os.fstat(fd)
        is_earlier = not around.on_tmpfs and _is_earlier(around, key, fd)
        identity = Identity(seen.st_dev, seen.st_ino, around.handles.mount_id(tree_fd))
        mounted = _NONE
        if mounts:
            mounted = frozenset(unescape(mount.path.split("/", 1)[0]) for mount in mounts)
        folder = read_folder(fd, mounted, sizes_show_empty=around.on_tmpfs)
    except OSError:
        return _from_outside(tree_fd, key, mounts)
    finally:
        os.close(fd)
    folder.note(seen)
    spec = metadata.spec_of(folder)
    group = metadata.group_of(key, folder, spec)
    peer = _read_peer(around, key, group, folder)
    own = BundleFiles(key, path, folder, spec, group, peer, is_earlier=is_earlier)
    labels = metadata.labels_of(folder, spec, annotation_keys)
    if key.tree and not labels.pod_namespace:
        labels = doubted(labels)  # it is a pod's: a rule that protects one may mean this one
    return _Seen(own, identity, mounts, labels)


def _is_earlier(around: NodeContext, key: BundleKey, fd: int) -> bool:
    """Return whether a bundle is known to be of an earlier boot."""
    return bool(around.earlier) and born(key, kernel.statx_handle(fd)) in around.earlier


def _from_outside(tree_fd: int, key: BundleKey, mounts: tuple[Mount, ...]) -> Look | None:
    """Say what can be said of what cannot be entered: a mount, a symlink, a file."""
    try:
        with beneath(tree_fd, unescape(key.namespace)) as namespace:
            seen = kernel.statx(namespace, unescape(key.id))
    except OSError as error:
        return None if error.errno in _NO_BUNDLE else UNSEEN
    if seen.is_mount_root and all(mount.path for mount in mounts):
        mounts = (Mount("", seen.mount_id, ""), *mounts)  # newer than the mount table we have
    kind = Kind.DIRECTORY if stat.S_ISDIR(seen.mode) else Kind.OTHER
    kind = Kind.SYMLINK if stat.S_ISLNK(seen.mode) else kind
    identity = identity_of(seen)
    return Look(identity, kind, newest_mtime=seen.mtime, mounts=mounts)


def _is_path(path: bytes) -> bool:
    """Return whether it is that of a directory in a namespace's, by names that a kernel takes."""
    namespace, _, id_ = path.partition(b"/")
    if _SLASH in id_ or 0 in path:
        return False
    return namespace not in _NO_NAMES and id_ not in _NO_NAMES


def _tree(around: NodeContext, key: BundleKey) -> int:
    """Open the tree that a bundle is in; that of sandboxes on the state directory's mount alone."""
    if key.tree:
        return around.handles.beneath(around.layout.state, SANDBOXES)
    return around.handles.get(around.layout.tasks, os.O_NOFOLLOW)


def _read_peer(
    around: NodeContext, key: BundleKey, group: str | None, folder: Folder
) -> Folder | None:
    """Read in the sandbox's bundle what a member need not have of its own.

    That is in the tree of tasks or, with `sandboxer = "shim"`, in that of sandboxes. Of one there
    that cannot be read the runtime is not known.
    """
    if group is None or group == key.id:
        return None
    if folder.text("shim-binary-path") and metadata.addresses_of(folder):
        return None
    peer, silent = BundleKey(key.namespace, group), None
    for one in (peer, peer.sandbox):
        try:
            with beneath(_tree(around, one), one.path) as sandbox:
                found = read_files(sandbox, _SHARED)
        except OSError as error:
            if one.tree and error.errno != ENOENT:
                return Folder(files={"shim-binary-path": Unread.BARRED})
            continue
        if "shim-binary-path" in found.files:
            return found
        silent = silent or found
    return silent


def _ask_runtime(seen: _Seen, around: NodeContext) -> None:
    seen.remembered = ask_runtime(seen.own, around)


def _ask_cgroups(seen: _Seen, around: NodeContext) -> None:
    seen.cgroups = ask_cgroups(seen.own, around, seen.remembered)


def _ask_init(seen: _Seen, around: NodeContext) -> None:
    seen.init = ask_init(seen.own, around, seen.remembered, seen.cgroups)


def _ask_shim(seen: _Seen, around: NodeContext) -> None:
    seen.shim = ask_shim(seen.own, around, seen.init)
    seen.runtime = _runtime(seen.own, around)


def _ask_work(seen: _Seen, around: NodeContext) -> None:
    """Count what the work directory takes."""
    try:
        top = around.handles.named(around.layout.work_of(seen.own.key))
    except OSError:
        return
    seen.work = count_tree(top, seen.own.path) or _NOTHING


def _look_of(seen: _Seen) -> Look:
    """Join what was seen of a bundle."""
    own, cgroups, work = seen.own, seen.cgroups, seen.work
    folder = own.folder
    return Look(
        seen.identity,
        Kind.DIRECTORY,
        folder.entries,
        folder.newest,
        (folder.blocks + work.blocks) * BLOCK,
        Answer.YES if folder.has_pid else seen.remembered.exists,
        seen.runtime,
        seen.init,
        seen.shim,
        cgroups.state,
        seen.mounts,
        seen.labels,
        not (folder.is_cut or work.is_cut),
        cgroups.source,
        () if cgroups.names <= {usual_path(own.key)} else tuple(sorted(cgroups.names)),
    )


def _without_resources(seen: _Seen | Look | None) -> Look | PartialLook | None:
    if seen is None or isinstance(seen, Look):
        return seen
    look = _look_of(seen)
    return PartialLook(look, frozenset(map(escape, seen.missed))) if seen.missed else look


def _runtime(own: BundleFiles, around: NodeContext) -> Runtime:
    """Tell the runtime; not that of a sandbox that was started, if its name has been lost.

    Before its shim is started there is nothing but what containerd makes (`core/runtime/v2`,
    ``NewBundle``). A runtime that serves sandboxes may live where we do not look.
    """
    folder = own.folder
    found = metadata.runtime_of(folder, own.peer, around.layout.runc_shims)
    if own.key.tree and found.state is RuntimeState.UNNAMED and folder.entries & ~_UNSTARTED:
        return Runtime(RuntimeState.NONE)
    return found


def _resources(seen: _Seen) -> Resources:
    remembered = seen.remembered
    return Resources(
        remembered.binary,
        remembered.root,
        remembered.has_poststop_hooks,
        remembered.keeper,
        seen.cgroups.dirs,
        remembered,
    )
