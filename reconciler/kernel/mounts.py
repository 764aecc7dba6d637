"""The mount table as numbers: which mounts there are, and one of them at a time (Linux 6.8).

A line of /proc/self/mountinfo costs the kernel microseconds, and it writes all of them for whoever
wants to know about one; these calls tell what is there in nanoseconds a mount. Numbers here are
the kernel's unique ones, which are never used again. Failures are ``OSError``: ENOSYS on an older
kernel, and EPERM where something filters system calls.
"""

import ctypes
import os
import struct
from typing import Final, NamedTuple

_SYS_STATMOUNT: Final = 457  # the same on every architecture but alpha
_SYS_LISTMOUNT: Final = 458
_EVERYTHING: Final = (1 << 64) - 1  # LSMT_ROOT
_DEVICE, _BASIC, _ROOT, _POINT, _FS_TYPE = 0x01, 0x02, 0x08, 0x10, 0x20  # STATMOUNT_*
_WANTED: Final = _DEVICE | _BASIC | _ROOT | _POINT | _FS_TYPE
_REQUEST: Final = struct.Struct("=IIQQ")
_FIXED: Final = struct.Struct(
    "=8xQII12xI16xI44xII"
)  # mask, device, type, usual number, root, point
_STRINGS: Final = 512  # where the strings begin
_ENOUGH: Final = _STRINGS + (3 << 12)  # for two of the longest paths and the longest type
_BATCH: Final = 4096

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_Numbers = ctypes.c_uint64 * _BATCH
_Buffer = ctypes.c_char * _ENOUGH


class Mounted(NamedTuple):
    """One mount.

    Attributes:
        mount_id: Its number as mountinfo and statx have it, which may be used again.
        point: Where it is mounted, relative to our root directory; empty if no path leads there.
        fstype: Filesystem type.
        device: Device number of the filesystem (``st_dev``), the same for all its mounts.
        root: Directory of the filesystem that is mounted; ``/`` for the whole of it.
    """

    mount_id: int
    point: bytes
    fstype: bytes
    device: int = 0
    root: bytes = b""


def list_mounts() -> list[int]:
    """Give the unique numbers of all mounts below our root, oldest first (listmount(2))."""
    found: list[int] = []
    numbers = _Numbers()
    while True:
        request = _REQUEST.pack(_REQUEST.size, 0, _EVERYTHING, found[-1] if found else 0)
        count = _libc.syscall(_SYS_LISTMOUNT, request, numbers, ctypes.c_size_t(_BATCH), 0)
        if count < 0:
            raise _error()
        found += numbers[:count]
        if count < _BATCH:
            return found


def stat_mount(number: int) -> Mounted:
    """Look at one mount (statmount(2)); ENOENT if it is gone."""
    request = _REQUEST.pack(_REQUEST.size, 0, number, _WANTED)
    buffer = _Buffer()
    if _libc.syscall(_SYS_STATMOUNT, request, buffer, ctypes.c_size_t(_ENOUGH), 0) != 0:
        raise _error()
    said, major, minor, fstype, mount_id, root, point = _FIXED.unpack_from(buffer)
    strings = ctypes.addressof(buffer) + _STRINGS
    return Mounted(
        mount_id,
        ctypes.string_at(strings + point) if said & _POINT else b"",
        ctypes.string_at(strings + fstype),
        os.makedev(major, minor),
        ctypes.string_at(strings + root) if said & _ROOT else b"",
    )


def _error() -> OSError:
    errno = ctypes.get_errno()
    return OSError(errno, os.strerror(errno))
