"""Messages: what the pool, the fork server and the workers tell each other.

The parent decides and asks, a worker judges again and acts, the fork server only makes and ends
workers. Names travel as text. Everything a worker may do is a struct on this page, so the page is
the whole privileged interface. `reconciler.worker.channel` carries them. Values only.

    control    pool -> fork server:  WorkerScope, once; then Spawn (with two handles), Interrupt,
                                     Kill
               fork server -> pool:  Exited
    job        pool -> worker:       CleanJob, KillJob, EndShimJob, FinishJob, DebrisJob,
                                     ScanJob, InventoryJob, PreflightJob, LookJob, LockJob, Deleted
               worker -> pool:       Hello, AskDelete, Done, DebrisDone, Scanned, Counted,
                                     PreflightReport, Looks, Locked
    progress   worker writes, pool reads if it must: Progress
"""

from typing import Final

import msgspec

from reconciler import __version__
from reconciler.model.debris import DebrisResult, Inventory, Place, PlaceKey
from reconciler.model.evidence import Answer, Containerd, Look, PartialLook, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.outcome import Outcome, Step
from reconciler.probe.locks import Lock
from reconciler.probe.owner import Vouchers

VERSION: Final = f"{__version__}/11"
"""Said first by every worker. It differs if the program was replaced on disk while it ran."""


class WorkerScope(msgspec.Struct, frozen=True, tag=True):
    """Where the workers work, and what they may execute. Said first and once; no job names it.

    The parent says so before it has received anything from outside. Whoever takes it over later can
    send no worker to another tree, nor have it execute another program.

    Attributes:
        layout: Where things are.
        runc: The runtime's binary; looked up in PATH unless it holds a slash.
        hook_seconds: How long ``runc delete`` may take with its poststop hooks.
    """

    layout: Layout
    runc: str = "runc"
    hook_seconds: float = 30.0


class CleanupOptions(msgspec.Struct, frozen=True):
    """Settings of a cleanup. They come with every job, so a reload is simple.

    Attributes:
        settle: Seconds a bundle counts as young (design section 3, rule 7).
        lazy_unmount: Detach a busy rootfs instead of leaving it, where the operator asked for it.
    """

    settle: float = 120.0
    lazy_unmount: bool = False


class _AboutWorker(msgspec.Struct, frozen=True):
    """What is said of one worker, by its number."""

    worker: int


class Spawn(_AboutWorker, frozen=True, tag=True):
    """Make a worker; its job socket and its progress file come along as descriptors."""


class Interrupt(_AboutWorker, frozen=True, tag=True):
    """Ask a worker to stop at the next entry boundary (SIGTERM)."""


class Kill(_AboutWorker, frozen=True, tag=True):
    """End a worker at once (SIGKILL)."""


class Exited(_AboutWorker, frozen=True, tag=True):
    """A worker has ended, or could not be made.

    Attributes:
        code: Exit code, or minus the signal's number; 0 with ``trouble`` if it was never made.
        trouble: Why it could not be made, else empty.
    """

    code: int
    trouble: str = ""


class _AboutBundle(msgspec.Struct, frozen=True):
    """The bundle to work on, and the object that was judged."""

    key: BundleKey
    identity: Identity


class FinishJob(_AboutBundle, frozen=True, tag=True):
    """Finish a removal of ours that was cut short; the key's id is the hidden name."""


class JudgedJob(_AboutBundle, frozen=True):
    """A bundle to judge again.

    Of what the node's witnesses said, only containerd's word on this one comes along
    (:meth:`Containerd.about`); the worker scans /proc itself.
    """

    containerd: Containerd
    options: CleanupOptions = CleanupOptions()


class CleanJob(JudgedJob, frozen=True, tag=True):
    """Judge this bundle again and remove it if it is still that object and still leftover.

    ``patient``: not now, if nobody can say whether another containerd has its names.
    """

    patient: bool = False


class KillJob(JudgedJob, frozen=True, tag=True):
    """Judge this bundle again and end its processes if it is still that object and orphaned."""


class EndShimJob(JudgedJob, frozen=True, tag=True):
    """Judge this bundle again and end its shim if it is still that object and abandoned."""


class DebrisJob(msgspec.Struct, frozen=True, tag=True):
    """Judge these places again and remove each that is still that object and still debris.

    Attributes:
        places: Places of one kind, as an inventory found them.
        containerd: What it said of their names since that inventory (:meth:`Containerd.about`).
    """

    places: tuple[Place, ...]
    containerd: Containerd


class EndWedgedJob(JudgedJob, frozen=True, tag=True):
    """Judge this bundle again and end its shim if that is wedged, and containerd proven down."""


class PingJob(msgspec.Struct, frozen=True, tag=True):
    """Ask the living shims of these bundles whether they answer; only where somebody wants it."""

    keys: tuple[BundleKey, ...]


class ScanJob(msgspec.Struct, frozen=True, tag=True):
    """Pass over /proc once."""


class InventoryJob(msgspec.Struct, frozen=True, tag=True):
    """Find what lies outside of bundles."""


class PreflightJob(msgspec.Struct, frozen=True, tag=True):
    """Measure whether acting is safe from where the worker stands."""


class LookJob(msgspec.Struct, frozen=True, tag=True):
    """Look at these bundles and change nothing, as the parent's own inspector would.

    Attributes:
        keys: The bundles.
        annotation_keys: Annotations that rules match on.
        near: Leave out what may hang, as the parent does; else whoever asks is ready to end us.
    """

    keys: tuple[BundleKey, ...]
    annotation_keys: frozenset[str]
    near: bool


class LockJob(msgspec.Struct, frozen=True, tag=True):
    """Find out who holds containerd's metadata lock.

    Attributes:
        owner: If nobody does, find out whether it is that of the tree's own containerd.
        vouchers: What another worker has found out about that.
    """

    owner: bool = False
    vouchers: Vouchers = msgspec.field(default_factory=Vouchers)


class Deleted(msgspec.Struct, frozen=True, tag=True):
    """What came of asking containerd: what went wrong, empty if nothing did, None if no answer."""

    trouble: str | None = ""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The worker is there and speaks this version."""

    version: str
    pid: int


class AskDelete(msgspec.Struct, frozen=True, tag=True):
    """The bundle is judged leftover and claimed: containerd is to delete its task now."""


class Progress(msgspec.Struct, frozen=True):
    """How far a job is. Not sent but written where the parent can read it, should it have to.

    Attributes:
        began: The step that runs now.
        steps: The steps that are over.
        place: The place of a batch whose steps they are.
        places: What came of those places of a batch that are over.
    """

    began: str = ""
    steps: tuple[Step, ...] = ()
    place: PlaceKey | None = None
    places: tuple[DebrisResult, ...] = ()


class Done(msgspec.Struct, frozen=True, tag=True):
    """The job is over."""

    outcome: Outcome


class DebrisDone(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`DebrisJob`: a result for each place, in order."""

    results: tuple[DebrisResult, ...]


class Scanned(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`ScanJob`."""

    processes: ProcessScan


class Counted(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`InventoryJob`."""

    inventory: Inventory


class PreflightReport(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`PreflightJob`: where the worker stands, as measured there.

    Attributes:
        reference: With whose namespaces its own were compared, for people.
        same_pids, same_time, same_mounts: Whether the namespace is the reference's.
        shared_tree: Whether the state tree's mount is in one shared peer group with the
            reference's; asked only if the mount namespaces differ.
        fstype: Filesystem type of the state tree; empty if that could not be known, None if
            there is no tree yet.
        openat2: The kernel lets it resolve names beneath a handle.
        lacking: Privileges that are missing, by name.
        slow: Which parts took long, and how long, in words.
    """

    reference: str
    same_pids: Answer
    same_time: Answer
    same_mounts: Answer
    shared_tree: Answer
    fstype: str | None
    openat2: bool
    lacking: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()


class Looks(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`LookJob`: a look for each key in order, None where no such name is."""

    looks: tuple[Look | PartialLook | None, ...]


class Ping(msgspec.Struct, frozen=True):
    """Whether the shim of a bundle answers a request.

    Attributes:
        key: The bundle.
        answers: No for one that accepts the connection and never answers: it is wedged. No answer
            where it was not asked.
        pid: The shim that was asked; 0 if none was.
        detail: Why it was not asked, for people.
    """

    key: BundleKey
    answers: Answer
    pid: int = 0
    detail: str = ""


class Pinged(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`PingJob`: what came of it for each key, in order."""

    pings: tuple[Ping, ...]


class Locked(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`LockJob`, and what need not be found out again."""

    lock: Lock
    vouchers: Vouchers = msgspec.field(default_factory=Vouchers)


ToForkServer = WorkerScope | Spawn | Interrupt | Kill
Job = (
    CleanJob
    | KillJob
    | EndShimJob
    | EndWedgedJob
    | PingJob
    | FinishJob
    | DebrisJob
    | ScanJob
    | InventoryJob
    | PreflightJob
    | LookJob
    | LockJob
)
ToWorker = Job | Deleted
Answered = Done | DebrisDone | Scanned | Counted | PreflightReport | Looks | Locked | Pinged
FromWorker = Hello | AskDelete | Answered
Message = ToForkServer | Exited | ToWorker | FromWorker
