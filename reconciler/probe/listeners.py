"""Who listens at a unix socket, as the kernel's own tables show it. Connects to nobody.

/proc/PID/net/unix names the sockets of the network namespace a process is in by path and inode;
its descriptors name inodes (proc_pid_fd(5), unix(7)). A path may be bound again after its file was
removed, so several sockets may bear it: whoever holds one of them that listens counts.
"""

import os
from typing import Final

from reconciler.probe.process import PROC, read_whole

MOST: Final = 1 << 26
"""Bytes of a table of sockets: of half a million. More is no answer."""

_FIELDS, _FLAGS, _INODE = 8, 3, 6
_LISTENS: Final = 0x10000  # __SO_ACCEPTCON
_LINK: Final = b"socket:["


def listens(pid: int, path: bytes, proc: bytes = PROC) -> bool:
    """Return whether a process holds a socket that is bound to a path and listens.

    Raises:
        OSError: That cannot be known.
    """
    inodes = _bound(read_whole(b"%s/%d/net/unix" % (proc, pid), most=MOST), path)
    return bool(inodes) and not inodes.isdisjoint(_held(b"%s/%d/fd" % (proc, pid)))


def _bound(table: bytes, path: bytes) -> frozenset[bytes]:
    found: set[bytes] = set()
    for line in table.split(b"\n"):
        if not line.endswith(b" " + path):
            continue
        fields = line.split(None, _FIELDS - 1)
        if len(fields) == _FIELDS and fields[-1] == path and int(fields[_FLAGS], 16) & _LISTENS:
            found.add(fields[_INODE])
    return frozenset(found)


def _held(directory: bytes) -> frozenset[bytes]:
    found: set[bytes] = set()
    for name in os.listdir(directory):
        try:
            link = os.readlink(directory + b"/" + name)
        except FileNotFoundError:
            continue
        if link.startswith(_LINK):
            found.add(link[len(_LINK) : -1])
    return frozenset(found)
