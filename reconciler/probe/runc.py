"""What the runtime itself remembers of a container: runc's ``state.json``, crun's ``status``.

youki writes a ``state.json`` of its own. crun and youki keep the hooks in a second file. All of it
lies outside the bundle, in a directory that options.json may name. Reads only, below that directory
without following symlinks. A missing or torn file is evidence, never an exception.
"""

import os
from contextlib import suppress
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV
from typing import Final

import msgspec
from msgspec.structs import replace

from reconciler import kernel
from reconciler.model.evidence import Answer
from reconciler.model.layout import Layout
from reconciler.probe import documents
from reconciler.probe.documents import CrunStatus, Options, RuncState
from reconciler.probe.handles import Handles
from reconciler.probe.reach import OutOfReachError

CRUN_SPEC: Final = b"config.json"
YOUKI_SPEC: Final = b"youki_config.json"
YOUKI: Final = "youki"
KEEPERS: Final = {CRUN_SPEC: "crun", YOUKI_SPEC: YOUKI}

_LIMIT: Final = 8 << 20
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_OPTIONS: Final = Options()
_YES: Final = Answer.YES
_NOT_THERE: Final = frozenset({ENOENT, ENOTDIR})
_NO_FILE: Final = frozenset({ELOOP, EISDIR, ENXIO, EXDEV})  # something else has its name


class Runc(msgspec.Struct, frozen=True, gc=False):
    """What the runtime remembers.

    Attributes:
        root: What the runtime was given as ``--root``.
        binary: Its binary, or empty for the default.
        exists: Whether it knows the container, which it does from the end of creation on.
        bundle: The bundle that its state is about, as it says itself; None if it does not.
        pid, start: Init, if it is named; start in ticks since boot.
        cgroup_dirs: Its cgroups as directories.
        cgroup_path: The same as a path within every hierarchy, as crun and youki keep it.
        has_poststop_hooks: Somebody expects to be called once the container is gone.
        keeper: Which runtime wrote it, by the form of its files: ``runc``, ``crun`` or ``youki``.
        whole: Whether all of its files that count are there and could be understood.
        trouble: Why there is no answer, for people, if that is worth telling.
    """

    root: bytes
    binary: str = ""
    exists: Answer = Answer.NO
    bundle: bytes | None = None
    pid: int | None = None
    start: int | None = None
    cgroup_dirs: tuple[str, ...] = ()
    cgroup_path: str = ""
    has_poststop_hooks: bool = False
    keeper: str = "runc"
    whole: bool = True
    trouble: str = ""

    @property
    def hides_cgroup(self) -> bool:
        """Whether it may have a cgroup that cannot be read: youki names it in a second file."""
        return self.keeper == YOUKI and not self.whole

    @property
    def pid_is_vague(self) -> bool:
        """Whether it names init by its pid alone, as youki does: no process is then another's."""
        return self.keeper == YOUKI and self.pid is not None and self.start is None


def look(
    handles: Handles, layout: Layout, path: bytes, options_file: bytes | None, *, barred: bool
) -> Runc:
    """Read what the runtime remembers of a container.

    Args:
        handles: Opens runc's root.
        layout: Says where runc keeps its state by default.
        path: The bundle's, within a tree of namespaces.
        options_file: options.json, if there is one; a torn one counts as missing: it is written
            before the container is made, and the cgroups bear witness on their own.
        barred: options.json is there and could not be read, so the root may be another.
    """
    options = (documents.parse_options(options_file) if options_file else None) or _NO_OPTIONS
    base = documents.to_path(options.root) or layout.runc_root
    root = base + b"/" + path.partition(b"/")[0]
    found = _look_below(handles, base, path, Runc(root, options.binary_name))
    if barred and found.exists is Answer.NO:
        return Runc(root, exists=Answer.NONE)
    return found


def _look_below(handles: Handles, base: bytes, relative: bytes, blank: Runc) -> Runc:
    """Look for the container's directory; nothing below the root is followed, no mount entered."""
    try:
        base_fd = handles.named(base)
        with suppress(OSError):  # nearly always there; anything else is looked at step by step
            data = kernel.read_beneath(base_fd, relative + b"/state.json", _LIMIT)
            state = documents.parse_state(data) if len(data) < _LIMIT else None
            if state is not None and not state.is_youki:
                return _from_state(blank, state)
        handle = kernel.openat2(base_fd, relative, _HANDLE, kernel.RESOLVE_STRICT)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return blank
        if error.errno == ELOOP:  # a symlink has its name: something is there, and tells nothing
            return _from_state(blank, RuncState())
        trouble = str(error) if isinstance(error, OutOfReachError) else ""
        return replace(blank, exists=Answer.NONE, trouble=trouble)
    try:
        return _look_into(handle, blank)
    except OSError:
        return replace(blank, exists=Answer.NONE)
    finally:
        os.close(handle)


def look_at(handle: int, root: bytes) -> Runc:
    """Read what is remembered in one directory, by a handle on it; ``root`` holds it.

    Raises:
        OSError: It cannot be read.
    """
    return _look_into(handle, Runc(root))


def _look_into(handle: int, blank: Runc) -> Runc:
    data = _read(handle, b"state.json")
    if data is not None:
        whole = documents.parse_state(data)
        state = whole or documents.salvage_state(data)
        found = _from_state(replace(blank, whole=whole is not None), state)
        is_torn_youki = whole is None and _read(handle, YOUKI_SPEC) is not None
        if state.is_youki or is_torn_youki:
            return _with_own_spec(found, handle, YOUKI_SPEC)
        return found
    data = _read(handle, b"status")
    if data is not None:
        status = documents.parse_status(data)
        found = _from_status(replace(blank, whole=status is not None), status or CrunStatus())
        return _with_own_spec(found, handle, CRUN_SPEC)
    return blank


def _with_own_spec(found: Runc, handle: int, name: bytes) -> Runc:
    """Add what the runtime keeps in a second file: whether there are hooks, and youki's cgroup."""
    data = _read(handle, name)
    spec = documents.parse_own_spec(data) if data else None
    return replace(
        found,
        keeper=KEEPERS[name],
        cgroup_path=spec.cgroup_path if spec and name == YOUKI_SPEC else found.cgroup_path,
        has_poststop_hooks=spec is not None and spec.has_poststop_hooks,
        whole=found.whole and spec is not None,
    )


def _from_state(blank: Runc, state: RuncState) -> Runc:
    pid = state.pid
    return Runc(
        blank.root,
        blank.binary,
        _YES,
        documents.to_path(state.bundle),
        pid if documents.is_pid(pid) else None,
        state.init_process_start or None,
        tuple(state.cgroup_paths.values()) if state.cgroup_paths else (),
        has_poststop_hooks=state.has_poststop_hooks,
        whole=blank.whole,
    )


def _from_status(blank: Runc, status: CrunStatus) -> Runc:
    return replace(
        blank,
        exists=Answer.YES,
        bundle=documents.to_path(status.bundle),
        pid=status.pid if documents.is_pid(status.pid) else None,
        start=status.start or None,
        cgroup_path=status.cgroup_path,
    )


def _read(handle: int, name: bytes) -> bytes | None:
    """Read a state file; None if there is none, empty if it is no regular file of sane size.

    Raises:
        OSError: It could not be read.
    """
    try:
        data = kernel.read_beneath(handle, name, _LIMIT + 1)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        if error.errno in _NO_FILE:
            return b""
        raise
    return data if len(data) <= _LIMIT else b""
