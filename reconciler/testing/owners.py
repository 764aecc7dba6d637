"""Whose processes are on a simulated node: what a worker would find, and another containerd.

The other containerd has the same namespaces and ids, a state tree of its own, and shares the
directory of the runtime's states and the cgroups. Nothing of it is in the node's bundles.
"""

from reconciler.decide.ownership import Claim, Evidence, Group, Member, Record
from reconciler.model.cgroups import CgroupSource, usual_path
from reconciler.model.evidence import CgroupState, InitState
from reconciler.model.ids import BundleKey
from reconciler.testing.node import Node
from reconciler.testing.parts import Bundle, Process, Role
from reconciler.testing.sight import Sight
from reconciler.worker.groups import carries

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
