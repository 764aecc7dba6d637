"""Runtime states: whose a runtime's state directory is. Proven by its content, never by its name.

Runc's root is shared: another containerd, or somebody who calls runc by hand, may have a container
of the same name, and a hostile options.json may name any directory as the root. So a state
directory is a bundle's only if what the runtime wrote in it names that bundle. Anything less is
kept; a state in which nothing can be read counts as the bundle's only in the default root, and only
if it cannot be one that somebody is making now: it was there while the bundle lived, or is old.
Reads only, beneath handles.

Sources: runc ``libcontainer/specconv`` (see `probe.documents`), crun ``libcrun/status.c``, youki
``libcontainer/src/container``.
"""

import os
import stat
from contextlib import ExitStack
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import BundleKey, Identity, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe import documents
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.runc import CRUN_SPEC, YOUKI_SPEC
from reconciler.worker.objects import ObjectId, object_of

_LIMIT: Final = 8 << 20
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW
STATES: Final = (b"state.json", b"status")
"""Where a runtime says whose a state is: runc and youki in the first, crun in the second."""

_FILES: Final = frozenset(
    {b"state.json", b"status", b"exec.fifo", b"notify.sock", b"seccomp.bpf", CRUN_SPEC, YOUKI_SPEC}
)
"""What a runtime keeps in a state directory, besides runc's temporary ``state-*``.

``seccomp.bpf`` is crun's: the compiled filter of system calls that Docker gives each container."""


class Owner(NamedTuple):
    """The bundle that a state may be of.

    Attributes:
        layout: Of its containerd.
        key: Its name.
        identity: The object that was judged.
        last: Its last sign of life, seconds since the epoch: its own state was made before that.
        old: What was last changed before then is not being written now.
    """

    layout: Layout
    key: BundleKey
    identity: Identity
    last: float = 0.0
    old: float = 0.0

    def is_at(self, path: bytes) -> bool:
        """Return whether a path that a file names is the bundle's, under whatever name.

        Of one that is gone its tree tells, which may be known by several.
        """
        if path == self.layout.bundle(self.key):
            return True
        tree = path.removesuffix(b"/" + self.key.path)
        try:
            if tree != path and _object(tree) == _object(self.layout.tasks):
                return True
            found = kernel.statx(kernel.AT_FDCWD, path)
        except OSError:
            return False
        return (found.dev, found.ino) == (self.identity.dev, self.identity.ino)


def _object(path: bytes) -> tuple[int, int]:
    found = kernel.statx(kernel.AT_FDCWD, path, _FOLLOW)
    return found.dev, found.ino


class State(NamedTuple):
    """A state directory as it was found.

    Attributes:
        id: The object.
        doubt: Why it is not shown to be the bundle's; empty if it is.
        torn: It has a file that should tell whose it is or which hooks it has, and that cannot be
            read.
    """

    id: ObjectId
    doubt: str = ""
    torn: bool = False


def read_state(root: bytes, owner: Owner, name: bytes = b"") -> State | None:
    """Look whose ``<root>/<id>`` is; None if there is no such directory.

    ``name`` is the directory's name where it was taken out of use as the bundle's and renamed: then
    it is the bundle's unless its content says otherwise, for some of that may have gone.

    Raises:
        OSError: It cannot be looked at.
    """
    base, _, namespace = root.rpartition(b"/")
    path = namespace + b"/" + (name or unescape(owner.key.id))
    with ExitStack() as handles:
        try:
            top = handles.enter_context(opened(base, os.O_PATH))
            handle = handles.enter_context(beneath(top, path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_default = base == owner.layout.runc_root
        return _read(handle, owner, is_default=is_default, is_hidden=bool(name))


def _read(handle: int, owner: Owner, *, is_default: bool, is_hidden: bool) -> State:
    found = kernel.statx_handle(handle)
    this = object_of(found)
    if not is_default and (strange := _strange(handle)):
        return State(this, strange)
    data = _content(handle, b"state.json")
    if data is not None and (state := documents.parse_state(data)) is not None:
        torn = state.is_youki and _is_torn(handle, YOUKI_SPEC)
        return State(this, _doubt_runc(state, owner), torn=torn)
    said = _content(handle, b"status")
    if said is not None and (status := documents.parse_status(said)) is not None:
        return State(this, _doubt_path(status.bundle, owner), torn=_is_torn(handle, CRUN_SPEC))
    doubt = ""
    if is_hidden:
        pass
    elif not is_default:
        doubt = "nothing in it says whose it is"
    elif not 0 < found.btime <= owner.last and max(found.mtime, _written(handle)) > owner.old:
        doubt = "it says nothing, and was made after the bundle's last sign of life"
    return State(this, doubt, torn=data is not None)


def _is_torn(handle: int, name: bytes) -> bool:
    """Return whether the file that keeps the hooks is missing or cannot be understood."""
    data = _content(handle, name)
    return data is None or documents.parse_own_spec(data) is None


def _doubt_runc(state: documents.RuncState, owner: Owner) -> str:
    id_ = escape(state.id.encode("utf-8", "replace"))
    if id_ != owner.key.id:
        return f"it is that of {id_}"
    return _doubt_path(state.bundle, owner)


def _doubt_path(named: str, owner: Owner) -> str:
    path = documents.to_path(named)
    if path is None:
        return "it names no bundle"
    return "" if owner.is_at(path) else f"it is that of {escape(path)}"


def _strange(handle: int) -> str:
    """Say what of a directory that only a file named is not the work of a runtime as root."""
    if os.fstat(handle).st_uid != os.geteuid():
        return "it belongs to somebody else"
    for entry in os.listdir(handle):
        name = os.fsencode(entry)
        if name not in _FILES and not name.startswith(b"state-"):
            return f"{escape(name)} in it is not a runtime's"
        if stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
            return f"{escape(name)} in it is a directory"
    return ""


def _content(handle: int, name: bytes) -> bytes | None:
    """Read a file; None if there is none, empty if it is nothing that can be read."""
    try:
        data = kernel.read_beneath(handle, name, _LIMIT)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    return data if len(data) < _LIMIT else b""


def _written(handle: int) -> float:
    """Tell when the youngest of the files that should tell was last written."""
    times = [0.0]
    for name in STATES:
        try:
            times.append(kernel.statx(handle, name).mtime)
        except FileNotFoundError:
            continue
    return max(times)
