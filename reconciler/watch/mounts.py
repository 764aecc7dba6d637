"""Changes of the mount table, as hints. mount and umount give no inotify event.

The kernel signals a change of /proc/self/mountinfo once per handle (proc_pid_mountinfo(5),
POLLPRI), and a handle inside an epoll inside the loop's own epoll has a trap: a change that
happened before the loop begins to wait is swallowed as the wait begins. So whoever is rung reads
the table in a task of its own, after the listener waits again; then what was swallowed is read.
"""

import os
import select
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskStatus

from reconciler.clock import SystemClock
from reconciler.model.observations import Hint, HintKind, Resync, ResyncKind
from reconciler.ports import Clock, Emit
from reconciler.probe.mounts import MOUNTINFO
from reconciler.probe.points import TreeMounts

DEBOUNCE: Final = 0.005
"""Seconds in which further changes are awaited: a container mounts more than once."""

SHARE: Final = 4.0
"""Pause at least this many times as long as reading took: thousands of mounts cost milliseconds."""


async def watch_mounts(
    ring: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Call ``ring`` after every change of the mount table, until cancelled.

    Read the table after ``started`` and after every ring, but in another task.

    Raises:
        OSError: There is no mount table or no handle left.
    """
    with select.epoll() as signal:
        table = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        try:
            signal.register(table, select.EPOLLPRI | select.EPOLLERR)
            task_status.started()
            while True:
                await anyio.wait_readable(signal.fileno())
                ring()
        finally:
            os.close(table)


class MountWatch:
    """Hints at bundles whose mounts changed; implements `ports.Source`.

    Make it before the first look: what changes from then on is reported.

    Args:
        read: Gives the mounts of the state tree as they are now.
        clock: Times the reading.
    """

    def __init__(self, read: Callable[[], TreeMounts], clock: Clock | None = None) -> None:
        self._read = read
        self._clock = clock or SystemClock()
        self._known = self._read_or_nothing()
        self._bell = anyio.Event()

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled; if the mount table cannot be watched, say so and end."""
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(watch_mounts, self._ring)
                await self._compare_for_ever(emit)
        except* OSError:
            emit(Resync(ResyncKind.WATCH_LOST))

    def _ring(self) -> None:
        self._bell.set()

    async def _compare_for_ever(self, emit: Emit) -> None:
        while True:
            began = self._clock.monotonic()
            self._compare(emit)
            took = self._clock.monotonic() - began
            await self._bell.wait()
            await anyio.sleep(max(DEBOUNCE, SHARE * took))
            self._bell = anyio.Event()

    def _compare(self, emit: Emit) -> None:
        before, now = self._known, self._read_or_nothing()
        self._known = now
        for key in before.bundles.keys() | now.bundles.keys():
            if before.of(key) != now.of(key):
                emit(Hint(key, HintKind.MOUNT))
        for namespace in before.namespaces ^ now.namespaces:
            emit(Resync(ResyncKind.NAMESPACE, namespace))

    def _read_or_nothing(self) -> TreeMounts:
        try:
            return self._read()
        except OSError:
            return TreeMounts()  # then every mount is news when it can be read again
