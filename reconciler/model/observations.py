"""Observations: everything the engine ever learns, as a closed union of values.

Events from a watcher are hints (:class:`Hint`, :class:`Resync`): lost, repeated or late ones
change only latency. :class:`Listed` and :class:`Looked` carry what the filesystem said,
:class:`NodeLooked` what /proc and containerd said, :class:`Outcome` what our own cleaner did.
"""

from typing import Final

import msgspec
from typing_extensions import override

from reconciler.model.debris import DebrisCleaned, Inventory, RequestedPlace
from reconciler.model.evidence import Containerd, Look, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import Outcome
from reconciler.model.values import Tagged, Value, Word


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """When something was learnt.

    Attributes:
        mono: Seconds on the monotonic clock (since boot); all waiting is counted on it.
        wall: Seconds since the epoch; used only to place file times on the monotonic clock.
    """

    mono: float
    wall: float


class HintKind(Word):
    """Why a bundle may have changed."""

    CHANGED = "changed"  # something in or about the directory
    INIT_EXIT = "init exited"
    SHIM_EXIT = "shim exited"
    MOUNT = "mount table changed"
    HOLDER_EXIT = "holder exited"  # a process that kept it busy is gone
    CONTAINERD = "containerd event"


class Hint(Tagged, frozen=True, tag="hint"):
    """Look at this bundle again."""

    key: BundleKey
    kind: HintKind = msgspec.field(default=HintKind.CHANGED, name="why")


class ResyncKind(Word):
    """Why the whole model may be wrong."""

    START = "start"
    TIMER = "timer"
    OVERFLOW = "event queue overflow"
    WATCH_LOST = "watch lost"
    ROOT_CHANGED = "state root appeared, moved or went away"
    NAMESPACE = "namespace appeared, moved or went away"
    BACKEND = "watch backend changed"
    CONTAINERD = "containerd started or stopped"
    ASKED = "asked"


class Resync(Tagged, frozen=True, tag="resync"):
    """Relist everything (``namespace`` None) or one namespace."""

    kind: ResyncKind = msgspec.field(name="why")
    namespace: str | None = None


class Seen(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One name found by a listing."""

    key: BundleKey
    identity: Identity


class Hidden(Value, frozen=True):
    """A name beginning with a dot in a namespace directory: debris of a removal.

    ``ours`` marks a removal of our own that was cut short (its name carries its inode number).
    """

    key: BundleKey
    identity: Identity
    mtime: float
    ours: bool


class Listed(Tagged, frozen=True, tag="listed"):
    """A listing of the state trees, or of one namespace of them.

    Attributes:
        answered: False if the tree could not be read; then memory is kept as it is.
        present: False if there is no state tree (containerd never ran, or it was removed).
        bundles: Every name that is not hidden.
        hidden: Every name that begins with a dot.
        namespace: None for the whole tree.
        seconds: How long the listing took.
        sandboxes: False if the tree of sandboxes could not be read; none of it is named then.
    """

    answered: bool
    present: bool
    bundles: tuple[Seen, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    namespace: str | None = None
    seconds: float = 0.0
    sandboxes: bool = True

    def covers(self, key: BundleKey) -> bool:
        """Return whether it would name this one if it were there."""
        return (self.sandboxes or not key.tree) and self.namespace in (None, key.namespace)


class Looked(Tagged, frozen=True, tag="looked"):
    """A close look at one bundle; ``look`` is None if there is no such name any more."""

    key: BundleKey
    look: Look | None


class NodeLooked(Tagged, frozen=True, tag="node"):
    """What the node's witnesses said; None for one that was not asked this time.

    ``since`` is the monotonic time at which asking began: the answer says nothing about bundles
    first seen later.
    """

    since: float
    processes: ProcessScan | None = None
    containerd: Containerd | None = None


class Guard(Word):
    """A condition without which nothing may be removed (design section 4)."""

    PID_NAMESPACE = "pid namespace"
    TIME_NAMESPACE = "time namespace"
    MOUNT_NAMESPACE = "mount namespace"
    STATE_ROOT = "state root"
    KERNEL = "kernel"
    PRIVILEGES = "privileges"
    INSTANCE = "instance"
    WORKER = "worker"


class Refusal(Value, frozen=True):
    """A guard that does not let us act.

    Attributes:
        guard: Which.
        reason: One line: what is wrong and what to do.
        unsure: Nothing was found to be wrong; whoever was asked gave no answer.
    """

    guard: Guard
    reason: str
    unsure: bool = False

    @override
    def __str__(self) -> str:
        """Give the reason alone."""
        return self.reason


SPOILS_LOOKING: Final = frozenset(
    {
        Guard.PID_NAMESPACE,
        Guard.TIME_NAMESPACE,
        Guard.MOUNT_NAMESPACE,
        Guard.KERNEL,
        Guard.WORKER,
    }
)
"""Where one of these refuses, something may not be seen: no answer, and never a no."""


def is_transient(refused: tuple[Refusal, ...]) -> bool:
    """Return whether nothing but a worker that could not look keeps us from acting."""
    return bool(refused) and all(one.guard is Guard.WORKER for one in refused)


def is_unsure(refused: tuple[Refusal, ...]) -> bool:
    """Return whether nothing but missing answers keeps us from acting; some may come later."""
    return bool(refused) and all(one.unsure or one.guard is Guard.WORKER for one in refused)


class GuardsChecked(Tagged, frozen=True, tag="guards"):
    """Whether the guards let us act.

    Attributes:
        refused: Those that do not, with their reasons.
        slow: Which checks took long, and how long, in words.
    """

    refused: tuple[Refusal, ...] = ()
    slow: tuple[str, ...] = ()


class Remembered(Tagged, frozen=True, tag="remembered"):
    """What an earlier run of ours wrote down about an object, within the same boot.

    A memory may only delay: it knows of later signs of life than files do. ``leftover_since`` is
    set only if that run ended a moment ago, so that a restart does not begin the grace anew.
    Both times are monotonic. ``cgroup_until``: when that run last saw it with the usual cgroup,
    seconds since the epoch; where the object is nowhere it saw it go.
    """

    key: BundleKey
    identity: Identity
    last_alive: float | None = None
    leftover_since: float | None = None
    cgroup_until: float | None = None


class CleanRequested(Tagged, frozen=True, tag="clean-requested"):
    """Somebody asked for these leftovers to be cleaned now, and not when their wait is over.

    It shortens the wait and nothing else: verdict, second look, guards, policy and brakes stay.

    Attributes:
        keys: The bundles. Whatever is no leftover that may be removed is not concerned.
        uid, pid: Who asked, as the kernel tells.
        places: Debris, of kinds that may only be reported where nobody asks.
    """

    keys: tuple[BundleKey, ...]
    uid: int
    pid: int
    places: tuple[RequestedPlace, ...] = ()


class ReleaseRequested(Tagged, frozen=True, tag="release-requested"):
    """Somebody asked for the brakes to be released now. What else holds a cleanup back stays.

    Attributes:
        uid, pid: Who asked, as the kernel tells.
    """

    uid: int
    pid: int


Observation = (
    Hint
    | Resync
    | Listed
    | Looked
    | NodeLooked
    | Inventory
    | DebrisCleaned
    | GuardsChecked
    | Remembered
    | CleanRequested
    | ReleaseRequested
    | Outcome
)
