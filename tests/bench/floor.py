"""Floors: the system calls of our work in bare loops, where nothing is judged, proven or reported.

What lies between a floor and our figure is ours, and what lies below it is the kernel's and
Python's. The files that are read say what they say; the loops are told where everything is.
"""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from reconciler import kernel
from tests.bench.pile import Pile
from tests.support.bundles import Bundle

_READ: Final = frozenset(
    {"address", "bootstrap.json", "config.json", "init.pid", "options.json", "shim-binary-path"}
)
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def scan(pile: Pile, made: Sequence[Bundle]) -> float:
    """Give the processor seconds of the calls that a look at each bundle makes."""
    layout, tops = pile.layout, _hierarchies()
    with contextlib.ExitStack() as held:

        def opened(path: bytes) -> int:
            handle = os.open(path, _HANDLE)
            held.callback(os.close, handle)
            return handle

        tree, work, sockets, states = map(
            opened, (layout.tasks, layout.work, layout.sockets, layout.runc_root)
        )
        groups = [opened(os.fsencode(top)) for top in tops]
        probe = held.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        )
        names = [(one.key.path, os.fsencode(one.socket.name)) for one in made]
        began = time.process_time()
        for path, name in names:
            _read_bundle(tree, path)
            kernel.read_beneath(states, path + b"/state.json", 1 << 20)
            for group in groups:
                os.access(path, os.F_OK, dir_fd=group)
            with contextlib.suppress(ProcessLookupError):
                os.close(os.pidfd_open(pile.dead_pid))
            _list(kernel.open_beneath(work, path))
            kernel.statx(sockets, name)
            probe.connect_ex(b"/proc/self/fd/%d/%b" % (sockets, name))
        return time.process_time() - began


def _read_bundle(tree: int, path: bytes) -> None:
    bundle = kernel.open_beneath(tree, path)
    kernel.statx_handle(bundle)
    with os.scandir(bundle) as listing:
        for one in listing:
            if one.name not in _READ:
                one.stat(follow_symlinks=False)
                continue
            handle = os.open(one.name, _OPEN, dir_fd=bundle)
            os.read(handle, os.fstat(handle).st_size)
            os.close(handle)
    os.close(bundle)


def _list(handle: int) -> None:
    os.fstat(handle)
    with os.scandir(handle) as listing:
        list(listing)
    os.close(handle)


def clean(made: Sequence[Bundle]) -> float:
    """Remove bundles and all that is theirs, by path; give the processor seconds of it."""
    began = time.process_time()
    for one in made:
        kernel.umount2(os.fsencode(one.rootfs), 0)
        for group in one.cgroups:
            group.rmdir()
        _remove(one.runc_state)
        one.socket.unlink()
        _remove(one.work)
        _remove(one.path)
    return time.process_time() - began


def _remove(directory: Path) -> None:
    for one in directory.iterdir():
        if stat.S_ISDIR(one.lstat().st_mode):
            _remove(one)
        else:
            one.unlink()
    directory.rmdir()


def decode(path: Path) -> int:
    """Decode each line of a journal to plain values; give how many there are."""
    decoder = msgspec.json.Decoder()
    with path.open("rb") as lines:
        return sum(decoder.decode(line) is not None for line in lines)


def _hierarchies() -> list[Path]:
    found = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in found if " - cgroup" in line]
