"""Removers to put into the race: ours, and those that others have used and that must lose.

A remover gets a job and says whether it is done. It may raise OSError or Blocked: then it is asked
again. The bad ones are negative controls: a race that does not catch them proves nothing.
"""

import errno
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from reconciler import kernel
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import Identity, escape
from reconciler.probe.beneath import identity_of
from reconciler.worker.removal import hide, remove_tree
from reconciler.worker.step_log import Tally
from tests.support.mountns import MNT_DETACH, UMOUNT_NOFOLLOW, umount


@dataclass
class Job:
    """A bundle to remove: where it is, and what it was when it was judged."""

    parent: int
    tree: Path
    name: bytes
    expected: Identity

    @property
    def path(self) -> Path:
        return self.tree / os.fsdecode(self.name)

    def done(self) -> bool:
        return not os.path.lexists(self.path)


Remover = Callable[[Job], bool]


def ours(job: Job) -> bool:
    """What the program does; half of the time without hiding first, to be longer in reach."""
    if parse_hidden(escape(job.name)) is None and random.random() < 0.5:  # noqa: S311 -- a coin
        hidden = hide(job.parent, job.name, job.expected, Tally())
        if hidden is None:
            return True
        job.name = hidden
    remove_tree(job.parent, job.name, job.expected, Tally())
    return True


def rmtree(job: Job) -> bool:
    """The standard library's, which avoids symlink attacks and goes through mounts."""
    shutil.rmtree(job.path, ignore_errors=True)
    return job.done()


def detach_first(job: Job) -> bool:
    """Get every mount out of the way, lazily, and then remove: whatever comes later is lost."""
    table = Path("/proc/self/mountinfo").read_bytes().splitlines()
    below = os.fsencode(job.path)
    for line in reversed(table):
        point = line.split(b" ")[4]
        if point == below or point.startswith(below + b"/"):
            with suppress(OSError):
                umount(point, MNT_DETACH | UMOUNT_NOFOLLOW)
    return rmtree(job)


def device_check(job: Job) -> bool:
    """Take what has the same st_dev for the same mount: blind to binds of the same filesystem."""

    def empty(directory: int, device: int) -> None:
        for name in os.listdir(directory):
            with suppress(OSError):
                try:
                    os.unlink(name, dir_fd=directory)
                except IsADirectoryError:
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
                    try:
                        if os.fstat(fd).st_dev == device:
                            empty(fd, device)
                    finally:
                        os.close(fd)
                    os.rmdir(name, dir_fd=directory)

    fd = os.open(job.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        empty(fd, job.expected.dev)
    finally:
        os.close(fd)
    os.rmdir(job.path)
    return True


def any_object(job: Job) -> bool:
    """Remove whatever has the name now, not the object that was judged."""
    now = identity_of(kernel.statx(job.parent, job.name))
    remove_tree(job.parent, job.name, now, Tally())
    return True


def look_then_open(job: Job) -> bool:
    """Ours, but a look for a mount and then an open, instead of an open that refuses mounts."""

    def opened(dir_fd: int, name: bytes) -> int:
        if kernel.statx(dir_fd, name).is_mount_root:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)

    with mock.patch.object(kernel, "open_beneath", opened):
        return ours(job)


REMOVERS = {
    "ours": ours,
    "rmtree": rmtree,
    "detach-first": detach_first,
    "device-check": device_check,
    "any-object": any_object,
    "look-then-open": look_then_open,
}
