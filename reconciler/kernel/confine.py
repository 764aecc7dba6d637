"""Giving up power for good: capabilities, privileges yet to be gained, changes to the filesystem.

Each call takes something away from the calling thread, and from the threads and processes it makes
later; nothing here can give anything back. Threads that exist already keep what they have, so a
process confines itself while it has one (:func:`threads`).

Landlock (landlock(7), Linux 5.13) also takes away what could be used to get round it: mounting,
unmounting, and reaching into processes outside (ptrace, ``/proc/PID/{ns,cwd,root,fd,mem}``). It
does not cover modes, owners, extended attributes, times and signals. Failures are ``OSError``.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Collection, Iterable
from errno import EPERM
from typing import Final

_CAPABILITY_VERSION_3: Final = 0x20080522
_HEADER: Final = struct.Struct("=Ii")
_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable: low halves, then high
_HALF: Final = 0xFFFF_FFFF

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_SYS_LANDLOCK_CREATE_RULESET: Final = 444  # the same on every architecture but alpha
_SYS_LANDLOCK_ADD_RULE: Final = 445
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_RULESET: Final = struct.Struct("=Q")
_RULE: Final = struct.Struct("=Qi")

_WRITE_FILE: Final = 1 << 1
_REMOVE: Final = 1 << 4 | 1 << 5
_MAKE: Final = sum(1 << bit for bit in range(6, 13))  # device, directory, file, socket, FIFO, ...
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_BY_ABI: Final = {1: _WRITE_FILE | _REMOVE | _MAKE, 2: _REFER, 3: _TRUNCATE}
_OF_A_FILE: Final = _WRITE_FILE | _TRUNCATE

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.capget.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.syscall.restype = ctypes.c_long


def threads() -> int:
    """Count the threads of this process."""
    return len(os.listdir("/proc/self/task"))


def drop_capabilities(keep: Collection[int], *, bounding: bool = True) -> None:
    """Keep at most these capabilities, by number; capabilities(7).

    Permitted and effective are what was permitted before and is to be kept; inheritable and ambient
    are empty. The bounding set, which limits what an executed program gets, shrinks too, unless
    told not to for programs that need more than we do; that takes CAP_SETPCAP, without which it
    stays as it is: see :func:`no_new_privileges`.
    """
    if bounding:
        _drop_bounding(keep)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _HEADER.pack(_CAPABILITY_VERSION_3, 0)
    buffer = ctypes.create_string_buffer(_SETS.size)
    if _libc.capget(header, buffer) != 0:
        raise _error()
    _, low, _, _, high, _ = _SETS.unpack(buffer.raw)
    kept = (low | high << 32) & sum(1 << number for number in set(keep))
    low, high = kept & _HALF, kept >> 32
    if _libc.capset(header, _SETS.pack(low, low, 0, high, high, 0)) != 0:
        raise _error()


def no_new_privileges() -> None:
    """Have no executed program get more than we have: no set-user-id, nothing for being root."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """Tell which Landlock there is; 0 if none, or none that we may use."""
    return max(0, _landlock(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _VERSION))


def forbid_changes(allowed: Iterable[int]) -> None:
    """Forbid to write, make, remove, rename, truncate, mount and unmount anything anywhere else.

    Reading, executing and connecting stay as they were, and so does what is open already.

    Args:
        allowed: Handles (O_PATH will do) on directories, beneath which everything stays allowed,
            and on files, which may be written to.

    Raises:
        OSError: ENOSYS or EOPNOTSUPP where there is no Landlock, EPERM without
            :func:`no_new_privileges` or CAP_SYS_ADMIN.
    """
    handled = sum(rights for abi, rights in _BY_ABI.items() if abi <= max(1, landlock_abi()))
    ruleset = _checked(
        _landlock(_SYS_LANDLOCK_CREATE_RULESET, _RULESET.pack(handled), _RULESET.size, 0)
    )
    try:
        for handle in allowed:
            is_directory = stat.S_ISDIR(os.fstat(handle).st_mode)
            rule = _RULE.pack(handled if is_directory else handled & _OF_A_FILE, handle)
            _checked(_landlock(_SYS_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        _checked(_landlock(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _drop_bounding(keep: Collection[int]) -> None:
    number = 0
    while (there := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if there and number not in keep and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            if ctypes.get_errno() == EPERM:
                return
            raise _error()
        number += 1


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise _error()


def _landlock(call: int, *arguments: int | bytes | None) -> int:
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    result: int = _libc.syscall(ctypes.c_long(call), *words)
    return result


def _checked(result: int) -> int:
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    """Make the error of the call that has just failed."""
    errno = ctypes.get_errno()
    return OSError(errno, os.strerror(errno))
