"""Shims: ends one that serves nobody, where the operator said so. Removes nothing.

As with orphans (`reconciler.worker.orphans`), a signal goes only through a pidfd, and only after it
was proven whose process that is: the pidfd is opened first, the proof is taken then, and the pidfd
is asked again. A shim is the one that is meant if all of this is so:

1. a pass over /proc, younger than the pidfd, shows it as the shim of that namespace and id
   (containerd's user, our pid namespace), given the address of our own containerd;
2. it started when the one that was judged had started;
3. its program is runc's shim: another runtime's may serve whom we cannot see, without a child;
4. it works in that bundle of our tree, or in one of that name that was removed from it; what is
   above that must be our tree itself, for in another mount namespace its path may be another's;
5. it listens at that shim's socket;
6. nobody is its child, and no helper works for its id.

Whether it serves anybody is the caller's to look at once more, between proof and signal. All of it
is shown again before SIGKILL: some time has passed by then. Whatever cannot be shown is said, and
nothing is done.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from errno import ENOENT
from typing import Final

import msgspec

from reconciler import kernel
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, Identity, escape, unescape
from reconciler.model.layout import Layout
from reconciler.model.outcome import BlockReason
from reconciler.probe import process
from reconciler.probe.ending import has_left
from reconciler.probe.listeners import listens
from reconciler.probe.metadata import is_runc_shim
from reconciler.worker.blocked import Blocked
from reconciler.worker.context import WorkerContext
from reconciler.worker.preflight import works_in
from reconciler.worker.signals import await_ends, send
from reconciler.worker.step_log import Tally

GRACE_MS: Final = 5000
"""How long a shim may take to end by itself after SIGTERM; one of containerd 1.6 and later does."""

LAST_MS: Final = 5000
"""How long the kernel may take to end it after SIGKILL."""

_GONE: Final = b" (deleted)"


class ShimTarget(msgspec.Struct, frozen=True):
    """The shim that was judged.

    Attributes:
        key: Namespace and id it was started for: of a pod's shim those of the sandbox.
        pid: Its pid.
        start: When it started, ticks since boot (field 22 of /proc/PID/stat).
        sockets: The paths at one of which it must listen; those its name gives if there are none.
        has_bundle: It works in a bundle that is there; else that must have been removed.
        bundle: The bundle that was judged, if it works in that one.
        grace_ms: How long it may take to end by itself; None for :data:`GRACE_MS`.
    """

    key: BundleKey
    pid: int
    start: int
    sockets: frozenset[bytes] = frozenset()
    has_bundle: bool = True
    bundle: Identity | None = None
    grace_ms: int | None = None


def end_shim(
    place: WorkerContext, shim: ShimTarget, tally: Tally, look_again: Callable[[], object]
) -> str:
    """End a shim that serves nobody: SIGTERM, some time, SIGKILL.

    Args:
        place: Where we work.
        shim: The one that was judged.
        tally: Counts the signals.
        look_again: Called once the shim is held and proven, just before each signal; raises if it
            may serve somebody after all.

    Returns:
        What was done, in one line.

    Raises:
        FileNotFoundError: It has ended by itself.
        Blocked: It is not shown to be the one that is meant, or does not end.
    """
    try:
        pidfd = os.pidfd_open(shim.pid)
    except ProcessLookupError as error:
        raise _ended(shim) from error
    try:
        _prove(place, shim, look_again, pidfd)
        if process.has_ended(pidfd) or not send(pidfd, signal.SIGTERM):
            raise _ended(shim)
        tally.add()
        grace = GRACE_MS if shim.grace_ms is None else shim.grace_ms
        if await_ends((pidfd,), grace):
            return f"shim with pid {shim.pid} ended"
        _prove(place, shim, look_again, pidfd)
        if send(pidfd, signal.SIGKILL):
            tally.add()
        if await_ends((pidfd,), LAST_MS):
            return f"shim with pid {shim.pid} killed: it did not end in {grace / 1000:g} s"
        raise _blocked(shim.key, f"its shim with pid {shim.pid} does not end")
    finally:
        os.close(pidfd)


def find_shim(place: WorkerContext, key: BundleKey) -> ShimTarget | None:
    """Find the living shim that was started for a name by our own containerd; None if none was.

    Raises:
        Blocked: There are several, or that cannot be known.
    """
    scanned = place.scan(anew=True)
    if not scanned.answered:
        raise _blocked(key, "which shims run cannot be known")
    found = [one for one in scanned.shims if one.key == key and _is_ours(place, one)]
    if not found:
        return None
    if found[1:]:
        raise _blocked(key, f"{len(found)} shims were started for it")
    stat = None
    with suppress(OSError):
        stat = process.read_stat(found[0].pid)
    return None if stat is None else ShimTarget(key, found[0].pid, stat.start)


def runs_runc_shim(layout: Layout, pid: int) -> bool:
    """Return whether a process executes runc's shim, by the name of its program.

    That may have been replaced since, as by an update.

    Raises:
        OSError: What it executes cannot be known.
    """
    program = os.readlink(b"/proc/%d/exe" % pid).removesuffix(_GONE)
    return is_runc_shim(program.rpartition(b"/")[2], layout.runc_shims)


def was_in_our_tree(layout: Layout, key: BundleKey, pid: int) -> bool:
    """Return whether a process works in a bundle of that name that was removed from our tree.

    Of a removed directory the kernel keeps the path it had last, and the directories above it.
    containerd calls a bundle ``.<id>`` before it removes it (core/runtime/v2 ``atomicDelete``).

    Raises:
        OSError: That cannot be known.
    """
    path = os.readlink(b"/proc/%d/cwd" % pid)
    above = b"/".join((os.path.realpath(layout.tasks), unescape(key.namespace), b""))
    names = (hidden + unescape(key.id) for hidden in (b"", b"."))
    removed = any(path == above + name + _GONE for name in names)
    return removed and not _exists(layout.bundle(key)) and _is_below_our_tree(layout, key, pid)


def _is_below_our_tree(layout: Layout, key: BundleKey, pid: int) -> bool:
    """Return whether what is above the place where a process works is our tree itself."""
    tree = os.path.realpath(layout.tasks)
    above = b"/proc/%d/cwd/.." % pid
    namespace = tree + b"/" + unescape(key.namespace)
    return _object(above) == _object(namespace) and _object(above + b"/..") == _object(tree)


def _object(path: bytes) -> tuple[int, int]:
    """Tell which object is there, by device and inode; a symlink is one itself."""
    seen = kernel.statx(kernel.AT_FDCWD, path)
    return seen.dev, seen.ino


def _prove(
    place: WorkerContext, shim: ShimTarget, look_again: Callable[[], object], pidfd: int
) -> None:
    """Show that it is the one that is meant, and that it serves nobody.

    Raises:
        FileNotFoundError: It has ended meanwhile, or is about to: of such a one nothing is shown.
        Blocked: One of both cannot be shown.
    """
    why = _against(place, shim, place.scan(anew=True))
    if why and has_left(shim.pid, pidfd):
        raise _ended(shim)
    _refuse(shim, why)
    look_again()
    _refuse_children(shim)


def _against(place: WorkerContext, shim: ShimTarget, scanned: ProcessScan) -> str:
    """Say why a process may not be the shim that is meant; empty if it is."""
    if not scanned.answered:
        return "which shims run cannot be known"
    found = next((one for one in scanned.shims if (one.key, one.pid) == (shim.key, shim.pid)), None)
    if found is None:
        return f"pid {shim.pid} is no shim of {shim.key}"
    if not _is_ours(place, found):
        return f"it was started by another containerd, that at {found.address or 'no address'}"
    if shim.key in scanned.helpers:
        return f"a shim helper works for {shim.key}"
    try:
        return _against_process(place, shim, found)
    except OSError as error:
        return f"pid {shim.pid} cannot be looked at: {error.strerror}"


def _against_process(place: WorkerContext, shim: ShimTarget, found: ShimProcess) -> str:
    stat = process.read_stat(shim.pid)
    if stat is None or stat.start != shim.start:
        return f"pid {shim.pid} started at another time"
    if not runs_runc_shim(place.layout, shim.pid):
        return f"the program of pid {shim.pid} is not runc's shim"
    sockets = shim.sockets or _sockets(place, shim.key)
    if not any(listens(shim.pid, path) for path in sockets):
        return f"pid {shim.pid} does not listen at the shim's socket"
    return _works_elsewhere(place.layout, shim, found)


def _is_ours(place: WorkerContext, found: ShimProcess) -> bool:
    return found.address == escape(place.layout.address)


def _sockets(place: WorkerContext, key: BundleKey) -> frozenset[bytes]:
    """Give the sockets a shim derives from its name, in either directory of them."""
    layout = place.layout
    path = layout.shim_socket(key.namespace, key.id)
    return frozenset({path, layout.own_sockets + path[len(layout.sockets) :]})


def _works_elsewhere(layout: Layout, shim: ShimTarget, found: ShimProcess) -> str:
    """Say why it may work elsewhere than in a bundle of our tree; empty if it works there."""
    key, pid = shim.key, shim.pid
    if not shim.has_bundle:
        if was_in_our_tree(layout, key, pid):
            return ""
        return f"pid {pid} is not shown to work in a bundle {key} that was removed"
    works = works_in(layout, found) is Answer.YES and _is_below_our_tree(layout, key, pid)
    if works and shim.bundle is not None:
        works = _object(b"/proc/%d/cwd/." % pid) == (shim.bundle.dev, shim.bundle.ino)
    return "" if works else f"pid {pid} is not shown to work in the bundle {key}"


def _exists(path: bytes) -> bool:
    """Return whether there is something of a name.

    Raises:
        OSError: That cannot be known.
    """
    try:
        kernel.statx(kernel.AT_FDCWD, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _refuse(shim: ShimTarget, why: str) -> None:
    if why:
        raise _blocked(shim.key, f"not shown to be its own: {why}")
    _refuse_children(shim)


def _refuse_children(shim: ShimTarget) -> None:
    try:
        serves = shim.pid in process.parents()
    except OSError as error:
        why = f"whom its shim with pid {shim.pid} serves cannot be known: {error.strerror}"
        raise _blocked(shim.key, why) from error
    if serves:
        raise _blocked(shim.key, f"its shim with pid {shim.pid} has children")


def _ended(shim: ShimTarget) -> FileNotFoundError:
    return FileNotFoundError(ENOENT, f"its shim with pid {shim.pid} has ended")


def _blocked(key: BundleKey, why: str) -> Blocked:
    return Blocked(BlockReason.SHIM, key.id, why)
