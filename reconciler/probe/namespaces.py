"""Where this process stands: namespaces and the state tree's mount. Facts for the guards.

Measured and handed on as values; what they allow is decided elsewhere. A question that /proc does
not answer stays unanswered. Reads only; containerd's socket is connected to and hung up.
"""

import os
import socket
import struct
from errno import ENOENT
from typing import Final

import msgspec

from reconciler.model.evidence import Answer
from reconciler.probe.mounts import mount_at, parse, read_table, type_name
from reconciler.probe.process import PROC

_UCRED: Final = struct.Struct("3i")
_NO_SUCH_KIND: Final = ""


class Namespaces(msgspec.Struct, frozen=True):
    """A process's namespaces as the kernel names them (``pid:[4026531836]``).

    None: no answer. Empty: this kernel has no namespaces of that kind.
    """

    pid: str | None = None
    mnt: str | None = None
    time: str | None = None


class TreeMount(msgspec.Struct, frozen=True):
    """The mount that the state tree is on; ``peer`` is its peer group, None if it is not shared."""

    fstype: str
    peer: int | None


def namespaces_of(pid: int | None = None, proc: bytes = PROC) -> Namespaces:
    """Tell the namespaces of a process, or our own."""
    who = b"self" if pid is None else b"%d" % pid
    return Namespaces(*(_namespace(proc + b"/" + who, kind) for kind in (b"pid", b"mnt", b"time")))


def _namespace(process: bytes, kind: bytes) -> str | None:
    try:
        return os.fsdecode(os.readlink(process + b"/ns/" + kind))
    except OSError as error:
        gone = not os.path.isdir(process + b"/ns")
        return None if gone or error.errno != ENOENT else _NO_SUCH_KIND


def same(own: str | None, other: str | None) -> Answer:
    """Compare one kind of namespace of two processes."""
    if own is None or other is None:
        return Answer.NONE
    return Answer.YES if own == other else Answer.NO


def peer_pid(path: bytes, timeout: float = 1.0) -> int | None:
    """Tell who listens at a unix socket, as our pid namespace numbers it (``SO_PEERCRED``).

    Of containerd's: a shim's tells only the helper that made it. Gives 0 if the listener has no pid
    in our namespace, None if nobody listens; waits ``timeout`` seconds for a full backlog.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(path)
            said = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return None
    pid: int = _UCRED.unpack(said)[0]
    return pid


def tree_mount(tree: bytes, proc: bytes = PROC) -> TreeMount | None:
    """Find the mount that the state tree is on; None if there is no answer.

    Raises:
        FileNotFoundError: There is no state tree.
    """
    try:
        entry = mount_at(tree, proc)
    except FileNotFoundError as error:
        if error.filename == tree:
            raise
        return None
    except OSError:
        return None
    return None if entry is None else TreeMount(type_name(entry.mount.fstype), entry.peer)


def shares_mount(own: TreeMount, pid: int, proc: bytes = PROC) -> Answer:
    """Return whether another process sees our state tree's mount through the same peer group.

    Peer groups are numbered for the whole machine. In one peer group whatever we unmount is
    unmounted there, too, and busy there is busy here; a slave has neither.
    """
    if own.peer is None:
        return Answer.NO
    try:
        theirs = [entry.peer for entry in parse(read_table(b"%d" % pid, proc))]
    except OSError:
        return Answer.NONE
    if not theirs:
        return Answer.NONE
    return Answer.YES if own.peer in theirs else Answer.NO
