"""Going: which bundles are being removed at this moment, by any worker of any reconciler.

Some things go with the last bundle that needs them: a pod's socket, FIFOs and cgroups that two
bundles name. If several go at the same time, each would leave them to the others. So a worker
locks the directory of the bundle it removes, and a locked one does not count as needing anything.
It was judged dead before it was locked, so whatever is dead with it is no loss should it be kept in
the end; and the kernel takes the lock back from a worker that dies. Changes nothing on disk.
"""

import fcntl
import os
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_TRIES: Final = 100  # who asks holds the lock for a microsecond


def announce(bundle: int) -> None:
    """Say that a bundle, by a handle on it, is being removed, until the handle is closed.

    If that cannot be said, others go on taking the bundle for one that stays.
    """
    for _ in range(_TRIES):
        try:
            fcntl.flock(bundle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.sched_yield()
        except OSError:
            return
        else:
            return


def is_going(parent: int | None, path: bytes) -> bool:
    """Tell whether somebody removes a bundle now; not if that cannot be told.

    Args:
        parent: Handle on a directory above it; None for an absolute path.
        path: From there.
    """
    try:
        bundle = os.open(path, _DIRECTORY, dir_fd=parent)
    except OSError:
        return False
    try:
        fcntl.flock(bundle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(bundle)
    return False
