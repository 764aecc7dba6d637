"""One close look at one bundle: every piece of evidence it holds, and what hands would need.

The same function serves the watcher and the hand that is about to remove. It opens the bundle
beneath the state tree, never through a mount or a symlink, and closes it again. It never raises
for what a bundle is: missing, torn and hostile files are evidence.
"""

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import Final

from reconciler import kernel
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Entries,
    Init,
    InitState,
    Kind,
    Look,
    Mount,
    Shim,
    ShimState,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.probe import cgroups, documents, process, runc, shim, testimony
from reconciler.probe.cgroups import CgroupDir, Cgroups
from reconciler.probe.documents import Spec
from reconciler.probe.folder import BLOCK, Folder, blocks_of_tree, read_files, read_folder
from reconciler.probe.runc import Runc
from reconciler.probe.surroundings import Surroundings
from reconciler.probe.sweep import parse_command

_TREE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_BUNDLE: Final = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV})
_SHARED: Final = ("shim-binary-path", "bootstrap.json", "address")


@dataclass(frozen=True, slots=True)
class Resources:
    """What belongs to a bundle and has to go with it. All paths absolute.

    Attributes:
        runc: The runtime's binary as options.json names it; empty for the default.
        runc_root: What runc was given as ``--root``: the namespace's directory.
        runc_state: The container's directory below it, if it exists.
        has_poststop_hooks: Somebody expects to be called once the container is gone.
        cgroups: Existing directories inside cgroup mounts.
        socket: The shim's socket as the bundle names or derives it, if it is a file.
        work: The work directory, if it exists.
    """

    runc: str = ""
    runc_root: bytes = b""
    runc_state: bytes | None = None
    has_poststop_hooks: bool = False
    cgroups: tuple[CgroupDir, ...] = ()
    socket: bytes | None = None
    work: bytes | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """A look, and the resources that go with the bundle."""

    look: Look
    resources: Resources = Resources()


UNSEEN: Final = Examination(Look(Identity(0, 0, 0), Kind.DIRECTORY))
"""There may be a bundle, and it cannot be looked at: no answer to anything."""


def examine(
    around: Surroundings, key: BundleKey, annotation_keys: Collection[str] = ()
) -> Examination | None:
    """Look at one bundle; None if there is no such name.

    Args:
        around: The node, refreshed not long ago.
        key: The bundle.
        annotation_keys: Annotations that rules match on.
    """
    if not all(_is_name(part) for part in key):
        return None
    try:
        tree_fd = os.open(around.layout.tasks, _TREE)
    except OSError as error:
        return None if error.errno == ENOENT else UNSEEN
    try:
        return _examine_beneath(tree_fd, around, key, annotation_keys)
    finally:
        os.close(tree_fd)


def _examine_beneath(
    tree_fd: int, around: Surroundings, key: BundleKey, annotation_keys: Collection[str]
) -> Examination | None:
    mounts = around.mounts.of(key) if around.mounts else ()
    try:
        fd = kernel.open_beneath(tree_fd, b"/".join(key))
    except OSError as error:
        return None if error.errno == ENOENT else _from_outside(tree_fd, key, mounts)
    try:
        seen = kernel.statx_handle(fd)
        folder = read_folder(fd, frozenset(mount.path.split(b"/", 1)[0] for mount in mounts))
    except OSError:
        return _from_outside(tree_fd, key, mounts)
    finally:
        os.close(fd)
    folder.newest = max(folder.newest, seen.mtime)
    folder.blocks += seen.blocks
    spec = testimony.spec_of(folder)
    group = testimony.group_of(key, folder, spec)
    peer = _read_peer(tree_fd, key, group, folder)
    own = _Own(key, folder, spec, group, peer, around)
    bare = Look(
        Identity(seen.dev, seen.ino, seen.mount_id),
        Kind.DIRECTORY,
        mounts=mounts,
        labels=testimony.labels_of(folder, spec, annotation_keys),
    )
    return _weigh(own, bare)


def _is_name(name: bytes) -> bool:
    return bool(name) and name not in {b".", b".."} and b"/" not in name and b"\0" not in name


def _from_outside(tree_fd: int, key: BundleKey, mounts: tuple[Mount, ...]) -> Examination | None:
    """Say what can be said of what cannot be entered: a mount, a symlink, a file."""
    try:
        namespace_fd = kernel.open_beneath(tree_fd, key.namespace)
        try:
            seen = kernel.statx(namespace_fd, key.id)
        finally:
            os.close(namespace_fd)
    except OSError as error:
        return None if error.errno in _NO_BUNDLE else UNSEEN
    if seen.is_mount_root and all(mount.path for mount in mounts):
        mounts = (Mount(b"", seen.mount_id, ""), *mounts)  # newer than the mount table we have
    kind = Kind.DIRECTORY if stat.S_ISDIR(seen.mode) else Kind.OTHER
    kind = Kind.SYMLINK if stat.S_ISLNK(seen.mode) else kind
    identity = Identity(seen.dev, seen.ino, seen.mount_id)
    return Examination(Look(identity, kind, newest_mtime=seen.mtime, mounts=mounts))


@dataclass(frozen=True, slots=True)
class _Own:
    """What the bundle itself says, and where it stands."""

    key: BundleKey
    folder: Folder
    spec: Spec | None
    group: bytes | None
    peer: Folder | None
    around: Surroundings


def _weigh(own: _Own, bare: Look) -> Examination:
    """Put the evidence together, in the order in which one piece needs another."""
    key, folder, around = own.key, own.folder, own.around
    options, barred = folder.text("options.json"), folder.is_barred("options.json")
    remembered = runc.look(around.layout, key, options, barred=barred)
    groups = _cgroups(own, remembered)
    init = _init(own, remembered, groups)
    asked = _shim(own)
    if init.state is InitState.ALIVE and init.pid is not None:
        asked = replace(asked, pid=_shim_of(init.pid, key.namespace))
    work = around.layout.work + b"/" + b"/".join(key)
    work_blocks = blocks_of_tree(work)
    look = replace(
        bare,
        entries=folder.entries,
        newest_mtime=folder.newest,
        size_bytes=(folder.blocks + (work_blocks or 0)) * BLOCK,
        created=Answer.YES if Entries.INIT_PID in folder.entries else remembered.exists,
        runtime=testimony.runtime_of(folder, own.peer),
        init=init,
        shim=asked,
        cgroup=groups.state,
    )
    resources = Resources(
        remembered.binary,
        remembered.root,
        remembered.directory,
        remembered.has_poststop_hooks,
        groups.dirs,
        _socket(around, key, asked),
        None if work_blocks is None else work,
    )
    return Examination(look, resources)


def _read_peer(tree_fd: int, key: BundleKey, group: bytes | None, folder: Folder) -> Folder | None:
    """Read in the sandbox's bundle what a member need not have of its own."""
    if group is None or group == key.id:
        return None
    if folder.text("shim-binary-path") and testimony.addresses_of(folder):
        return None
    try:
        fd = kernel.open_beneath(tree_fd, key.namespace + b"/" + group)
    except OSError:
        return None
    try:
        return read_files(fd, _SHARED)
    finally:
        os.close(fd)


def _cgroups(own: _Own, remembered: Runc) -> Cgroups:
    hierarchies, spec = own.around.hierarchies, own.spec
    if hierarchies is None:
        return Cgroups(CgroupState.NONE)
    path = spec.linux.cgroups_path if spec and spec.linux else ""
    inner = (*cgroups.resolve(path), *cgroups.resolve(remembered.cgroup_path))
    found = cgroups.look(hierarchies, own.key, remembered.cgroup_dirs, inner)
    if found.state is CgroupState.UNNAMED and (
        own.folder.is_barred("config.json") or remembered.exists is Answer.NONE
    ):
        return replace(found, state=CgroupState.NONE)
    return found


def _init(own: _Own, remembered: Runc, groups: Cgroups) -> Init:
    folder = own.folder
    written = folder.text("init.pid")
    pid = documents.parse_pid(written) if written else None
    found = process.candidates(pid, folder.pid_written, remembered.pid, remembered.start)
    init = process.judge(found, process.Cradle(own.key.id, groups.names))
    if init.state is InitState.ALIVE:
        return init
    if folder.is_barred("init.pid") or remembered.exists is Answer.NONE:
        return Init(InitState.NONE, init.pid, "a file that would name it could not be read")
    if init.state is InitState.ABSENT and Entries.INIT_PID in folder.entries:
        return replace(init, detail="init.pid holds no pid")
    return init


def _shim(own: _Own) -> Shim:
    folder, around = own.folder, own.around
    named = testimony.addresses_of(folder)
    if not named and own.peer is not None:
        named = testimony.addresses_of(own.peer)
    names = shim.Names(own.key.namespace, own.group, own.key.id, named)
    found = shim.ask(names, around.layout, around.door, around.addresses)
    barred = folder.is_barred("bootstrap.json") or folder.is_barred("address")
    if barred and found.state is not ShimState.ALIVE:
        return replace(found, state=ShimState.NONE, detail="its address could not be read")
    return found


def _shim_of(init: int, namespace: bytes) -> int | None:
    """Give the pid of a living init's parent if that is a shim of this namespace."""
    with suppress(OSError):
        stat_line = process.read_stat(init)
        if stat_line is not None and stat_line.ppid > 0:
            command = parse_command(list(process.read_command(stat_line.ppid)))
            if command is not None and command.key.namespace == namespace:
                return stat_line.ppid
    return None


def _socket(around: Surroundings, key: BundleKey, asked: Shim) -> bytes | None:
    """Name the socket's file: the one that was asked, else the one that would be derived."""
    path = asked.socket
    if path is None:
        path = around.layout.shim_socket(key.namespace, asked.group or key.id)
    try:
        is_socket = stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return None
    return path if is_socket else None
