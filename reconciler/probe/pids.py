"""Pids: which ones were given out between two moments, so that only who has them is looked at.

The kernel gives them out in order (`kernel/pid.c`, ``idr_alloc_cyclic``), to processes and to
threads, and to those of the namespaces below as well. What would break the order is no answer:

1. They began again at the smallest: the later number is smaller, or so much time has passed that
   they may have gone round. Nothing else bounds that: whoever may make no more processes still uses
   up a pid with each refused call.
2. Between a number and the time there is one, too: a moment has an earliest and a latest time. A
   machine that sleeps gives out no pids, and the monotonic clock does not count that.

What is left is who chooses pids himself (clone3(2), ``set_tid``; `ns_last_pid`). He must be
privileged over this very pid namespace, containerd's, and what he so restores is the processes of a
container and not its shim, which containerd starts.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler.probe.process import PROC, read_whole

if TYPE_CHECKING:
    from reconciler.ports import Clock

_MOST_ON_A_PROCESSOR: Final = 1_000_000
"""So many pids a second at most; 240,000 were measured, each by a thread that was refused late."""
_MOST: Final = 10_000_000
"""So many on any number: the kernel takes one lock twice for each, to give it and to take it."""
_PROCESSORS: Final = b"/sys/devices/system/cpu/possible"
"""Of all there can ever be, those that we may not use included: like ``0-3,8-11``."""
_ENOUGH: Final = 64  # bytes of a number


class Moment(NamedTuple):
    """A moment in the order of pids.

    Attributes:
        last: The pid that was last given out in our pid namespace; None if that cannot be known.
        earliest, latest: Monotonic times between which that was so.
    """

    last: int | None
    earliest: float
    latest: float


def moment(clock: "Clock") -> Moment:
    """Give this moment. Kernels without checkpoint and restore do not tell the last pid."""
    earliest = clock.monotonic()
    last = _number(PROC + b"/sys/kernel/ns_last_pid")
    return Moment(last, earliest, clock.monotonic())


def given_out(since: Moment, until: Moment, processors: bytes = _PROCESSORS) -> range | None:
    """Give the pids that were given out between two moments; None if that is not certain."""
    if since.last is None or until.last is None or until.last < since.last:
        return None
    round_ = _number(PROC + b"/sys/kernel/pid_max")
    if round_ is None or (until.latest - since.earliest) * _most(processors) >= round_:
        return None
    return range(since.last + 1, until.last + 1)


@cache
def _most(processors: bytes) -> int:
    """Say how many pids may be given out in a second; that is so until the machine stops."""
    try:
        highest = int(read_whole(processors).replace(b"-", b",").rpartition(b",")[2])
    except (OSError, ValueError):
        return _MOST
    return min((highest + 1) * _MOST_ON_A_PROCESSOR, _MOST)


def _number(path: bytes) -> int | None:
    try:
        return int(os.pread(_opened(path), _ENOUGH, 0))
    except (OSError, ValueError):
        return None


@cache
def _opened(path: bytes) -> int:
    """Open a number of the kernel's, for as long as this process lasts.

    It is asked before each thing that is removed, and to open it costs ten times as much. What it
    says is the number of when it is read, for whoever reads (`fs/proc/proc_sysctl.c`).
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
