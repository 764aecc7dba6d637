"""The mount table as text, as /proc/PID/mountinfo tells it (proc_pid_mountinfo(5)).

The one reader of it, for what the calls of :mod:`reconciler.kernel.mounts` do not tell: other mount
namespaces, peer groups, options; and for kernels without these calls. Nothing here opens what is
mounted. Lines that cannot be understood are passed over.
"""

import os
import re
import select
from collections.abc import Iterator
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.kernel.mounts import Mounted
from reconciler.probe.process import MOST_MOUNTS, PROC, read_whole

MOUNTINFO: Final = b"/proc/self/mountinfo"

_ROUNDS: Final = 3  # readings of a table that will not hold still
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
DELETED: Final = b"//deleted"  # the mount point was unlinked; no path leads to it any more
_LEFT: Final = 6  # fields before the optional ones
_RIGHT: Final = 3  # fields after the separator
_SHARED: Final = b"shared:"


class MountEntry(NamedTuple):
    """One line of mountinfo.

    Attributes:
        mount: The mount.
        parent_id: Which one it is mounted on.
        peer: Peer group if it is shared, else None.
        options: The filesystem's own options.
    """

    mount: Mounted
    parent_id: int
    peer: int | None
    options: bytes


def read_table(who: bytes = b"self", proc: bytes = PROC, *, most: int = MOST_MOUNTS) -> bytes:
    """Read the mount table of a process, by its pid in digits, or ours.

    Raises:
        OSError: It cannot be read, or is longer than ``most`` bytes (EFBIG).
    """
    return read_whole(b"%s/%s/mountinfo" % (proc, who), most=most)


def parse(data: bytes) -> Iterator[MountEntry]:
    """Read a mount table line by line; what is no such line is passed over."""
    for line in data.split(b"\n"):
        entry = _parse_line(line)
        if entry is not None:
            yield entry


def mount_numbered(mount_id: int, proc: bytes = PROC) -> MountEntry | None:
    """Find a mount of ours by its number; None if it is not in the table.

    Raises:
        OSError: The table cannot be read.
    """
    needle = b"%d " % mount_id
    line = next((one for one in read_table(proc=proc).split(b"\n") if one.startswith(needle)), b"")
    return _parse_line(line)


def mount_at(path: bytes, proc: bytes = PROC) -> MountEntry | None:
    """Find the mount that a path is on; None if it is not in the table.

    Raises:
        OSError: There is no such path, or the table cannot be read.
    """
    return mount_numbered(kernel.statx(kernel.AT_FDCWD, path).mount_id, proc)


def _parse_line(line: bytes) -> MountEntry | None:
    left, _, right = line.partition(b" - ")  # spaces in names are escaped, so this is the first
    head, tail = left.split(b" "), right.split(b" ", _RIGHT - 1)
    if len(head) < _LEFT or len(tail) < _RIGHT or not (head[0].isdigit() and head[1].isdigit()):
        return None
    major, _, minor = head[2].partition(b":")
    if not (major.isdigit() and minor.isdigit()):
        return None
    device = os.makedev(int(major), int(minor))
    mount = Mounted(int(head[0]), unescape(head[4]), unescape(tail[0]), device, unescape(head[3]))
    peer = None
    for tag in head[_LEFT:]:
        if tag.startswith(_SHARED) and tag[len(_SHARED) :].isdigit():
            peer = int(tag[len(_SHARED) :])
    return MountEntry(mount, int(head[1]), peer, tail[2])


def unescape(name: bytes) -> bytes:
    """Undo the kernel's octal escapes (space, tab, newline, backslash)."""
    if b"\\" not in name:
        return name
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), name)


def type_name(fstype: bytes) -> str:
    """Make a filesystem's type printable."""
    return fstype.decode("ascii", "backslashreplace")


class MountTable:
    """Reads our mount table, and again only after the kernel has signalled a change.

    The handle is one on /proc and keeps no mount busy. :meth:`close` gives it back.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._owner = 0
        self._data: bytes | None = None

    def __del__(self) -> None:
        """Close it, should nobody have."""
        self.close()

    def read(self) -> bytes:
        """Give the table as it is now; the same object as before if nothing has changed.

        Raises:
            OSError: /proc is not there or may not be read.
        """
        if self._owner != os.getpid():
            self._open()
        changed = self._changed()
        if self._data is not None and not changed:
            return self._data
        data = read_table()
        for _ in range(_ROUNDS):
            if not self._changed():
                break
            data = read_table()  # it changed under the read, which may have missed a line
        self._data = data
        return data

    def close(self) -> None:
        """Give the handle back; the next read opens it again."""
        if self._owner == os.getpid():
            os.close(self._fd)
        self._owner = 0

    def _open(self) -> None:
        # A handle inherited by fork is shared: whoever asks first takes the signal from the other.
        self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._owner = os.getpid()
        self._data = None

    def _changed(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLPRI)
        return bool(poll.poll(0))
