"""A FUSE filesystem of one file whose content never comes; who maps it holds his own memory's lock.

The kernel keeps the page locked that a first reader waits for. Whoever then maps the file through a
handle that bypasses the cache waits for that page with his own memory locked for writing: as of a
process stuck on a dead network filesystem, nobody can read his command line any more.

The server is a process of its own: when it ends, everybody is let go. As a program it serves the
handle on /dev/fuse that it is given.
"""

import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("IIQQIIII")
_ANSWER: Final = struct.Struct("IiQ")
_LOOKUP: Final = 1
_GETATTR: Final = 3
_OPEN: Final = 14
_READ: Final = 15
_INIT: Final = 26
_DIRECT_IO: Final = 1
_KEEP_CACHE: Final = 2
_ROOT: Final = 1
_FILE: Final = 2
_SIZE: Final = 4096
_PR_SET_PDEATHSIG: Final = 1


def _attributes(inode: int) -> bytes:
    mode = 0o40755 if inode == _ROOT else 0o100444
    return struct.pack("QQQQQQIIIIIIIIII", inode, _SIZE, 8, *[0] * 6, mode, 1, *[0] * 5)


def serve(handle: int) -> None:
    """Answer everything but reads, which are kept."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    opened = 0
    while True:
        request = os.read(handle, 1 << 20)
        _, code, unique, inode, *_ = _HEADER.unpack_from(request)
        if code == _READ:
            os.write(1, b"r\n")
            continue
        opened += code == _OPEN
        answer = _answer(code, inode, opened)
        os.write(handle, _ANSWER.pack(_ANSWER.size + len(answer), 0, unique) + answer)


def _answer(code: int, inode: int, opened: int) -> bytes:
    if code == _INIT:
        return struct.pack("IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, _SIZE, 1, 0, 0, 0)
    if code == _LOOKUP:
        return struct.pack("QQQQII", _FILE, 0, 3600, 3600, 0, 0) + _attributes(_FILE)
    if code == _GETATTR:
        return struct.pack("QII", 3600, 0, 0) + _attributes(inode)
    if code == _OPEN:
        return struct.pack("QII", 0, _KEEP_CACHE | (_DIRECT_IO if opened > 1 else 0), 0)
    return b""


@contextmanager
def unmappable_file(target: Path) -> Iterator[int]:
    """Mount one at a directory, and give a handle; whoever maps it hangs until the block ends."""
    import pytest

    from tests.support.mountns import MNT_DETACH, mount, umount

    try:
        fuse = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    try:
        mount(
            "stuck",
            target,
            "fuse",
            0,
            f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other",
        )
        words = [sys.executable, "-I", __file__, str(fuse)]
        server = subprocess.Popen(words, pass_fds=[fuse], stdout=subprocess.PIPE)
    finally:
        os.close(fuse)
    file, quiet = target / "file", subprocess.DEVNULL
    reader = None
    handle = -1
    try:
        assert server.stdout is not None
        cached = os.open(file, os.O_RDONLY)
        handle = os.open(file, os.O_RDONLY)
        reader = subprocess.Popen(["cat"], stdin=cached, stdout=quiet, stderr=quiet)
        os.close(cached)
        assert server.stdout.readline() == b"r\n"
        yield handle
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
        if reader is not None:
            reader.wait(10)
        if handle >= 0:
            with suppress(OSError):  # its server is not asked any more
                os.close(handle)
        umount(target, MNT_DETACH)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
