"""Is this containerd's state directory at all? Asked once, before anything else, for the operator.

A tree that is missing, somebody else's, or dangerous ends a command with one line that says what is
wrong and what to do. Reads only.
"""

import os
import stat
from collections.abc import Collection
from enum import Enum
from typing import Final

import msgspec

from reconciler.model.ids import escape
from reconciler.model.layout import TASKS, Layout
from reconciler.probe.beneath import opened
from reconciler.probe.mounts import parse, read_table

_LEAST_DEPTH: Final = 2  # directories from the root to a state directory
_TOO_BROAD: Final = frozenset(
    {b"/var/run", b"/var/lib", b"/var/tmp", b"/run/user", b"/run/lock", b"/dev/shm"}
)
_SIGNS: Final = frozenset(
    {b"containerd.sock", b"containerd.sock.ttrpc", b"debug.sock", b"runc", b"fifo", b"s"}
)
_PLUGIN: Final = b"io.containerd."


class ProblemKind(Enum):
    """What is wrong with the state directory."""

    DANGEROUS = "dangerous"
    MISSING = "missing"
    NOT_A_DIRECTORY = "not a directory"
    NOT_CONTAINERD = "not containerd's"
    NO_PERMISSION = "no permission"
    SYMLINK = "symlink"
    UNREADABLE = "unreadable"


class Problem(msgspec.Struct, frozen=True):
    """Why there is nothing to look at.

    Attributes:
        kind: See :class:`ProblemKind`.
        what: What is wrong, in one line, without a full stop.
        hint: What to do about it.
    """

    kind: ProblemKind
    what: str
    hint: str


def check_tree(layout: Layout) -> Problem | None:
    """Say why the state tree cannot be worked on; None if it can.

    A containerd that has not run a task since the boot has no tree yet, which is no problem.
    """
    state = escape(layout.state)
    if _is_dangerous(layout.state) or _is_dangerous(os.path.realpath(layout.state)):
        what = f"{state} is too broad to be containerd's state directory"
        return Problem(ProblemKind.DANGEROUS, what, "give containerd's own, e.g. /run/containerd")
    for path in (layout.state, layout.tasks):
        problem = _check_directory(path)
        if problem is not None:
            is_young = path == layout.tasks and problem.kind is ProblemKind.MISSING
            return _check_signs(layout.state) if is_young else problem
    return None


def out_of_sight(layout: Layout, asked: Collection[str] = ()) -> list[str]:
    """Say what of the tree nobody can see because of mounts, a line each; from the mount table.

    A look at the tree stays on its own mount: what is mounted in it may hang, or be anybody's.

    Args:
        layout: Where it is.
        asked: Only of these namespaces; empty for all.
    """
    points = _mounts_on_and_in(layout.state)
    places = dict.fromkeys((layout.state, layout.tasks))
    counts = [(place, points.count(os.path.realpath(place))) for place in places]
    tasks = os.path.realpath(layout.tasks)
    namespaces = sorted({p for p in points if os.path.dirname(p) == tasks})
    if asked:
        namespaces = [p for p in namespaces if escape(os.path.basename(p)) in asked]
    return [
        *(
            f"{_stacked(count, place)}: nothing that lies below the uppermost can be seen"
            for place, count in counts
            if count > 1
        ),
        *(
            f"namespace {escape(os.path.basename(point))} is a mount of its own, "
            "and nothing in it is looked at"
            for point in namespaces
        ),
    ]


def _stacked(count: int, place: bytes) -> str:
    return f"{count} filesystems are mounted on {escape(place)}, one over the other"


def _mounts_on_and_in(state: bytes) -> list[bytes]:
    """Give the mount points at a directory and below it; none where the table cannot be read."""
    place = os.path.realpath(state)
    try:
        points = [entry.mount.point for entry in parse(read_table())]
    except OSError:
        return []
    return [point for point in points if point == place or point.startswith(place + b"/")]


def _is_dangerous(path: bytes) -> bool:
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if not path.startswith(b"/") or b"\0" in path or b".." in parts:
        return True
    return len(parts) < _LEAST_DEPTH or b"/" + b"/".join(parts) in _TOO_BROAD


def _check_directory(path: bytes) -> Problem | None:
    name = escape(path)
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            hint = f"give the directory itself: {escape(os.path.realpath(path))}"
            return Problem(ProblemKind.SYMLINK, f"{name} is a symlink", hint)
        if not stat.S_ISDIR(mode):
            hint = "give containerd's state directory with --state"
            return Problem(ProblemKind.NOT_A_DIRECTORY, f"{name} is not a directory", hint)
        with opened(path) as fd:
            os.listdir(fd)
    except (FileNotFoundError, NotADirectoryError):
        hint = "is containerd installed, and is this its `state`? give it with --state"
        return Problem(ProblemKind.MISSING, f"{name} does not exist", hint)
    except PermissionError:
        return Problem(ProblemKind.NO_PERMISSION, f"no permission to read {name}", "run as root")
    except OSError as error:
        what = f"{name} cannot be read: {os.strerror(error.errno or 0)}"
        return Problem(ProblemKind.UNREADABLE, what, "see the kernel's log")
    return None


def _check_signs(state: bytes) -> Problem | None:
    """Tell an unused state directory of containerd from a directory that is none."""
    try:
        names = os.listdir(state)
    except OSError as error:
        what = f"{escape(state)} cannot be read: {os.strerror(error.errno or 0)}"
        return Problem(ProblemKind.UNREADABLE, what, "see the kernel's log")
    if any(name in _SIGNS or name.startswith(_PLUGIN) for name in names):
        return None
    if (count := _mounts_on_and_in(state).count(os.path.realpath(state))) > 1:
        what = f"{_stacked(count, state)}, and the uppermost holds no {escape(TASKS)}"
        return Problem(ProblemKind.NOT_CONTAINERD, what, "unmount it if it is there by mistake")
    what = f"{escape(state)} is not a containerd state directory: it has no {escape(TASKS)}"
    hint = "give the `state` of containerd's configuration with --state"
    return Problem(ProblemKind.NOT_CONTAINERD, what, hint)
