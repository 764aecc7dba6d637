"""What lies outside of bundles on a simulated node: what stays, who lives in it, what is seen.

The truth is kept here (:meth:`Outside.is_used`), and what an inventory would see of it is made
from the node as a worker sees it. A name may be used again, for another thing with the inode number
of the one before. So is kept whose processes are where: another containerd may have the same
namespaces and ids, a state tree of its own, and share the runtime's states and the cgroups.
"""

from dataclasses import dataclass
from typing import Final

from reconciler.decide.ownership import Claim, Evidence, Group, Member, Record
from reconciler.model.cgroups import CgroupSource, usual_path
from reconciler.model.debris import DebrisKind, Inventory, Place, PlaceKey
from reconciler.model.evidence import Answer, CgroupState, InitState
from reconciler.model.ids import BundleKey, Identity
from reconciler.testing.node import Node
from reconciler.testing.parts import Bundle, Process, Role
from reconciler.testing.sight import Sight
from reconciler.worker.groups import carries

UNNAMED: Final = frozenset({DebrisKind.SHIM_SOCKET})
"""Kinds whose name says nothing of whose they are."""


@dataclass(slots=True)
class Thing:
    """One thing outside of bundles.

    Attributes:
        key: Where it is.
        identity: Which object it is.
        owner: The bundle that it was made for.
        since: When it was changed last, wall clock.
        inhabited: Whether somebody listens, runs or works in it.
    """

    key: PlaceKey
    identity: Identity
    owner: BundleKey
    since: float
    inhabited: bool = False


class Outside:
    """Everything outside of bundles; each method is one thing that may happen.

    Attributes:
        things: What is there.
        was_used: Whether anything ever was.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ino = 1_000_000
        self.things: dict[PlaceKey, Thing] = {}
        self.was_used = False

    def make(self, owner: BundleKey, kind: DebrisKind, *, same_number: bool = False) -> PlaceKey:
        """Make a thing for a bundle, in the place of the one before if there is one."""
        key = PlaceKey(kind, f"/{kind.value}/{owner}")
        before = self.things.get(key)
        self._ino += not (same_number and before)
        number = before.identity.ino if same_number and before else self._ino
        node = self._node
        node.mono += 0.001
        self.things[key] = Thing(key, Identity(1, number, 1), owner, node.stamp.wall)
        self.was_used = True
        return key

    def enter(self, key: PlaceKey) -> None:
        """Let somebody live in it."""
        self.things[key].inhabited = True

    def leave(self, key: PlaceKey) -> None:
        """Let whoever lives in it end."""
        self.things[key].inhabited = False

    # ------------------------------------------------------------------ the truth

    def is_used(self, key: PlaceKey) -> bool:
        """Whether removing it would harm somebody."""
        thing = self.things[key]
        return thing.inhabited or thing.owner in self._node.bundles

    # ------------------------------------------------------------------ what is seen

    def inventory(self, sight: Sight) -> Inventory:
        """Take an inventory as a worker would."""
        now = self._node.mono
        if not self.was_used:
            return Inventory(now)
        if not (sight.proc and sight.tree):
            return Inventory(now, troubles=("something cannot be read",))
        places = (self._place(thing, sight) for thing in self.things.values())
        left = tuple(one for one in places if Answer.YES not in (one.lives, one.owned))
        return Inventory(now, tuple(DebrisKind), left)

    def look(self, place: Place, sight: Sight) -> Place | None:
        """Look at one place again; None if it is gone, or another one."""
        thing = self.things.get(place.key)
        if thing is None or thing.identity != place.identity or thing.since != place.since:
            return None
        return self._place(thing, sight)

    def _place(self, thing: Thing, sight: Sight) -> Place:
        """Say what is seen of a thing; from another pid namespace nobody is."""
        is_named = thing.key.kind not in UNNAMED
        lives = thing.inhabited and not sight.foreign
        return Place(
            thing.key,
            thing.identity,
            thing.owner.namespace if is_named else "",
            thing.owner.id if is_named else "",
            thing.since,
            Answer.YES if lives else Answer.NO,
            Answer.YES if thing.owner in self._node.bundles else Answer.NO,
        )


HERE, THERE = "/here", "/there"
_MOUNT = "/sys/fs/cgroup"
_THEIRS = "of another containerd: "


def evidence_of(sight: Sight, key: BundleKey) -> Evidence:
    """Gather what speaks for or against a bundle's ownership of whoever is in its cgroup."""
    node, bundle = sight.node, sight.node.bundles[key]
    record = _record(bundle, answered=sight.proc)
    inside = node.in_cgroup(bundle.cgroup_path) if record.groups else []
    return Evidence(
        bundles=frozenset({HERE}),
        record=record,
        claims=tuple(_claim(sight, other) for other in node.bundles if other != key),
        elsewhere="another containerd has it" if is_elsewhere(node, key) else "",
        members=tuple(_member(node, process, record.groups) for process in inside),
    )


def start_elsewhere(node: Node, key: BundleKey, pod: str | None = None) -> None:
    """Have the other containerd start a task of this name, in a pod if one is named."""
    shim = _add(node, Process(0, Role.SHIM, BundleKey(key.namespace, pod or key.id), node.mono))
    shim.group = _THEIRS
    theirs = BundleKey(_THEIRS + key.namespace, key.id)
    init = Process(0, Role.INIT, theirs, node.mono, usual_path(key), parent=shim.pid)
    _add(node, init)
    bundle = node.bundles.get(key)
    if bundle is not None and bundle.cgroup_path == usual_path(key):
        bundle.runc_state, bundle.state_is_its, bundle.cgroup = True, False, True
        bundle.init_pid, bundle.init_started = init.pid, init.started


def kill_shims_elsewhere(node: Node) -> None:
    """Kill every shim of the other containerd; what they looked after lives on."""
    for process in list(node.processes.values()):
        if process.group == _THEIRS:
            del node.processes[process.pid]


def end_elsewhere(node: Node) -> None:
    """End everything of the other containerd."""
    kill_shims_elsewhere(node)
    for process in list(node.processes.values()):
        if process.key.namespace.startswith(_THEIRS):
            del node.processes[process.pid]


def is_elsewhere(node: Node, key: BundleKey) -> bool:
    """Return whether a living shim leads to a bundle of this name in the other tree."""
    theirs = BundleKey(_THEIRS + key.namespace, key.id)
    processes = node.processes.values()
    return any(p.group == _THEIRS for p in processes) and any(p.key == theirs for p in processes)


def _add(node: Node, process: Process) -> Process:
    process.pid = max([*node.processes, 50_000]) + 1
    node.processes[process.pid] = process
    return process


def _record(bundle: Bundle, *, answered: bool) -> Record:
    if not bundle.runc_state:
        return Record()
    path = bundle.cgroup_path
    groups = frozenset({Group(_MOUNT, path)} if bundle.cgroup else ())
    named = carries(path.rpartition("/")[2], bundle.key.id)
    whose = HERE if bundle.state_is_its else THERE
    start = _ticks(bundle.init_started)
    return Record(whose, bundle.init_pid, start, groups, named, answered)


def _claim(sight: Sight, key: BundleKey) -> Claim:
    look = sight.look(key)
    if look is None:
        return Claim(str(key))
    lost = look.cgroup_source is CgroupSource.NONE and bool(look.mounts)
    paths = None
    if not lost and look.cgroup is not CgroupState.NONE:
        paths = frozenset(look.cgroup_paths or (usual_path(key),))
    init = look.init.pid if look.init.state in {InitState.ALIVE, InitState.NONE} else None
    return Claim(str(key), paths, init)


def _member(node: Node, process: Process, groups: frozenset[Group]) -> Member:
    above = node.processes.get(process.parent)
    shim = above.pid if above is not None and above.role is Role.SHIM else None
    return Member(process.pid, _ticks(process.started), groups, shim)


def _ticks(seconds: float) -> int:
    """Give a start time as coarse as /proc tells it."""
    return int(seconds * 100)


def is_needed(node: Node, shim: Process) -> bool:
    """Return whether the end of a shim would harm somebody: whom it serves, or who may call it."""
    known = node.tasks | node.containers
    return any(
        one.creating or node.members(one) or node.helpers_of(one.key) or one.key in known
        for one in node.served_by(shim)
    )
