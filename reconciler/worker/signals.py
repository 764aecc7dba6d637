"""Signals, through pidfds alone: a pid may be another process's by the time it is used (I15).

Whoever calls this has proven whose process a pidfd means; nothing here asks that.
"""

import select
import signal
from collections.abc import Collection


def send(pidfd: int, number: signal.Signals) -> bool:
    """Send a signal; false if the process was reaped first, as all of a pid namespace are."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def await_ends(pidfds: Collection[int], milliseconds: int) -> bool:
    """Wait until all have ended; false if for so long none of those left has."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left = len(pidfds)
    while left:
        ended = poll.poll(milliseconds)
        if not ended:
            return False
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            left -= 1
    return True
