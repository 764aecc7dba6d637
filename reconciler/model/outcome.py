"""Outcome: what came of an attempt to clean, step by step; an observation like any other."""

from typing import Final

from reconciler.model.evidence import Look
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.values import Tagged, Value, Word


class Result(Word):
    """What an attempt came to (design section 6, ``clean -o json``)."""

    CLEANED = "cleaned"
    BLOCKED = "blocked"  # cannot be done now: retried with back-off
    FAILED = "failed"  # we broke (a worker died, a bug): retried, and loud
    HELD = "held"  # a brake
    PROTECTED = "protected"
    KILLED = "killed"  # an orphan or a shim was ended; what is left of it waits as a leftover
    SKIPPED = "skipped"  # the second look disagreed, or the bundle went away by itself


class BlockReason(Word):
    """Why something stayed. One word per cause: also a metric label."""

    MOUNT_BUSY = "mount busy"
    FOREIGN_MOUNT = "foreign mount"
    NOT_EMPTY = "rootfs not empty"
    READ_ONLY = "read-only"
    IMMUTABLE = "not permitted"
    NO_SPACE = "no space"
    IO = "i/o error"
    CHANGED = "object changed"
    HUNG = "hung"
    CGROUP = "cgroup populated"
    SHIM = "shim not ended"  # not shown to be its own, or it does not end
    SCOPE = "scope kept by systemd"
    INTERRUPTED = "interrupted"  # a stop was requested; the next run goes on
    GUARD = "guard"
    CONTAINERD = "containerd does not answer"
    HOOKS = "poststop hooks failed"
    OWNER = "no answer about its owner"  # another containerd may have its names; for some minutes
    POLICY = "policy"  # another was put into force before a cleanup was sent, or a brake pulled


STEPS: Final = (
    "guards",
    "kill",
    "shim",
    "containerd",
    "hooks",
    "unmount",
    "rootfs",
    "cgroup",
    "runc-state",
    "shim-socket",
    "fifo",
    "work-dir",
    "bundle",
)
"""The names of all steps of a cleanup, in their order: also a metric label."""


class StepResult(Word):
    """What one step came to."""

    DONE = "done"
    NOTHING = "nothing to do"
    WARNING = "warning"  # went wrong and does not matter for the steps after it
    BLOCKED = "blocked"


class Step(Value, frozen=True):
    """One record of a cleanup (principle 9).

    Attributes:
        step: One of :data:`STEPS`.
        result: See :class:`StepResult`.
        detail: Object and cause, for people.
        seconds: How long it took.
        mutations: Mutating system calls that succeeded (unlink, rmdir, rename, umount, ...).
    """

    step: str
    result: StepResult
    detail: str = ""
    seconds: float = 0.0
    mutations: int = 0


class Holder(Value, frozen=True):
    """A process that keeps a mount busy."""

    pid: int
    name: str
    how: str  # cwd, root, fd, mount namespace


class Outcome(Tagged, frozen=True, tag="outcome"):
    """What came of one attempt on one bundle.

    Attributes:
        key: The bundle.
        identity: The object that was judged.
        result: See :class:`Result`.
        reason: Set if blocked.
        detail: One line for people: what is in the way and what to do.
        holders: Who keeps it busy, if anybody does.
        steps: What was done, in order.
        look: The second look, where it disagreed with the first.
        seconds: How long the attempt took.
    """

    key: BundleKey
    identity: Identity
    result: Result
    reason: BlockReason | None = None
    detail: str = ""
    holders: tuple[Holder, ...] = ()
    steps: tuple[Step, ...] = ()
    look: Look | None = None
    seconds: float = 0.0
