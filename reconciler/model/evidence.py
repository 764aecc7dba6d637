"""Evidence: what was learnt about a bundle, every piece of it *yes*, *no* or *no answer*.

A :class:`Look` is what one close look at the bundle itself found. :class:`ProcessScan` (one pass
over /proc) and :class:`Containerd` (the daemon's own word) speak about the whole node.
:mod:`reconciler.model.facts` joins the three into :class:`Facts`, a row of closed enumerations
and the only thing a verdict is made from. Nothing here decides.
"""

from enum import IntFlag, auto
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import force_setattr
from typing_extensions import override

from reconciler.model.cgroups import CgroupSource

# Evidence like the rest, to be imported from here.
from reconciler.model.containerd import Containerd as Containerd
from reconciler.model.containerd import ContainerdState as ContainerdState
from reconciler.model.ids import NOWHERE, BundleKey, Identity
from reconciler.model.processes import ProcessScan as ProcessScan
from reconciler.model.processes import ShimProcess as ShimProcess
from reconciler.model.values import EMPTY, Value, Word


class Answer(Word):
    """A question's answer. ``NONE`` means nobody answered, which is not a no."""

    YES = "yes"
    NO = "no"
    NONE = "no answer"


class Kind(Word):
    """What the name in the state tree is (lstat)."""

    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class Entries(IntFlag):
    """Which of the known files a bundle holds (field-notes section 2)."""

    ADDRESS = auto()
    BOOTSTRAP = auto()
    CONFIG = auto()
    INIT_PID = auto()
    LOG = auto()
    LOG_JSON = auto()
    OPTIONS = auto()
    ROOTFS = auto()
    RUNTIME = auto()
    SANDBOX = auto()
    SHIM_BINARY_PATH = auto()
    WORK = auto()
    OTHER = auto()

    @classmethod
    @lru_cache(256)
    @override
    def _missing_(cls, value: object) -> object:
        """Make what joins several, once: a decoder asks each time, and it is the same each time."""
        return super()._missing_(value)


ENTRY_NAMES: Final[dict[str, Entries]] = {
    "address": Entries.ADDRESS,
    "bootstrap.json": Entries.BOOTSTRAP,
    "config.json": Entries.CONFIG,
    "init.pid": Entries.INIT_PID,
    "log": Entries.LOG,
    "log.json": Entries.LOG_JSON,
    "options.json": Entries.OPTIONS,
    "rootfs": Entries.ROOTFS,
    "runtime": Entries.RUNTIME,
    "sandbox": Entries.SANDBOX,
    "shim-binary-path": Entries.SHIM_BINARY_PATH,
    "work": Entries.WORK,
}


class InitState(Word):
    """The container's first process."""

    ALIVE = "alive"
    DEAD = "dead"
    ABSENT = "absent"  # nothing names one
    NONE = "no answer"


class ShimState(Word):
    """The shim that serves this bundle, judged by its socket."""

    ALIVE = "alive"
    DEAD = "dead"
    UNNAMED = "unnamed"  # no file names its socket and no derived socket answers
    NONE = "no answer"


class CgroupState(Word):
    """The container's control groups, all hierarchies together."""

    POPULATED = "populated"
    EMPTY = "empty"
    GONE = "gone"
    UNNAMED = "unnamed"  # neither config.json nor runc's state names it
    NONE = "no answer"


class RuntimeState(Word):
    """Whether the runtime's habits are known to us."""

    KNOWN = "known"
    UNNAMED = "unnamed"  # no shim-binary-path: a damaged runc bundle or a shared-shim member
    ALIEN = "alien"
    NONE = "no answer"


class TaskState(Word):
    """What containerd says about the task."""

    LISTED = "listed"
    NOT_LISTED = "not listed"
    NOT_FOUND = "not found"  # asked for alone: no such task, or no such container any more
    DOWN = "containerd is down"  # proven: nobody holds its metadata lock
    SKIPPED = "containerd skipped"  # the caller said --without-containerd
    NONE = "no answer"


class Init(Value, frozen=True):
    """Evidence about the init process.

    Attributes:
        state: Alive, dead, absent or no answer.
        pid: The pid that was judged, if any file named one.
        detail: Why, for people: "start time differs from runc's state", "zombie", ...
    """

    state: InitState
    pid: int | None = None
    detail: str = ""


class Shim(Value, frozen=True):
    """Evidence about the shim.

    Attributes:
        state: See :class:`ShimState`.
        socket: Path of the socket that was asked, if any.
        group: Id the shim was started for: the sandbox's id for a pod member, else the bundle's
            own. None if config.json could not determine.
        pid: The shim's pid where the look came by it (parent of a living init), else None.
        detail: Why, for people.
    """

    state: ShimState
    socket: str | None = None
    group: str | None = None
    pid: int | None = None
    detail: str = ""


class Runtime(Value, frozen=True):
    """The runtime as the shim's binary names it (``containerd-shim-runc-v2``)."""

    state: RuntimeState
    name: str = ""


class Mount(Value, frozen=True, array_like=True):
    """One mount at or below a bundle.

    Attributes:
        path: Mount point relative to the bundle (``"rootfs"``, ``"rootfs/data"``, ``"extra"``,
            ``""`` for the bundle directory itself).
        mount_id: mountinfo's first field.
        fstype: Filesystem type.
        shown_outside: Another mount, outside of the state tree, shows all that this one does. Asked
            only of filesystems that live in memory, which end with their last mount.
    """

    path: str
    mount_id: int
    fstype: str
    shown_outside: bool = False


class Labels(Value, frozen=True):
    """What policies may match on, from config.json's annotations.

    ``known`` is false if config.json could not be read: then protection rules assume a match.
    """

    known: bool = False
    pod_namespace: str = ""
    pod: str = ""
    container: str = ""
    sandbox: str = ""
    annotations: tuple[tuple[str, str], ...] = ()


NO_LABELS: Final = Labels()
_KEY: Final = attrgetter("key")


class Look(Value, frozen=True):
    """What one close look at one bundle found. Small: one is kept for every bundle.

    Attributes:
        identity: The object that was looked at.
        kind: Directory, symlink or other.
        entries: Known files present.
        newest_mtime: Newest modification time in the bundle, seconds since the epoch.
        size_bytes: Allocated bytes of the bundle and its work dir, mounts excluded.
        size_exact: False if not all could be counted: there are more.
        created: Did creation ever finish (``init.pid`` or runc's state exists)?
        runtime, init, shim, mounts, labels: See their types.
        cgroup: Control groups, all hierarchies together.
        cgroup_source: Which of its files names them.
        cgroup_paths: Under which names, within a hierarchy; empty for the usual one.
    """

    identity: Identity
    kind: Kind
    entries: Entries = Entries(0)
    newest_mtime: float = 0.0
    size_bytes: int = 0
    created: Answer = Answer.NONE
    runtime: Runtime = Runtime(RuntimeState.NONE)
    init: Init = Init(InitState.NONE)
    shim: Shim = Shim(ShimState.NONE)
    cgroup: CgroupState = CgroupState.NONE
    mounts: tuple[Mount, ...] = ()
    labels: Labels = NO_LABELS
    size_exact: bool = True
    cgroup_source: CgroupSource = CgroupSource.NONE
    cgroup_paths: tuple[str, ...] = ()


UNSEEN: Final = Look(NOWHERE, Kind.DIRECTORY)
"""There may be a bundle, and it cannot be looked at: no answer to anything."""


class PartialLook(NamedTuple):
    """A look that left something out, because to look there might have hung.

    Attributes:
        look: What it found; whatever needs the rest is "no answer".
        places: Mount points of what was left out.
    """

    look: Look
    places: frozenset[str]


class Node(msgspec.Struct, frozen=True, gc=False):
    """The witnesses that speak about the whole node, as last received.

    Attributes:
        processes: What runs.
        containerd: What containerd says.
        foreign_processes: Our pid or time namespace is not known to be containerd's: a process that
            /proc does not show, or that began at another time, may live all the same.
        foreign_mounts: Our mount namespace is not known to be containerd's: mounts may be hidden.
        served: The names living shims were started for, found at once however many there are.
        unread: The names that processes which do not answer may serve or work on; None stands for
            every name.
    """

    processes: ProcessScan = ProcessScan()
    containerd: Containerd = Containerd()
    foreign_processes: bool = False
    foreign_mounts: bool = False
    served: frozenset[BundleKey] = EMPTY
    unread: frozenset[BundleKey | None] = EMPTY

    def __post_init__(self) -> None:
        """Index the shims once, not for each bundle that is weighed."""
        scan = self.processes
        served = frozenset(map(_KEY, scan.shims)) if scan.shims else EMPTY
        unread = frozenset(map(_KEY, scan.unread)) if scan.unread else EMPTY
        force_setattr(self, "served", served)
        force_setattr(self, "unread", unread)

    @property
    def shows_processes(self) -> bool:
        """Whether a process that /proc does not show is not there."""
        return self.processes.answered and not self.foreign_processes


class Facts(NamedTuple):
    """All a verdict is made from: one row of closed enumerations."""

    kind: Kind
    identifier: bool
    helper: Answer
    shim: ShimState  # never UNNAMED: weighing resolves it
    init: InitState
    cgroup: CgroupState  # never UNNAMED: weigh() resolves it
    runtime: RuntimeState
    created: Answer
    task: TaskState
    recorded: Answer = Answer.NONE  # what containerd knows of the shim's whole group but tasks
    members: Answer | None = None  # of a sandbox: whether bundles of its pod are there
