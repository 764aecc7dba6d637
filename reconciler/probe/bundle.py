"""One close look at one bundle: every piece of evidence it holds, and what a cleanup would need.

The same function serves the watcher and the worker that is about to remove. It opens the bundle
beneath the state tree, never through a mount or a symlink, and closes it again. It never raises
for what a bundle is: missing, torn and hostile files are evidence.
"""

import os
import stat
from collections.abc import Collection
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final, NamedTuple

import msgspec

from reconciler import kernel
from reconciler.model.cgroups import usual_path
from reconciler.model.evidence import (
    UNSEEN,
    Answer,
    Entries,
    Kind,
    Labels,
    Look,
    Mount,
    PartialLook,
    Runtime,
    RuntimeState,
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
_NO_BUNDLE: Final = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV})
_SLASH: Final = ord("/")
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_UNSTARTED: Final = Entries.CONFIG | Entries.OPTIONS | Entries.ROOTFS | Entries.WORK
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
    seen = _see(around, key, annotation_keys)
    if seen is None or isinstance(seen, Look):
        return None if seen is None else Examination(seen)
    return Examination(seen.look, _resources(seen))


def look_at(
    around: NodeContext, key: BundleKey, annotation_keys: Collection[str] = ()
) -> Look | PartialLook | None:
    """Look at one bundle, as :func:`examine` does, where nobody asks for its resources.

    Partial only where a node context that is kept near left something out.
    """
    missed = around.handles.missed
    missed.clear()
    seen = _see(around, key, annotation_keys)
    look = seen.look if isinstance(seen, _Seen) else seen
    if look is None or not missed:
        return look
    return PartialLook(look, frozenset(map(escape, missed)))


class _Seen(NamedTuple):
    """A look, and what it came by."""

    look: Look
    remembered: Runc
    cgroups: Cgroups


def _see(
    around: NodeContext, key: BundleKey, annotation_keys: Collection[str]
) -> _Seen | Look | None:
    """Look at a bundle; a bare look if it cannot be entered, None if it is not there."""
    path = key.path
    if not _is_path(path):
        return None
    known = around.mounts_of(key)
    mounts = known.of(key) if known else ()
    with around.handles as handles:
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
            identity = Identity(seen.st_dev, seen.st_ino, handles.mount_id(tree_fd))
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
        return _weigh(around, own, identity, mounts, labels)


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


def _weigh(
    around: NodeContext,
    own: BundleFiles,
    identity: Identity,
    mounts: tuple[Mount, ...],
    labels: Labels,
) -> _Seen:
    """Ask the witnesses, in the order in which one needs another."""
    folder = own.folder
    remembered = ask_runtime(own, around)
    cgroups = ask_cgroups(own, around, remembered)
    init = ask_init(own, around, remembered, cgroups)
    counted = _count_work(around, own.key, own.path) or _NOTHING
    look = Look(
        identity,
        Kind.DIRECTORY,
        folder.entries,
        folder.newest,
        (folder.blocks + counted.blocks) * BLOCK,
        Answer.YES if folder.has_pid else remembered.exists,
        _runtime(own, around),
        init,
        ask_shim(own, around, init),
        cgroups.state,
        mounts,
        labels,
        not (folder.is_cut or counted.is_cut),
        cgroups.source,
        () if cgroups.names <= {usual_path(own.key)} else tuple(sorted(cgroups.names)),
    )
    return _Seen(look, remembered, cgroups)


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


def _count_work(around: NodeContext, key: BundleKey, path: bytes) -> Counted | None:
    try:
        top = around.handles.named(around.layout.work_of(key))
    except OSError:
        return None
    return count_tree(top, path)


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
