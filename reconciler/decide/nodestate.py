"""What the node's witnesses said last, since when it counts, and whom a new answer affects. Pure.

On a busy node a shim comes or goes several times a second, and thousands of leftovers may wait in
the same namespace. To judge all of them again each time would keep the loop from everything else.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from reconciler.decide.pod_members import Members
from reconciler.decide.track import LIVING, Track
from reconciler.model.cgroups import CgroupSource, names_in_all, usual_path
from reconciler.model.debris import DebrisKind, Inventory, Place
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Facts,
    Look,
    Node,
    ProcessScan,
    ShimState,
)
from reconciler.model.facts import weigh
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Guard, NodeLooked, Refusal, is_transient
from reconciler.model.values import EMPTY

MOST_GONE: Final = 10_000
"""Bundles that are gone of which a cgroup is remembered; what is older is unproven again."""

_T = TypeVar("_T")
# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_LEFTOVER: Final = Verdict.LEFTOVER
_NO_ANSWER: Final = Answer.NONE
_BLIND: Final = Node()
_OF_PROCESSES: Final = frozenset({Guard.PID_NAMESPACE, Guard.TIME_NAMESPACE})
_SETTLED: Final = frozenset({Phase.WAITING, Phase.DUE, Phase.BLOCKED, Phase.PROTECTED})
_THERE: Final = frozenset({CgroupState.EMPTY, CgroupState.POPULATED})
_DEAF: Final = frozenset({ShimState.DEAD, ShimState.UNNAMED})


class NodeChange(msgspec.Struct, frozen=True, gc=False):
    """The difference between two words of the witnesses.

    Attributes:
        everybody: A witness fell silent, came back, or containerd went down or up.
        keys: Bundles whose task or helper came or went.
        namespaces: Namespaces in which a shim came or went.
        names: What cgroups that came or went may be named after, and the ids that such shims serve:
            a name counts for nothing where a shim explains it.
        listings: Namespaces whose list of tasks came, after it had not, or the other way round.
        since: Bundles first seen later than this were not covered before, or are not now.
    """

    everybody: bool
    keys: frozenset[BundleKey]
    namespaces: frozenset[str]
    names: frozenset[str]
    listings: frozenset[str]
    since: float

    @property
    def is_news(self) -> bool:
        """Whether anything was said that was not said before."""
        return bool(self.everybody or self.names or self.keys or self.listings)

    def touches(self, key: BundleKey, first_seen: float) -> bool:
        """Return whether a bundle that is not plainly alive must be judged again."""
        return key.namespace in self.namespaces or self.speaks_of(key, first_seen)

    def speaks_of(self, key: BundleKey, first_seen: float) -> bool:
        """Return whether it is touched by more than a shim's coming or going in its namespace."""
        return (
            self.everybody
            or first_seen > self.since
            or key.id in self.names  # a shim's, too
            or key in self.keys
            or key.namespace in self.listings
            or (bool(key.tree) and key.task in self.keys)
        )


class NodeState:
    """Remembers the witnesses' answers. An answer says nothing about bundles first seen after it.

    That a single bundle was not found, where no list came, is remembered until containerd is
    another process or falls silent: while the bundle is there, no task of its name can be made
    (design section 2, principle 6). So each is asked for once, however long no list comes.
    """

    def __init__(self) -> None:
        self.node = _BLIND
        self._unasked = _BLIND  # the same without what was learnt by asking for single bundles
        self._absent: dict[BundleKey, float] = {}  # since when each is known not to be found
        self._unseen = _BLIND  # what counts for bundles that the word does not cover
        self._foreign_processes = self._foreign_mounts = False
        self.wall = 0.0  # of the latest observation, seconds since the epoch
        # Of what is gone, the latest last; and until when that was seen.
        self._had_cgroup: dict[BundleKey, float] = {}
        self._before_inventory = frozenset[BundleKey]()
        self._number = 0  # of the word, counted from the first; one that is no news keeps it
        self._since = -1.0

    def covers(self, first_seen: float) -> bool:
        """Return whether the last word counts for a bundle first seen then."""
        return self._since >= first_seen

    def about(self, key: BundleKey, first_seen: float) -> Node:
        """The word that counts for a bundle first seen then."""
        if self._since < first_seen:
            return self._unseen
        # Nearly always all that is known was learnt without asking for single bundles.
        is_known = self.node is self._unasked or self.is_absent(key, first_seen)
        return self.node if is_known else self._unasked

    def is_absent(self, key: BundleKey, first_seen: float) -> bool:
        """Return whether it was asked for alone, and not found, since it was first seen."""
        return self._absent.get(key, float("-inf")) >= first_seen

    def to_ask(self, namespace: str, tracks: Iterable[Track]) -> list[BundleKey]:
        """List whom containerd is to be asked for alone, those first that may be dead."""
        found = [
            (track.verdict in LIVING, track.key)
            for track in tracks
            if track.key.namespace == namespace
            and not track.key.tree
            and not self.is_absent(track.key, track.first_seen)
        ]
        return [key for _, key in sorted(found)]

    def weigh(self, track: Track, look: Look, members: Members) -> Facts:
        """Join a track's look with the word that counts for it, where either is new.

        ``members`` tells of a sandbox whether bundles of its pod are there.
        """
        key, facts = track.key, track.facts
        number = self._number if self._since >= track.first_seen else 0
        if facts is None or track.weighed_with != number:
            is_valid = key.is_identifier if facts is None else facts.identifier
            node = self.about(key, track.first_seen)
            pod = members.of(key) if key.tree else _NO_ANSWER
            facts = track.facts = weigh(key, is_valid, look, node, pod)
            track.weighed_with = number
        return facts

    def is_weighed(self, track: Track) -> bool:
        """Return whether a task's facts are those of its look and the latest word that counts."""
        number = self._number if self._since >= track.first_seen else 0
        return track.weighed_with == number and not track.key.tree

    def receive(self, received: NodeLooked) -> NodeChange:
        """Take in a new word."""
        before, since = self.node, self._since
        scan, asked = received.processes or before.processes, frozenset[BundleKey]()
        containerd = before.containerd
        if received.containerd is not None:
            asked = received.containerd.absent
            containerd = self._recall(received.containerd, received.since)
        self._keep(scan, containerd)
        self._since = received.since
        old, was, now = before.processes, before.containerd, self.node
        shims = _changed((before.served, now.served))
        unread: frozenset[BundleKey | None] = EMPTY
        if before.unread is not now.unread:
            unread = _changed((before.unread, now.unread))
            shims = shims.union(filter(None, unread))
        names = names_in_all(_changed((old.cgroup_paths, scan.cgroup_paths)))
        change = NodeChange(
            everybody=was.state is not containerd.state
            or old.answered is not scan.answered
            or bool(old.unplaced) is not bool(scan.unplaced)
            or None in unread,
            keys=_changed(
                (EMPTY, asked),
                (was.tasks, containerd.tasks),
                (was.absent, containerd.absent),
                (was.recorded, containerd.recorded),
                (was.unrecorded, containerd.unrecorded),
                (old.helpers, scan.helpers),
            ),
            namespaces=frozenset([key.namespace for key in shims]) if shims else EMPTY,
            names=names.union(
                _changed((old.cgroup_names, scan.cgroup_names)), [key.id for key in shims]
            ),
            listings=_changed((was.unlisted, containerd.unlisted)),
            since=min(since, received.since),
        )
        self._number += change.is_news
        return change

    def stand(self, refused: tuple[Refusal, ...]) -> bool:
        """Take in what the guards say of our own place; True if it makes us see otherwise.

        Where no worker could measure it, the earlier measurement counts: our place does not change.
        """
        if is_transient(refused):
            return False
        guards = {one.guard for one in refused}
        foreign = not _OF_PROCESSES.isdisjoint(guards), Guard.MOUNT_NAMESPACE in guards
        if foreign == (self._foreign_processes, self._foreign_mounts):
            return False
        self._foreign_processes, self._foreign_mounts = foreign
        self._unseen = Node(ProcessScan(), Containerd(), *foreign)
        self._keep(self.node.processes, self.node.containerd)
        return True

    def _keep(self, scan: ProcessScan, containerd: Containerd) -> None:
        foreign = self._foreign_processes, self._foreign_mounts
        self.node = self._unasked = Node(scan, containerd, *foreign)
        if containerd.absent:
            self._unasked = Node(scan, replace(containerd, absent=frozenset()), *foreign)

    def _recall(self, said: Containerd, since: float) -> Containerd:
        """Add to containerd's word what it said earlier of single bundles and still holds."""
        absent, before = self._absent, self.node.containerd
        if not absent and not said.absent:
            return said
        is_same = said.state is ContainerdState.UP and said.pid is not None
        if not is_same or said.pid != before.pid:
            absent.clear()
        for key in [k for k in absent if k in said.tasks or k.namespace not in said.unlisted]:
            del absent[key]
        absent.update(dict.fromkeys(said.absent, since))
        return said if len(absent) == len(said.absent) else replace(said, absent=frozenset(absent))

    def forget(self, key: BundleKey, look: Look | None = None, ago: float = 0.0) -> None:
        """Drop what is remembered of a bundle that is gone, but that it had the usual cgroup.

        ``look``: the last one at it, that many seconds ago.
        """
        self._absent.pop(key, None)
        if has_usual_cgroup(key, look):
            self.remember_cgroup(key, self.wall - ago)

    def remember_cgroup(self, key: BundleKey, until: float) -> None:
        """Remember that a bundle had the usual cgroup, and until when that was seen."""
        self._had_cgroup.pop(key, None)
        self._had_cgroup[key] = until
        if len(self._had_cgroup) > MOST_GONE:
            del self._had_cgroup[next(iter(self._had_cgroup))]

    def inventory_begins(self) -> None:
        """Note whose cgroups an inventory would name if they were there still."""
        self._before_inventory = frozenset(self._had_cgroup)

    def inventory_told(self, taken: Inventory) -> None:
        """Forget of whom an inventory of all cgroups that are nobody's names none any more."""
        if DebrisKind.CGROUP not in taken.looked or taken.more:
            return
        named = {BundleKey(one.namespace, one.id) for one in taken.places if _is_group(one)}
        for key in self._before_inventory - named:
            self._had_cgroup.pop(key, None)
        self._before_inventory = frozenset()

    @property
    def had_cgroups(self) -> Mapping[BundleKey, float]:
        """Of which bundles that is remembered, the latest last, and until when it was seen."""
        return self._had_cgroup

    def had_cgroup(self, key: BundleKey, since: float) -> bool:
        """Return whether a bundle of this name is gone that was last seen with the usual cgroup.

        By its own files, and while that was there: an administrator's is another one's. And so is
        one that was made after the last look: when the bundle had gone, for a next container of
        that name. The kernel may make up a later time than the true one (``since``), none earlier.
        """
        return 0.0 < since <= self._had_cgroup.get(key, 0.0)


def _is_group(place: Place) -> bool:
    return place.key.kind is DebrisKind.CGROUP


def has_usual_cgroup(key: BundleKey, look: Look | None) -> bool:
    """Return whether a bundle was last seen with the usual cgroup, named by its own files.

    Never of a sandbox: the cgroup of that name is a task's, if there is any.
    """
    if look is None or key.tree:
        return False
    names = look.cgroup_paths or (usual_path(key),)
    is_named = look.cgroup_source is not CgroupSource.NONE and usual_path(key) in names
    return is_named and look.cgroup in _THERE


def _changed(*pairs: tuple[frozenset[_T], frozenset[_T]]) -> frozenset[_T]:
    """What is in one and not in the other of any pair; for large sets that are alike, or nearly."""
    changed: frozenset[_T] = EMPTY
    for before, now in pairs:
        if before is not now and before != now:
            changed = changed | (before ^ now) if changed else before ^ now
    return changed


def is_touched(track: Track, change: NodeChange, appointed: float | None, now: float) -> bool:
    """Return whether a bundle that is not plainly alive must be judged again.

    ``appointed`` is when it is to be thought about anyway.
    """
    if change.speaks_of(track.key, track.first_seen):
        return True
    if track.key.namespace not in change.namespaces:
        return False
    is_appointed = appointed is not None and appointed <= now
    return is_appointed or not _is_indifferent(track, change.names)


def _is_indifferent(track: Track, names: frozenset[str]) -> bool:
    """Return whether other shims of its namespace cannot change what is believed of a leftover.

    Its shim is known to be none of those that came or went (``names`` has their ids), its group is
    known, and so are its labels: the same facts, phase and policy would come out.
    """
    if track.verdict is not _LEFTOVER or track.look is None or track.phase not in _SETTLED:
        return False
    shim = track.look.shim
    return (
        shim.group is not None
        and shim.group not in names
        and shim.state in _DEAF
        and track.labels.known
    )
