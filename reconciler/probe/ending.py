"""Ending: whether somebody whom a pass over /proc has shown has ended since. Reads only.

On a busy node shims end all the time. One that is just ending has left its directory, its
descriptors and its namespaces before its pidfd says so (Linux ``do_exit``), so a question about it
gets no answer. It works nowhere and serves nobody once every thread of it has ended, and nothing
but the kernel's own word for that counts: whoever lives and cannot be read is still no answer.
"""

import os
import select
from errno import ESRCH
from typing import Final

from reconciler.clock import Deadline
from reconciler.probe.process import has_ended, is_leaving

PATIENCE: Final = 0.1
"""Seconds to wait for those that are on their way out, all together."""


class Endings:
    """Shows of pids that whoever had them has ended, or does so within a moment.

    Attributes:
        shown: Of which pids that was shown so far. One may be another process's later.
    """

    def __init__(self) -> None:
        self.shown: set[int] = set()
        self._left = PATIENCE

    def show(self, pid: int) -> bool:
        """Return whether whoever had a pid has ended; not if that cannot be known.

        The process that has the pid now is held meanwhile: if it has ended, so has any before it.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            ended = error.errno == ESRCH
        else:
            try:
                ended, self._left = _leaves_within(self._left, pid, pidfd)
            finally:
                os.close(pidfd)
        if ended:
            self.shown.add(pid)
        return ended


def has_left(pid: int, pidfd: int) -> bool:
    """Return whether a process has ended, or does so within a moment; not if that is not known."""
    return _leaves_within(PATIENCE, pid, pidfd)[0]


def _leaves_within(seconds: float, pid: int, pidfd: int) -> tuple[bool, float]:
    """Return whether every thread of a process ends, and the seconds left; waits for no other."""
    if has_ended(pidfd):
        return True, seconds
    if not is_leaving(pid, pidfd):
        return False, seconds
    poll, deadline = select.poll(), Deadline(seconds)
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000)), deadline.left
