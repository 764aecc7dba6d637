"""System calls that Python lacks: the only ctypes in the program.

For what the standard library cannot say: resolution that stays beneath a directory and on its
mount (:func:`openat2`), mount ids (:func:`statx`), umount, rename without replacing, filesystem
types. Where ``os`` can say it with ``dir_fd`` (unlink, rmdir, mkdir, readlink, and stat where no
mount id is wanted) ``os`` is faster and should be used. pidfds are in ``os`` and ``signal``. How a
process gives up its powers is in `reconciler.kernel.confine`.

Nothing here keeps state or decides anything. It must never take a name with a NUL in it, which C
would cut short, and never hand out a handle that survives exec. Failures are ``OSError`` with errno
and the name. Every call allocates its own buffer: that costs 0.1 us of 4 and keeps threads apart.
A NUL is looked for as a number: as bytes that takes eight times as long.
"""

import ctypes
import os
import stat
import struct
from errno import EAGAIN, EINTR, EINVAL, EISDIR, ELOOP, ENOSYS, ENXIO
from typing import Final

import msgspec

AT_FDCWD: Final = -100

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_STRICT: Final = (
    RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
)
"""Never through a mount, never through a symlink, never out of the directory (principle 4)."""

AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_DONT_SYNC: Final = 0x4000
AT_PASSIVE: Final = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC
"""Look without following, mounting, or asking a filesystem that may never answer."""

STATX_BASIC_STATS: Final = 0x7FF
STATX_BTIME: Final = 0x800
STATX_MNT_ID: Final = 0x1000
STATX_ALL: Final = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID
STATX_ATTR_AUTOMOUNT: Final = 0x1000
STATX_ATTR_MOUNT_ROOT: Final = 0x2000

PR_SET_PDEATHSIG: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8
RENAME_NOREPLACE: Final = 1

TMPFS_MAGIC: Final = 0x01021994
CGROUP_MAGIC: Final = 0x0027E0EB
CGROUP2_MAGIC: Final = 0x63677270

_SYS_OPENAT2: Final = 437  # the same on every architecture but alpha
_RETRIES: Final = 64  # a rename anywhere on the machine may make openat2 say EAGAIN; it passes
_PATH_HANDLE: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PAGE: Final = 4096
_CHUNK: Final = 1 << 16
_NS: Final = 1_000_000_000
_BLOCK: Final = 512  # the unit of statx, whatever the filesystem's own is
_STATX_NLINK: Final = 0x4
_STATX_BLOCKS: Final = 0x400

_libc: Final = ctypes.CDLL(None, use_errno=True)
_StatxBuffer = ctypes.c_char * 256
_StatfsBuffer = ctypes.c_char * 256
_STATX: Final = struct.Struct("=I4xQI8xHxxQQQ24xqI20xqI12xIIQ")
_STATX_USE: Final = struct.Struct("=16xI28xQ")
_OPEN_HOW: Final = struct.Struct("=QQQ")
_HOW_SIZE: Final = _OPEN_HOW.size
_HOW_DIRECTORY: Final = _OPEN_HOW.pack(_DIRECTORY, 0, RESOLVE_STRICT)
_HOW_PATH_HANDLE: Final = _OPEN_HOW.pack(_PATH_HANDLE, 0, RESOLVE_STRICT)

_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, _StatxBuffer]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]
_libc.fstatfs.argtypes = [ctypes.c_int, _StatfsBuffer]
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
]


class Stat(msgspec.Struct, frozen=True, gc=False):
    """What :func:`statx` said. A tuple with names costs four times as much to make.

    Attributes:
        mode: Type and permissions; see the ``stat`` module.
        ino: Inode number.
        dev: Device, as ``os.makedev`` packs it.
        mount_id: The mount it was reached through: the first field of its mountinfo line.
        size, blocks: Bytes, and 512-byte blocks allocated.
        mtime_ns, btime_ns: Modified and born, since the epoch; born is 0 where it is not kept.
        attributes: ``STATX_ATTR_*`` bits that are set.
    """

    mode: int
    ino: int
    dev: int
    mount_id: int
    size: int
    blocks: int
    mtime_ns: int
    btime_ns: int
    attributes: int

    @property
    def mtime(self) -> float:
        """Seconds since the epoch."""
        return self.mtime_ns / 1e9

    @property
    def btime(self) -> float:
        """Seconds since the epoch, 0 where it is not kept."""
        return self.btime_ns / 1e9

    @property
    def is_mount_root(self) -> bool:
        """A mount covers this name."""
        return bool(self.attributes & STATX_ATTR_MOUNT_ROOT)

    @property
    def is_automount(self) -> bool:
        """Entering this directory would mount something."""
        return bool(self.attributes & STATX_ATTR_AUTOMOUNT)


def openat2(dir_fd: int, name: bytes, flags: int, resolve: int) -> int:
    """Open ``name`` relative to ``dir_fd`` within the limits of ``resolve`` (openat2(2), 5.6).

    Raises:
        OSError: EXDEV if it would cross a mount or leave the directory, ELOOP if a symlink is in
            the way, EAGAIN if the kernel could not be sure for longer than is reasonable.
    """
    return _open(dir_fd, name, _OPEN_HOW.pack(flags, 0, resolve))


def _open(dir_fd: int, name: bytes, how: bytes) -> int:
    if 0 in name:
        raise _nul(name)
    for _ in range(_RETRIES):
        fd: int = _libc.syscall(_SYS_OPENAT2, dir_fd, name, how, _HOW_SIZE)
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in {EAGAIN, EINTR}:
            break
    raise _error(name)


def open_beneath(dir_fd: int, name: bytes, *, directory: bool = True) -> int:
    """Open a name that is really here: on this mount, no symlink on the way or at the end of it.

    A directory can be listed and worked in; anything else is ENOTDIR. With ``directory=False`` the
    handle is an O_PATH one of whatever the name is, a symlink itself, too; that opens no FIFO.
    """
    return _open(dir_fd, name, _HOW_DIRECTORY if directory else _HOW_PATH_HANDLE)


def read_beneath(dir_fd: int, name: bytes, limit: int) -> bytes:
    """Read at most ``limit`` bytes of a regular file; 15 us. Nothing else is ever opened.

    Opening a FIFO, even for an instant, wakes or starves whoever is at its other end, so the inode
    is pinned by an O_PATH handle, judged, and opened through that handle: no race. Needs /proc.

    Raises:
        OSError: ELOOP for a symlink, EISDIR for a directory, ENXIO for a FIFO, socket or device,
            EXDEV for a file that is bind-mounted there, and what open and read raise.
    """
    pinned = open_beneath(dir_fd, name, directory=False)
    try:
        size = _regular_size(pinned, name)
        fd = os.open(b"/proc/self/fd/%d" % pinned, _READ)
    finally:
        os.close(pinned)
    return _read_and_close(fd, size, limit)


def statx(dir_fd: int, name: bytes, flags: int = AT_PASSIVE, mask: int = STATX_ALL) -> Stat:
    """Look at ``name`` relative to ``dir_fd`` (statx(2)); at what is mounted there, if anything is.

    With the default flags it returns on a dead FUSE mount, too.

    Raises:
        OSError: ENOSYS if a mount id was asked for and the kernel has none (before 5.8).
    """
    if 0 in name:
        raise _nul(name)
    buffer = _StatxBuffer()
    if _libc.statx(dir_fd, name, flags, mask, buffer) != 0:
        raise _error(name)
    (got, attributes, _, mode, ino, size, blocks, born, born_ns, mod, mod_ns, major, minor, mnt) = (
        _STATX.unpack_from(buffer)
    )
    if mask & ~got & STATX_MNT_ID:
        raise OSError(ENOSYS, "this kernel tells no mount ids", name)
    return Stat(
        mode,
        ino,
        os.makedev(major, minor),
        mnt,
        size,
        blocks,
        mod * _NS + mod_ns,
        born * _NS + born_ns,
        attributes,
    )


def statx_handle(fd: int) -> Stat:
    """Look at what a handle (also an O_PATH one) is open on."""
    return statx(fd, b"", AT_PASSIVE | AT_EMPTY_PATH)


def allocated(dir_fd: int, name: bytes) -> int:
    """Tell how many bytes go with this name; none if the file has another. Half of a statx."""
    if 0 in name:
        raise _nul(name)
    buffer = _StatxBuffer()
    if _libc.statx(dir_fd, name, AT_PASSIVE, _STATX_NLINK | _STATX_BLOCKS, buffer) != 0:
        raise _error(name)
    nlink, blocks = _STATX_USE.unpack_from(buffer)
    return int(blocks) * _BLOCK if nlink == 1 else 0


def umount2(path: bytes, flags: int) -> None:
    """Unmount what is topmost at ``path`` (umount2(2)); EINVAL if nothing is mounted there."""
    if 0 in path:
        raise _nul(path)
    if _libc.umount2(path, flags) != 0:
        raise _error(path)


def renameat2(
    old_dir_fd: int, old: bytes, new_dir_fd: int, new: bytes, flags: int = RENAME_NOREPLACE
) -> None:
    """Rename relative to handles (renameat2(2)); by default EEXIST if ``new`` is there."""
    for name in (old, new):
        if 0 in name:
            raise _nul(name)
    if _libc.renameat2(old_dir_fd, old, new_dir_fd, new, flags) != 0:
        raise _error(old)


def fs_type(fd: int) -> int:
    """Tell the ``*_MAGIC`` of the filesystem behind a handle (statfs(2)). Hangs on a dead FUSE."""
    buffer = _StatfsBuffer()
    if _libc.fstatfs(fd, buffer) != 0:
        raise _error(None)
    # Its width differs between architectures; the low half comes first wherever it is wide.
    (magic,) = struct.unpack_from("=I", buffer)
    return int(magic)


def has_openat2() -> bool:
    """Return whether the kernel (and whatever filters its calls) lets us use openat2."""
    try:
        os.close(openat2(AT_FDCWD, b"/", _PATH_HANDLE, RESOLVE_NO_MAGICLINKS))
    except OSError:
        return False
    return True


def die_with_parent(signal: int) -> None:
    """Have the kernel send us ``signal`` when the thread that forked us ends (prctl(2)).

    A parent that is gone already sends nothing: compare ``os.getppid()`` after the call.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        raise _error(None)


def _regular_size(fd: int, name: bytes) -> int:
    """Give the size of a regular file; raise for anything else."""
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    errno = {stat.S_IFLNK: ELOOP, stat.S_IFDIR: EISDIR}.get(stat.S_IFMT(found.st_mode), ENXIO)
    raise OSError(errno, os.strerror(errno), name)


def _read_and_close(fd: int, size: int, limit: int) -> bytes:
    """Read to the end or the limit. ``size`` is a hint; files in /proc and cgroups say 0."""
    try:
        data = os.read(fd, min(limit, max(size + 1, _PAGE)))
        while len(data) != size and len(data) < limit:
            more = os.read(fd, min(limit - len(data), _CHUNK))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(fd)


def _nul(name: bytes) -> OSError:
    return OSError(EINVAL, "a name cannot contain NUL", name)


def _error(name: bytes | None) -> OSError:
    """Make the error of the call that has just failed."""
    errno = ctypes.get_errno()
    return OSError(errno, os.strerror(errno), name)
