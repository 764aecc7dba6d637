"""Remove one directory tree, relative to handles: the place where data is lost if we are wrong.

Called with a handle on the parent, one name, and the identity that was judged. It must never
follow a symlink, never go through a mount (a bind of the same filesystem included), never open a
FIFO, socket or device, and never use a path where a handle will do (principle 4).

Others may work in the tree at the same time: what is gone is fine, what appears is removed too,
what changes its type is treated as what it is now, and what is mounted blocks. Whatever was
removed before that stays removed; running it again goes on.
"""

import os

from reconciler import kernel
from reconciler.model.hidden import hidden_name
from reconciler.model.ids import Identity, escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked, blocked_at
from reconciler.worker.objects import Aside
from reconciler.worker.step_log import Tally
from reconciler.worker.walk import Walk, check_identity


def remove_tree(
    parent_fd: int,
    name: bytes,
    expected: Identity,
    tally: Tally,
    mount_points: frozenset[bytes] = frozenset(),
) -> int:
    """Remove the directory ``name`` in ``parent_fd`` and all below it, if there is one.

    Args:
        parent_fd: Handle on the directory that holds it.
        name: One name, not a path.
        expected: The object that was judged; any other is left alone.
        tally: Counts the names removed, directories included; asked before each whether to stop.
        mount_points: Names directly below it that were mount points: removed by rmdir alone, so
            that what somebody wrote under the mount stays.

    Returns:
        Allocated bytes freed, by files that had no other name.

    Raises:
        Blocked: Something is in the way, or a stop was requested.
    """
    _refuse_path(name)
    walk = Walk(parent_fd, tally, mount_points)
    try:
        walk.run(name, expected)
    finally:
        walk.close()
    return walk.bytes


def remove_mount_point(parent_fd: int, name: bytes, tally: Tally) -> None:
    """Remove a directory that was a mount point by rmdir alone, unless it is gone already.

    A symlink or file of that name was never mounted on (unlinking one that is fails) and goes, too.

    Raises:
        Blocked: Something is still mounted there, or it is not empty: then it is kept.
    """
    _refuse_path(name)
    try:
        try:
            os.rmdir(name, dir_fd=parent_fd)
        except NotADirectoryError:
            os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise blocked_at(parent_fd, name, error) from None
    tally.add()


def hide(
    parent_fd: int, name: bytes, expected: Identity, tally: Tally, born_ns: int | None = None
) -> bytes | None:
    """Take an object out of use: rename it to a name that is its own (see `model.hidden`).

    From then on its id is free, nobody else looks at it, and a later run knows it for our work.
    Gives the hidden name, None if there was nothing of that name. Where nothing else keeps the name
    from being another's, ``born_ns`` is compared, too: a disk gives a number again at once.

    Raises:
        Blocked: It is not the object that was judged; that one keeps, or has got back, its name.
    """
    _refuse_path(name)
    hidden = unescape(hidden_name(expected.ino, os.urandom(8)))

    def refuse(now: bytes) -> None:
        seen = kernel.statx(parent_fd, now)
        check_identity(seen, expected, escape(name))
        if born_ns not in {None, seen.btime_ns}:
            raise Blocked(BlockReason.CHANGED, escape(name), "not the object that was judged")

    try:
        Aside(parent_fd, name, hidden, refuse, tally).put()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise blocked_at(parent_fd, error.filename, error) from None
    return hidden


def _refuse_path(name: bytes) -> None:
    """A path here is a mistake of ours and must not reach the kernel."""
    if name in {b"", b".", b".."} or b"/" in name:
        msg = f"one name is needed, not {escape(name)!r}"
        raise ValueError(msg)
