"""Run a test in a private mount namespace, and the mounts it wants there.

    @private_mounts
    def test_something(tmp_path): ...        # anyio.run(main) inside where a loop is wanted

The body runs in a forked child that has left the machine's mount namespace, so whatever it mounts
ends with it, as does whatever it started, however it ends. Paths may be str, bytes or Path; names
that are not UTF-8 work.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import pytest

from tests.support.forked import SECONDS, in_a_child

P = ParamSpec("P")
T = TypeVar("T")
AnyPath = str | bytes | Path

CLONE_NEWNS: Final = 0x00020000
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_AT_FDCWD: Final = -100
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_KNOWN_AS: Final = "RECONCILER_TESTS_OUTSIDE"
"""Names the mount namespace of the first of us to whoever is started inside another one."""
_outside = os.environ.setdefault(_KNOWN_AS, os.readlink("/proc/self/ns/mnt"))
_libc = ctypes.CDLL(None, use_errno=True)


def private_mounts(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test function by :func:`in_private_mounts`; skip it where that is not permitted."""

    @pytest.mark.kernel
    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        in_private_mounts(lambda: test(*args, **kwargs))

    return wrapper


def in_private_mounts(body: Callable[[], T], timeout: float = SECONDS) -> T:
    """Run ``body`` in a forked child with a mount namespace of its own and give its result.

    The result must be picklable. A failure or a skip in the child is one here, with its traceback.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to make a mount namespace")

    def apart() -> T:
        enter_private_mounts()
        return body()

    return in_a_child(apart, timeout)


def enter_private_mounts() -> None:
    """Move this process into a mount namespace whose mounts nobody else sees. No way back."""
    global _outside  # noqa: PLW0603 -- a process that has left does not come back
    if _libc.unshare(CLONE_NEWNS) != 0:
        _raise("unshare")
    _outside = ""
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def leave_chroot() -> None:
    """Turn the root of a chroot into that of our mount namespace, which must be a private one.

    The kernel makes no user namespace for who is in a chroot. Elsewhere this changes nothing but
    the working directory.
    """
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if _libc.setns(own, CLONE_NEWNS) != 0:  # to where we are, but at its root
        _raise("setns")
    if not os.path.samestat(os.fstat(root), os.stat("/")):
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        os.fchdir(root)
        if _libc.pivot_root(b".", b".") != 0:
            _raise("pivot_root")
        umount(".", MNT_DETACH)  # the old root, now above the new one
    os.close(root)
    os.close(own)


def mount(
    source: AnyPath | None,
    target: AnyPath,
    fstype: str | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """Call mount(2), in a mount namespace of a test's own only: who would unmount it elsewhere?"""
    if _outside:
        apart = os.readlink("/proc/self/ns/mnt") != _outside
        assert apart, "tests mount under @private_mounts, or who would unmount it?"
    pointers = [_bytes(source), _bytes(target), _bytes(fstype)]
    if _libc.mount(*pointers, ctypes.c_ulong(flags), _bytes(data)) != 0:
        _raise(target)


def bind(source: AnyPath, target: AnyPath, *, read_only: bool = False) -> None:
    """Bind-mount a file or directory over another one."""
    mount(source, target, None, MS_BIND)
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def tmpfs(target: AnyPath, options: str = "size=64m") -> None:
    """Mount an empty tmpfs."""
    mount("tmpfs", target, "tmpfs", 0, options)


def overlay(lower: Path, upper: Path, work: Path, target: AnyPath) -> None:
    """Mount an overlay; upper and work must be on one filesystem that is not an overlay."""
    mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def long_table(base: Path) -> None:
    """Make our mount table longer than a MiB by few mounts: each space in a name is four bytes."""
    deep = base.joinpath(*[" " * 250] * ((4000 - len(bytes(base))) // 251))
    deep.mkdir(parents=True)
    while len(Path("/proc/self/mountinfo").read_bytes()) <= 1 << 20:
        tmpfs(deep)


def umount(target: AnyPath, flags: int = UMOUNT_NOFOLLOW) -> None:
    """Call umount2(2)."""
    if _libc.umount2(_bytes(target), flags) != 0:
        _raise(target)


def clone_tree(source: AnyPath) -> int:
    """Make a bind mount that is mounted nowhere yet; give its handle (open_tree(2))."""
    fd = _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, _bytes(source), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if fd < 0:
        _raise(source)
    return int(fd)


def attach(tree: int, target: int) -> None:
    """Mount what :func:`clone_tree` gave on the object behind a handle (move_mount(2))."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    if _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", target, b"", flags) != 0:
        _raise(f"/proc/self/fd/{target}")


def _bytes(value: AnyPath | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _raise(what: AnyPath) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fspath(what))
