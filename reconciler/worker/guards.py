"""Guards: from which place acting is safe (design section 4). Each refusal says what to do.

:func:`refusals` is pure: measured facts in, reasons out, and any question without an answer is a
refusal. A worker measures (`reconciler.worker.preflight`). The instance lock alone is the parent's:
it has to last. Guards never let anything happen, they only forbid.
"""

import os
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from reconciler import kernel
from reconciler.model.evidence import Answer
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard, Refusal
from reconciler.worker.lock import InstanceLock
from reconciler.worker.messages import PreflightReport


class NodeGuards:
    """Implements `ports.Guards` for a real node.

    Args:
        layout: Where things are.
        preflight: Has a worker measure; why there is no answer, if there is none: a refusal.
        lock: Taken on each check; None for modes that only observe.
        allow_disk: The operator allows a state tree that is not on a tmpfs.
        own_tree: The tree is of our own making, where an ordinary user needs no privileges.

    Attributes:
        slow: Which parts of the last check took long, and how long.
    """

    def __init__(
        self,
        layout: Layout,
        preflight: Callable[[], Awaitable[PreflightReport | str]],
        lock: InstanceLock | None,
        *,
        allow_disk: bool = False,
        own_tree: bool = False,
    ) -> None:
        self._layout = layout
        self._preflight = preflight
        self._lock = lock
        self._allow_disk = allow_disk
        self._own_tree = own_tree
        self.slow: tuple[str, ...] = ()

    async def check(self) -> tuple[Refusal, ...]:
        """Name every reason not to act; empty if there is none."""
        report = await self._preflight()
        if isinstance(report, str):
            self.slow = ()
            return unmeasured(report)
        self.slow = report.slow
        tree = self._layout.tasks
        other, lock_trouble = _try_lock(self._lock, tree)
        refused = refusals(Preflight(report, tree, self._allow_disk, other, lock_trouble))
        needless = Guard.PRIVILEGES if self._own_tree else None
        return tuple(one for one in refused if one.guard is not needless)


class Preflight(msgspec.Struct, frozen=True):
    """Where we stand, as measured.

    Attributes:
        report: What a worker measured of itself.
        tree: The state tree, for people.
        allow_disk: See :class:`NodeGuards`.
        other: Pid of another instance on this tree, 0 if it has not said which; None for none.
        lock_trouble: Why the lock could not be asked for, empty if it could.
    """

    report: PreflightReport
    tree: bytes
    allow_disk: bool
    other: int | None = None
    lock_trouble: str = ""


def unmeasured(why: str) -> tuple[Refusal, ...]:
    """Refuse because nobody could say where we stand."""
    return (
        Refusal(
            Guard.WORKER,
            "no worker process could check whether it is safe to remove anything here "
            f"({why}); try again, and if that does not help, raise the limits on processes and "
            "memory",
            unsure=True,
        ),
    )


def refusals(standing: Preflight) -> tuple[Refusal, ...]:
    """Name every reason not to act; empty if there is none."""
    return (
        *_namespaces(standing),
        *_state_root(standing),
        *_kernel(standing),
        *_instance(standing),
    )


def _namespaces(standing: Preflight) -> Iterator[Refusal]:
    report, who = standing.report, standing.report.reference
    if report.same_pids is not Answer.YES:
        yield Refusal(
            Guard.PID_NAMESPACE,
            f"{_state(report.same_pids, 'pid', who)}: living processes would look dead; "
            "run in the host's pid namespace (hostPID: true, --pid=host)",
            unsure=report.same_pids is Answer.NONE,
        )
    if report.same_time is not Answer.YES:
        yield Refusal(
            Guard.TIME_NAMESPACE,
            f"{_state(report.same_time, 'time', who)}: start times of processes would be "
            "misread; run in the host's time namespace",
            unsure=report.same_time is Answer.NONE,
        )
    if Answer.YES not in (report.same_mounts, report.shared_tree):
        yield Refusal(
            Guard.MOUNT_NAMESPACE,
            f"{_state(report.same_mounts, 'mount', who)} and {escape(standing.tree)} is not known "
            "to be in a shared peer group with it: a busy mount would be lost instead of refused; "
            "run in the host's mount namespace (no ProtectSystem=, PrivateTmp=, ... in the unit) "
            "or mount the tree with mountPropagation: Bidirectional",
            unsure=Answer.NONE in (report.same_mounts, report.shared_tree),
        )


def _state(answer: Answer, kind: str, who: str) -> str:
    if answer is Answer.NO:
        return f"own {kind} namespace is not that of {who}"
    return f"cannot determine whether own {kind} namespace is that of {who}"


def _state_root(standing: Preflight) -> Iterator[Refusal]:
    tree, fstype = escape(standing.tree), standing.report.fstype
    if fstype is None or fstype == "tmpfs" or (fstype and standing.allow_disk):
        return
    if not fstype:
        reason = f"cannot determine on which filesystem {tree} is; check the path and permissions"
    else:
        reason = (
            f"{tree} is on {fstype}, not on a tmpfs; check the path, "
            "and set allow_disk = true if containerd's state really is on disk"
        )
    yield Refusal(Guard.STATE_ROOT, reason, unsure=not fstype)


def _kernel(standing: Preflight) -> Iterator[Refusal]:
    report = standing.report
    if not report.openat2:
        yield Refusal(
            Guard.KERNEL,
            "openat2 is not there or forbidden: nothing can be removed safely; "
            "use Linux 5.8 or newer and let a seccomp profile allow openat2",
        )
    if report.lacking:
        yield Refusal(
            Guard.PRIVILEGES,
            f"lacking {', '.join(report.lacking)}; run as root with these capabilities",
        )


def _instance(standing: Preflight) -> Iterator[Refusal]:
    if standing.lock_trouble:
        yield Refusal(
            Guard.INSTANCE,
            f"cannot make sure to be the only instance: {standing.lock_trouble}; "
            "make its directory writable",
            unsure=True,
        )
    elif standing.other is not None:
        who = f"pid {standing.other}" if standing.other else "another process"
        yield Refusal(
            Guard.INSTANCE,
            f"{who} already acts on {escape(standing.tree)}; stop it, or only observe",
        )


def _try_lock(lock: InstanceLock | None, tree: bytes) -> tuple[int | None, str]:
    if lock is None:
        return None, ""
    try:
        found = kernel.statx(kernel.AT_FDCWD, tree)
    except FileNotFoundError:
        return None, ""  # nothing to act on yet
    except OSError as error:
        return None, f"{os.fsdecode(tree)}: {error.strerror}"
    try:
        taken = lock.take(found.dev, found.ino)
    except OSError as error:
        return None, f"{error.filename!r}: {error.strerror}"
    return (taken.pid if taken else None), ""
