"""Under removal: which bundles are being removed at this moment, by any worker of any reconciler.

Some things go with the last bundle that needs them: a pod's socket, FIFOs and cgroups that two
bundles name. If several go at the same time, each would leave them to the others. So a worker
locks the directory of the bundle it removes, and a locked one does not count as needing anything.
It was judged dead before it was locked, so whatever is dead with it is no loss should it be kept in
the end; and the kernel takes the lock back from a worker that dies. Changes nothing on disk.
Which bundles are there and stay is asked here alone.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from typing import Final

from reconciler import kernel
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe.beneath import enter, names, opened

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


def is_going(parent: int, path: bytes) -> bool:
    """Return whether somebody removes the bundle at a path now; not if that cannot be known."""
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


def stays(parent: int, path: bytes, *, even_going: bool = False) -> bool:
    """Return whether a bundle is there and not being removed now, or ``even_going``.

    ``path`` is taken from ``parent``, a handle above it, or AT_FDCWD for an absolute one.

    Raises:
        OSError: That cannot be known.
    """
    try:
        kernel.statx(parent, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return even_going or not is_going(parent, path)


def bundles_called(tree: bytes, ids: Collection[str]) -> Iterator[BundleKey]:
    """Give the bundles of these ids that stay, whatever their namespace.

    A namespace that cannot be entered may have all of them, for all that can be told.

    Raises:
        OSError: The tree cannot be read.
    """
    with opened(tree) as top:
        for namespace in enter(top, names(top)):
            for id_ in ids:
                if namespace.fd < 0 or stays(namespace.fd, unescape(id_)):
                    yield BundleKey(escape(namespace.name), id_)
