"""Files and directories of our own: nobody else may hold, fill or replace them.

A lock that others may open can be held by them (flock(2) asks for no permission to write), and a
directory that others may write to is theirs. Owner and mode are looked at through a handle, each
time, and put right where they are ours to put right; what belongs to somebody else is refused with
the reason. A file is never reached through a symlink, and never emptied before it was looked at.
"""

import os
import stat
from errno import EPERM
from typing import Final

DIRECTORY_MODE: Final = 0o755
FILE_MODE: Final = 0o600

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_directory(path: str | bytes) -> int:
    """Give a handle on a directory of ours; made if missing, closed to others' writing if not.

    Raises:
        OSError: It cannot be made or opened, or is somebody else's, which EPERM says.
    """
    os.makedirs(path, mode=DIRECTORY_MODE, exist_ok=True)
    handle = os.open(path, _DIRECTORY)
    try:
        found = os.fstat(handle)
        if found.st_uid not in {0, os.geteuid()}:
            raise _not_ours(path, found)
        is_shared = found.st_mode & stat.S_ISVTX  # as /tmp is: others' files stay theirs
        if found.st_mode & _OTHERS_WRITE and not is_shared:
            os.fchmod(handle, stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)
    except OSError:
        os.close(handle)
        raise
    return handle


def open_file(directory: int, name: str | bytes, flags: int) -> int:
    """Open or make a file of ours in a directory of ours (:func:`open_directory`), for us alone.

    One that belongs to somebody else is none of ours: where nobody else may put files it was put
    there before that was so, and is replaced; in a directory like /tmp it is refused. ``flags`` say
    reading or writing; the rest is added. Not O_TRUNC: that comes before any look.

    Raises:
        OSError: It cannot be made or opened, is no regular file, or is somebody else's (EPERM).
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(name, flags, FILE_MODE, dir_fd=directory)
    try:
        found = os.fstat(handle)
        _check_regular(name, found)
        if found.st_uid != os.geteuid() or found.st_nlink > 1:
            _remove_foreign(directory, name, found)
            closing, handle = handle, -1  # its number may be another's at once
            os.close(closing)
            handle = os.open(name, flags | os.O_EXCL, FILE_MODE, dir_fd=directory)
            found = os.fstat(handle)
        if stat.S_IMODE(found.st_mode) != FILE_MODE:
            os.fchmod(handle, FILE_MODE)
    except OSError:
        if handle >= 0:
            os.close(handle)
        raise
    return handle


def _check_regular(name: str | bytes, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(EPERM, "is no regular file", name)


def _remove_foreign(directory: int, name: str | bytes, found: os.stat_result) -> None:
    """Unlink what is not ours from a directory in which nobody but us may put files."""
    above = os.fstat(directory)
    if above.st_mode & _OTHERS_WRITE or above.st_uid not in {0, os.geteuid()}:
        raise _not_ours(name, found)
    os.unlink(name, dir_fd=directory)


def _not_ours(path: str | bytes, found: os.stat_result) -> OSError:
    return OSError(EPERM, f"belongs to uid {found.st_uid}, not to us", path)
