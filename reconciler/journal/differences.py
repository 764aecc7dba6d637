"""What the whole node says, as a difference to the last time that it was written in full.

It is large, and hardly anything in it changes. Each difference is one to the last full one and not
to the line before, so that a line that is lost costs no other; only a full one that is lost costs
the differences to it, which name it by its number. A full one is written at the head of a file,
after a loss, where a difference would not be much smaller, and when the differences since the last
one have together grown to twice its size.
"""

from collections.abc import Iterable
from itertools import compress
from typing import Final, Generic, TypeVar

from msgspec.structs import replace

from reconciler.model.debris import Inventory
from reconciler.model.evidence import Containerd, ProcessScan
from reconciler.model.observations import NodeLooked
from reconciler.model.values import EMPTY, Value

_T = TypeVar("_T")


class Gone(Value, frozen=True):
    """What the full one has and this one has not: places in its lists, which are in order."""

    helpers: tuple[int, ...] = ()
    shims: tuple[int, ...] = ()
    cgroup_names: tuple[int, ...] = ()
    cgroup_paths: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()


NOTHING_GONE: Final = Gone()


class Difference(Value, frozen=True):
    """A :class:`NodeLooked` that differs from the full one of this number.

    In the fields that :class:`Gone` has, processes and containerd hold only what is new.
    """

    full: int
    since: float
    processes: ProcessScan | None = None
    containerd: Containerd | None = None
    gone: Gone = NOTHING_GONE


class NoFullError(Exception):
    """The full one was lost."""


class SameInventory(Value, frozen=True):
    """An inventory that found what the full one of this number had found."""

    full: int
    since: float
    seconds: float = 0.0


class Inventories:
    """What a writer keeps of inventories: the last one of its file that was written in full."""

    def __init__(self) -> None:
        self._full: Inventory | None = None
        self.number = 0

    def forget(self) -> None:
        """Write the next one in full."""
        self._full = None

    def take(self, now: Inventory) -> SameInventory | None:
        """Say that it is the same as the last full one; None if this is one, of a new number."""
        if self._full is not None and now.places and _as_found(now) == _as_found(self._full):
            return SameInventory(self.number, now.since, now.seconds)
        self._full = now
        self.number += 1
        return None


def _as_found(taken: Inventory) -> Inventory:
    return replace(taken, since=0.0, seconds=0.0)


class Differences:
    """What a writer keeps: the last full one of its file."""

    def __init__(self) -> None:
        self._full: _Full | None = None
        self._allowed = 0
        self.number = 0

    def forget(self) -> None:
        """Write the next one in full."""
        self._full = None

    def take(self, now: NodeLooked) -> Difference | None:
        """Give the difference to the last full one; None if this is one, of the new ``number``."""
        whole = _size(now.processes, now.containerd)
        if self._full is not None and self._full.has_all(now):
            found = self._full.difference(self.number, now)
            size = _size(found.processes, found.containerd)
            self._allowed -= size
            if self._allowed >= 0 and 2 * size <= whole:
                return found
        self.number += 1
        self._full, self._allowed = _Full(now), 2 * whole
        return None


class Restored:
    """What a reader keeps: the last full one that it has read."""

    def __init__(self) -> None:
        self._number = 0
        self._full: _Full | None = None
        self._counted = 0
        self._inventory: Inventory | None = None

    def keep_inventory(self, number: int, full: Inventory) -> None:
        """Take an inventory that was written in full."""
        self._counted, self._inventory = number, full

    def repeat(self, same: SameInventory) -> Inventory:
        """Give the inventory that is said to be the same; NoFullError if that was not read last."""
        if self._inventory is None or same.full != self._counted:
            raise NoFullError("an inventory like one in a line that was lost")
        return replace(self._inventory, since=same.since, seconds=same.seconds)

    def keep(self, number: int, full: NodeLooked) -> None:
        """Take a full one."""
        self._number, self._full = number, _Full(full)

    def apply(self, change: Difference) -> NodeLooked:
        """Give what a difference stands for; NoFullError if its full one was not read last."""
        if self._full is None or change.full != self._number or not self._full.has_all(change):
            raise NoFullError("a difference to a line that was lost")
        return self._full.apply(change)


class _Full:
    """A full one, with its sets in order."""

    def __init__(self, said: NodeLooked) -> None:
        self._said = said
        scan, containerd = said.processes or ProcessScan(), said.containerd or Containerd()
        self._shims = _Names(scan.shims)
        self._helpers = _Names(sorted(scan.helpers))
        self._names = _Names(sorted(scan.cgroup_names))
        self._paths = _Names(sorted(scan.cgroup_paths))
        self._tasks = _Names(sorted(containerd.tasks))

    def has_all(self, now: NodeLooked | Difference) -> bool:
        """Return whether whoever said something now has spoken here, too."""
        return (now.processes is None or self._said.processes is not None) and (
            now.containerd is None or self._said.containerd is not None
        )

    def difference(self, number: int, now: NodeLooked) -> Difference:
        """Give what another one has and this one has not, and the other way round."""
        scan, containerd, gone = now.processes, now.containerd, NOTHING_GONE
        if scan is not None:
            gone = Gone(
                helpers=self._helpers.gone(scan.helpers),
                shims=self._shims.gone(frozenset(scan.shims)),
                cgroup_names=self._names.gone(scan.cgroup_names),
                cgroup_paths=self._paths.gone(scan.cgroup_paths),
            )
            scan = replace(
                scan,
                helpers=self._helpers.new(scan.helpers),
                shims=tuple(shim for shim in scan.shims if shim not in self._shims.all),
                cgroup_names=self._names.new(scan.cgroup_names),
                cgroup_paths=self._paths.new(scan.cgroup_paths),
            )
        if containerd is not None:
            gone = replace(gone, tasks=self._tasks.gone(containerd.tasks))
            containerd = replace(containerd, tasks=self._tasks.new(containerd.tasks))
        if gone == NOTHING_GONE:
            gone = NOTHING_GONE  # the very default is left out
        return Difference(number, now.since, scan, containerd, gone)

    def apply(self, change: Difference) -> NodeLooked:
        """Undo :meth:`difference`."""
        new, containerd, gone, scan = change.processes, change.containerd, change.gone, None
        if new is not None:
            scan = ProcessScan(
                new.answered,
                self._helpers.changed(gone.helpers, new.helpers),
                self._shims.left(gone.shims) + new.shims,
                self._names.changed(gone.cgroup_names, new.cgroup_names),
                new.unread,
                self._paths.changed(gone.cgroup_paths, new.cgroup_paths),
                new.unplaced,
            )
        if containerd is not None:
            tasks = self._tasks.changed(gone.tasks, containerd.tasks)
            containerd = replace(containerd, tasks=tasks)
        return NodeLooked(change.since, scan, containerd)


class _Names(Generic[_T]):
    """Names in the order of the line that they stand in."""

    def __init__(self, ordered: Iterable[_T]) -> None:
        self._ordered = tuple(ordered)
        self.all = frozenset(self._ordered)

    def new(self, now: frozenset[_T]) -> frozenset[_T]:
        """Give those that are not here."""
        return now - self.all or EMPTY

    def gone(self, now: frozenset[_T]) -> tuple[int, ...]:
        """Give the places of those that are no longer there."""
        if self.all <= now:
            return ()
        return tuple(place for place, name in enumerate(self._ordered) if name not in now)

    def left(self, gone: tuple[int, ...]) -> tuple[_T, ...]:
        """Give those whose places are not among these."""
        if not gone:
            return self._ordered
        most = len(self._ordered)
        stays = bytearray(b"\1") * most
        for place in gone:
            if 0 <= place < most:
                stays[place] = 0
        return tuple(compress(self._ordered, stays))

    def changed(self, gone: tuple[int, ...], new: frozenset[_T]) -> frozenset[_T]:
        """Change the set; the same object where nothing changed."""
        left = self.all
        if gone:
            most = len(self._ordered)
            left = left.difference([self._ordered[at] for at in gone if 0 <= at < most])
        return left | new if new else left


def _size(scan: ProcessScan | None, containerd: Containerd | None) -> int:
    """Count names: they are what takes the room."""
    size = 0
    if scan is not None:
        paths, names = len(scan.cgroup_paths), len(scan.cgroup_names)
        size += len(scan.helpers) + len(scan.shims) + names + len(scan.unread) + paths
    if containerd is not None:
        silent = len(containerd.unlisted) + len(containerd.absent) + len(containerd.wedged)
        asked = len(containerd.recorded) + len(containerd.unrecorded)
        size += len(containerd.tasks) + silent + asked
    return size
