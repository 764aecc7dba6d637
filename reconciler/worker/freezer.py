"""Freezer: lets the frozen go on, so that a signal ends them (cgroup version 1 alone).

SIGKILL waits for a process that the freezer of version 1 holds; in version 2 it does not
(cgroups(7)). Only ever called with groups that were proven to be one bundle's own, and just before
everybody in them is killed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import ENODEV, ENOENT
from typing import Final

from reconciler import kernel
from reconciler.decide.ownership import Group
from reconciler.model.ids import unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.cgroups import children
from reconciler.worker.blocked import Blocked
from reconciler.worker.step_log import Tally

_STATE: Final = b"freezer.state"
_MOUNT: Final = os.O_PATH | os.O_NOFOLLOW
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_LIMIT: Final = 64
_DEPTH: Final = 64
_GONE: Final = frozenset({ENOENT, ENODEV})


def is_frozen(groups: Iterable[Group]) -> bool:
    """Return whether one of these groups is frozen; not if that cannot be known."""
    for group in groups:
        with suppress(OSError), _opened(group) as handle:
            if _read(handle, _STATE) not in {b"", b"THAWED"}:
                return True
    return False


def thaw(groups: Iterable[Group], tally: Tally) -> None:
    """Thaw these groups and those below them.

    Raises:
        Blocked: A group above them is frozen, which is not theirs.
        OSError: The kernel refused.
    """
    for group in groups:
        with suppress(FileNotFoundError), _opened(group) as handle:
            if _read(handle, b"freezer.parent_freezing") == b"1":
                raise Blocked(BlockReason.CGROUP, group.path, "frozen by a cgroup above it")
            _thaw(handle, tally, _DEPTH)


def _thaw(handle: int, tally: Tally, depth: int) -> None:
    """Thaw one group that was frozen itself, then those below: what was frozen above runs first."""
    if _read(handle, b"freezer.self_freezing") == b"1":
        state = os.open(_STATE, _WRITE, dir_fd=handle)
        try:
            os.write(state, b"THAWED")
        finally:
            os.close(state)
        tally.add()
    if depth == 0 or not _read(handle, _STATE):
        return
    for name in children(handle):
        with (
            suppress(FileNotFoundError),
            beneath(handle, name) as below,
        ):  # one that is gone is empty
            _thaw(below, tally, depth - 1)


@contextmanager
def _opened(group: Group) -> Iterator[int]:
    path = unescape(group.path.lstrip("/"))
    with opened(unescape(group.mount), _MOUNT) as mount, beneath(mount, path) as handle:
        yield handle


def _read(handle: int, name: bytes) -> bytes:
    """Read a file of the freezer's; empty where there is none: another hierarchy, or the root."""
    try:
        return kernel.read_beneath(handle, name, _LIMIT).strip()
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise
