"""Every side effect of the program, as one Protocol each. `loop` joins them to the engine.

Adapters live in `watch`, `probe`, `containerd` and `worker`; doubles in the tests are typed against
this page. Nothing here touches anything.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from reconciler.clock import Bell
from reconciler.model.containerd import ShimGroup
from reconciler.model.debris import DebrisResult, Inventory, Place
from reconciler.model.decisions import Decision, Verdict
from reconciler.model.evidence import Containerd, Look, Node, PartialLook, ProcessScan
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Listed, Observation, Refusal, Stamp
from reconciler.model.outcome import Outcome
from reconciler.model.policy import Policies
from reconciler.supervision import Supervisor


class Clock(Protocol):
    """The only source of time."""

    def monotonic(self) -> float:
        """Seconds since the boot, suspension not counted."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    async def wait(self, bell: Bell, until: float | None) -> None:
        """Wait until the bell rings or the monotonic clock reads ``until``."""
        ...


Emit = Callable[[Observation], None]
"""Hands an observation to the loop. Never blocks, never fails, may be called from the loop only."""


class Source(Protocol):
    """Anything that emits observations by itself: a watcher, the mount table, events."""

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled."""
        ...


class Watcher(Source, Protocol):
    """Says what may have changed in the state tree. May lose events, must say so by a Resync."""

    def follow(self, bundles: Collection[BundleKey]) -> None:
        """Say which bundles the last full listing found; watches are added and dropped to fit."""
        ...

    @property
    def backend(self) -> str:
        """Which backend works now: ``inotify``, ``watchfiles``, ``poll`` or ``none``."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not the one it began with, and what to do about it; empty if it is."""
        ...

    @property
    def relist_hint(self) -> float | None:
        """Seconds between listings that this backend needs, for it may lose events unseen."""
        ...


class Exits(Source, Protocol):
    """Reports the end of processes, each once, by pidfd."""

    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        """Watch these processes for this bundle from now on, in place of earlier ones."""
        ...

    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        """Watch the processes that keep a bundle busy."""
        ...

    def expect_containerd(self, pid: int | None) -> None:
        """Watch containerd itself; its end is a Resync."""
        ...

    def forget(self, key: BundleKey) -> None:
        """Drop whatever is watched for a bundle."""
        ...


class BatchInspector(Protocol):
    """Other processes that make the same looks as our own inspector, where there are many.

    Attributes:
        many: How many of them are worth having.
    """

    many: int

    async def look(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None] | None:
        """Look at these bundles; None if there was no answer, which says nothing about any."""
        ...


class RemoteInspector(Protocol):
    """Other processes that look where our own inspector may not, because it could hang there."""

    async def look(
        self, keys: Sequence[BundleKey], places: frozenset[str]
    ) -> Sequence[Look | None] | None:
        """Look at these bundles, in time; None if there was no answer.

        Args:
            keys: The bundles.
            places: What our own looks at them left out.
        """
        ...


class Inspector(Protocol):
    """Close looks at the tree. Read only; opens no FIFO, follows no symlink, crosses no mount."""

    @property
    def others(self) -> BatchInspector | None:
        """Who may look in our place, and sees no more than we do; None if nobody."""
        ...

    def list(self, namespace: str | None = None) -> Listed:
        """List the state tree or one namespace of it."""
        ...

    def look(self, key: BundleKey) -> Look | PartialLook | None:
        """Look at one bundle as far as nothing can hang; None if there is no such name."""
        ...

    def look_each(self, keys: Sequence[BundleKey]) -> Sequence[Look | PartialLook | None]:
        """Look at several, in their order."""
        return [self.look(key) for key in keys]

    def moment(self) -> AbstractContextManager[object]:
        """Make looks within this moment: what they share (the mount table) is read again now.

        Directories at which all of them begin may stay open until it ends, and no longer.
        """
        ...


class NodeSource(Protocol):
    """The witnesses that speak about the whole node. Asking may take long and never raises."""

    async def scan(self) -> ProcessScan:
        """Pass over /proc once."""
        ...

    async def inventory(self) -> Inventory:
        """Find what lies outside of bundles; of kinds that cannot be looked for it says nothing."""
        ...

    async def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        """Ask containerd, within a deadline; distinguish silence from proven absence.

        Args:
            about: Names the bundles of a namespace that it is asked for one by one, should its
                list of their tasks not come; in the order of how much the answer matters.
            shims: Names the shims of which it is asked whether it knows them at all.
        """
        ...

    async def task(self, key: BundleKey, shim: ShimGroup = ()) -> Containerd:
        """Ask containerd for one bundle alone, and whether it knows its shim at all.

        What it says speaks about no other bundle but those of that shim.
        """
        ...


class Guards(Protocol):
    """Says whether this process is in a place from which acting is safe (design section 4)."""

    @property
    def slow(self) -> tuple[str, ...]:
        """Which parts of the last check took long, and how long, in words."""
        ...

    async def check(self) -> tuple[Refusal, ...]:
        """Name every reason not to act; empty if there is none."""
        ...


Permit = Callable[[], Outcome | None]
"""Asked at the moment a cleanup is sent: None if it may begin, else the outcome: it may not."""


class Cleaner(Protocol):
    """The only mutating side effect there is."""

    async def clean(  # noqa: PLR0913 - which bundle, what is known of it, and what may be done
        self,
        key: BundleKey,
        identity: Identity,
        node: Node,
        permit: Permit,
        *,
        wanted: Verdict = Verdict.LEFTOVER,
        patient: bool = False,
    ) -> Outcome:
        """Judge the bundle once more and act if it is still the same, and what it must be.

        A leftover is removed, the processes of an orphaned one are ended, and the shim of an
        abandoned one.

        Args:
            key: The bundle.
            identity: The object that was judged.
            node: What the node's witnesses said less than a moment ago.
            permit: Asked once more when a worker is free, at the moment it is given the job.
            wanted: The verdict that it must have.
            patient: Remove nothing yet if nobody can say whether another containerd has its names.
        """
        ...

    async def finish(self, key: BundleKey, identity: Identity, permit: Permit) -> Outcome:
        """Finish a removal of ours that was cut short.

        Args:
            key: Namespace and hidden name.
            identity: The object the listing found.
            permit: Asked once more when a worker is free, at the moment it is given the job.
        """
        ...

    async def clean_debris(
        self, places: tuple[Place, ...], containerd: Containerd, permit: Permit
    ) -> tuple[DebrisResult, ...]:
        """Judge places of one kind once more and remove those that are still debris.

        Args:
            places: As an inventory found them.
            containerd: What it said since that inventory.
            permit: Asked once more when a worker is free, at the moment it is given the job.

        Returns:
            A result for each place.
        """
        ...


class Listener(Protocol):
    """Receives everything that goes through the loop: journal, logs, metrics, live view."""

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Receive an observation before the engine does."""
        ...

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Receive what the engine concluded or asked for."""
        ...


class Recorder(Listener, Protocol):
    """Receives also what else the engine was given, so that a run can be repeated."""

    def advanced(self, stamp: Stamp) -> None:
        """Take note that the engine is about to be given nothing but the time."""
        ...

    def configured(self, stamp: Stamp, policies: Policies) -> None:
        """Take note that other policies are about to be put into force."""
        ...

    def missed(self) -> None:
        """Take note that the last thing it received was lost on it: its record has a hole."""
        ...


class Stages(msgspec.Struct, frozen=True):
    """Everything the loop joins to the engine.

    ``watcher`` is None for one-shot commands; ``sources`` are further emitters of observations;
    without ``far`` nobody sees what our own inspector leaves out.
    All of it is supervised but the ``essential`` listeners, without which a command has no result.
    """

    clock: Clock
    inspector: Inspector
    node_source: NodeSource
    cleaner: Cleaner
    guards: Guards
    exits: Exits
    far: RemoteInspector | None = None
    watcher: Watcher | None = None
    sources: Sequence[Source] = ()
    listeners: Sequence[Listener] = ()
    recorders: Sequence[Recorder] = ()
    essential: Sequence[Listener] = ()
    supervisor: Supervisor = msgspec.field(default_factory=Supervisor)
