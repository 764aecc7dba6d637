"""The mount table of our mount namespace, as /proc/self/mountinfo tells it (proc_pid_mountinfo(5)).

Indexed by bundle, so that a look costs nothing, and read again only when the kernel says that it
changed. Nothing here opens what is mounted. Lines that cannot be understood are passed over.
"""

import os
import re
import select
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reconciler.kernel.mounts import Mounted
from reconciler.model.evidence import Mount
from reconciler.model.ids import BundleKey, escape
from reconciler.probe.process import MOST_MOUNTS, PROC, read_whole

MOUNTINFO: Final = b"/proc/self/mountinfo"

_CHUNK: Final = 1 << 20
_ROUNDS: Final = 3  # readings of a table that will not hold still
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
DELETED: Final = b"//deleted"  # the mount point was unlinked; no path leads to it any more
_LEFT: Final = 6  # fields before the optional ones
_RIGHT: Final = 3  # fields after the separator


class MountEntry(NamedTuple):
    """One line of mountinfo.

    Attributes:
        mount_id, parent_id: As the kernel numbers mounts.
        device: ``major:minor``.
        root: Directory of the filesystem that is mounted.
        point: Mount point, relative to our root directory.
        peer: Peer group if the mount is shared, else None.
        master: Peer group it receives mounts from if it is a slave, else None.
        fstype: Filesystem type.
        options: The filesystem's own options.
    """

    mount_id: int
    parent_id: int
    device: bytes
    root: bytes
    point: bytes
    peer: int | None
    master: int | None
    fstype: bytes
    options: bytes


def parse(data: bytes) -> Iterator[MountEntry]:
    """Read a mount table line by line; what is no such line is passed over."""
    for line in data.split(b"\n"):
        entry = _parse_line(line)
        if entry is not None:
            yield entry


def of_type(data: bytes, prefix: bytes) -> Iterator[MountEntry]:
    """Read only the lines of filesystems whose type begins like this."""
    needle = b" - " + prefix
    for line in data.split(b"\n"):
        entry = _parse_line(line) if needle in line else None
        if entry is not None and entry.fstype.startswith(prefix):
            yield entry


def entries_at(data: bytes, path: bytes) -> list[MountEntry]:
    """Read only the lines of what is mounted at a real path itself."""
    needle = b" " + _escape(path) + b" "
    lines = b"\n".join(line for line in data.split(b"\n") if needle in line)
    return [one for one in parse(lines) if one.point == path]


def mount_numbered(mount_id: int, proc: bytes = PROC) -> MountEntry | None:
    """Find a mount of ours in the table as text; None if it is not there.

    Raises:
        OSError: The table cannot be read.
    """
    needle = b"%d " % mount_id
    table = read_whole(proc + b"/self/mountinfo", most=MOST_MOUNTS)
    line = next((one for one in table.split(b"\n") if one.startswith(needle)), b"")
    return _parse_line(line)


def _parse_line(line: bytes) -> MountEntry | None:
    left, _, right = line.partition(b" - ")  # spaces in names are escaped, so this is the first
    head, tail = left.split(b" "), right.split(b" ", _RIGHT - 1)
    if len(head) < _LEFT or len(tail) < _RIGHT or not (head[0].isdigit() and head[1].isdigit()):
        return None
    tags = dict(tag.partition(b":")[::2] for tag in head[_LEFT:])
    return MountEntry(
        int(head[0]),
        int(head[1]),
        head[2],
        unescape(head[3]),
        unescape(head[4]),
        _number(tags.get(b"shared")),
        _number(tags.get(b"master")),
        unescape(tail[0]),
        tail[2],
    )


def _number(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def unescape(name: bytes) -> bytes:
    """Undo the kernel's octal escapes (space, tab, newline, backslash)."""
    if b"\\" not in name:
        return name
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), name)


@dataclass(frozen=True, slots=True)
class TreeMounts:
    """The mounts at or below the bundles of one state tree, in the order they were mounted."""

    bundles: dict[BundleKey, tuple[Mount, ...]] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()  # namespace directories that are mount points

    def of(self, key: BundleKey) -> tuple[Mount, ...]:
        """Give the mounts at or below one bundle."""
        return self.bundles.get(key, ())


def index(data: bytes, tree: bytes) -> TreeMounts:
    """Pick out the mounts below ``tree``: a real path, without symlinks or a final slash."""
    needle = b" " + _escape(tree) + b"/"
    # Thousands of lines: most are told by this alone, the others need three of their fields.
    found = (_find(line) for line in data.split(b"\n") if needle in line)
    inside, cut = tree + b"/", len(tree) + 1
    bundles: defaultdict[BundleKey, list[Mount]] = defaultdict(list)
    namespaces = set()
    for mount_id, point, fstype, *_ in (row for row in found if row is not None):
        if not point.startswith(inside) or point.endswith(DELETED):
            continue
        parts = point[cut:].split(b"/", 2)
        if len(parts) == 1:
            namespaces.add(escape(parts[0]))
            continue
        path = parts[2] if len(parts) > 2 else b""  # noqa: PLR2004 - namespace, id, rest
        mount = Mount(escape(path), mount_id, type_name(fstype))
        bundles[BundleKey(escape(parts[0]), escape(parts[1]))].append(mount)
    return TreeMounts(
        {key: tuple(mounts) for key, mounts in bundles.items()}, frozenset(namespaces)
    )


def type_name(fstype: bytes) -> str:
    """Make a filesystem's type printable."""
    return fstype.decode("ascii", "backslashreplace")


def rows(data: bytes) -> tuple[Mounted, ...]:
    """Read of every line what is asked most often."""
    found = (_find(line) for line in data.split(b"\n"))
    return tuple(row for row in found if row is not None)


def _find(line: bytes) -> Mounted | None:
    """Read of a line what is asked most often; None if it is none."""
    left, _, right = line.partition(b" - ")
    head = left.split(b" ", _LEFT)
    fstype, space, _ = right.partition(b" ")
    if len(head) < _LEFT or not head[0].isdigit() or not space:
        return None
    major, _, minor = head[2].partition(b":")
    if not (major.isdigit() and minor.isdigit()):
        return None
    device = os.makedev(int(major), int(minor))
    return Mounted(int(head[0]), unescape(head[4]), fstype, device, unescape(head[3]))


def _escape(path: bytes) -> bytes:
    for char in b"\\ \t\n":
        path = path.replace(bytes([char]), b"\\%03o" % char)
    return path


class MountTable:
    """Reads the mount table, and again only after the kernel has signalled a change.

    The handle is one on /proc and keeps no mount busy. :meth:`close` gives it back.
    """

    def __init__(self, path: bytes = MOUNTINFO) -> None:
        self._path = path
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
        data = self._read_all()
        for _ in range(_ROUNDS):
            if not self._changed():
                break
            data = self._read_all()  # it changed under the read, which may have missed a line
        self._data = data
        return data

    def close(self) -> None:
        """Give the handle back; the next read opens it again."""
        if self._owner == os.getpid():
            os.close(self._fd)
        self._owner = 0

    def _open(self) -> None:
        # A handle inherited by fork is shared: whoever asks first takes the signal from the other.
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._owner = os.getpid()
        self._data = None

    def _changed(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLPRI)
        return bool(poll.poll(0))

    def _read_all(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        chunks = []
        while chunk := os.read(self._fd, _CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
