"""Facts: what was seen of a bundle and what the node's witnesses say of it, joined into facts.

:class:`~reconciler.model.evidence.Look` and :class:`~reconciler.model.evidence.Node` flow in,
:class:`~reconciler.model.evidence.Facts` flow out. Pure. Nothing here turns "no answer" into "no":
of what cannot be seen from where we are, a no is no answer, and only a yes counts.
"""

from typing import Final

from reconciler.model.cgroups import CgroupSource, NamedCgroup, find_hints, usual_path
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Facts,
    InitState,
    Look,
    Node,
    Shim,
    ShimState,
    TaskState,
)
from reconciler.model.ids import BundleKey
from reconciler.model.processes import may_be, may_be_in

# What no process that is seen elsewhere can contradict. Sets, because on Python 3.11 to name a
# member of an enumeration takes four times as long as to find one.
_SHIM_IS_SURE: Final = frozenset({ShimState.ALIVE, ShimState.NONE})
_CGROUP_IS_SURE: Final = frozenset({CgroupState.POPULATED, CgroupState.NONE})


def weigh(
    key: BundleKey,
    identifier: bool,  # noqa: FBT001 - a fact
    look: Look,
    node: Node,
    members: Answer = Answer.NONE,
) -> Facts:
    """Join a look with what the whole node's witnesses say about the same bundle.

    Args:
        key: The bundle.
        identifier: Whether containerd's identifier rule accepts both names.
        look: The close look.
        node: The process scan and containerd's word.
        members: Of a sandbox: whether bundles of its pod are there.
    """
    task, recorded = task_of(key, node.containerd), _recorded(key, node.containerd)
    named = key.task  # processes tell no tree: whoever may be either's speaks for both
    helper = _helper(named, node)
    shim = _shim(named, look.shim, node, task)
    cgroup = _cgroup(named, look, node)
    init, runtime = _init(look.init.state, node), look.runtime.state
    kind, created = look.kind, look.created
    facts = Facts(kind, identifier, helper, shim, init, cgroup, runtime, created, task, recorded)
    return facts._replace(members=members) if key.tree else facts


def task_of(key: BundleKey, containerd: Containerd) -> TaskState:
    """Return what containerd says about one task, or about one sandbox.

    A sandbox is listed nowhere: containerd is asked for it alone. Only while it answers does it
    tell: what its database says of sandboxes when it is down, nobody knows.
    """
    if key.tree:
        return _SANDBOX[_recorded(key, containerd)]
    match containerd.state:
        case ContainerdState.UP:
            return _task_of_living(key, containerd)
        case ContainerdState.DOWN:
            return TaskState.DOWN
        case ContainerdState.SKIPPED:
            return TaskState.SKIPPED
        case ContainerdState.NONE:
            return TaskState.NONE


_SANDBOX: Final = {
    Answer.YES: TaskState.LISTED,
    Answer.NO: TaskState.NOT_FOUND,
    Answer.NONE: TaskState.NONE,
}


def _task_of_living(key: BundleKey, containerd: Containerd) -> TaskState:
    if key in containerd.tasks:
        return TaskState.LISTED
    if key.namespace not in containerd.unlisted:
        return TaskState.NOT_LISTED
    return TaskState.NOT_FOUND if key in containerd.absent else TaskState.NONE


def _recorded(key: BundleKey, containerd: Containerd) -> Answer:
    """Return whether containerd knows anything of a bundle's shim; no answer if not asked."""
    if containerd.state is not ContainerdState.UP:
        return Answer.NONE
    if key in containerd.recorded:
        return Answer.YES
    return Answer.NO if key in containerd.unrecorded else Answer.NONE


def _helper(key: BundleKey, node: Node) -> Answer:
    if not node.processes.answered:
        return Answer.NONE
    if key in node.processes.helpers:
        return Answer.YES
    is_sure = node.shows_processes and not may_be(node.unread, key)
    return Answer.NO if is_sure else Answer.NONE


def _init(init: InitState, node: Node) -> InitState:
    """Believe in the death of a pid only where it means the process that the bundle's files mean.

    That nothing names an init is what files say, and they are the same from everywhere.
    """
    return InitState.NONE if node.foreign_processes and init is InitState.DEAD else init


def _shim(key: BundleKey, shim: Shim, node: Node, task: TaskState) -> ShimState:
    """Resolve the shim: its socket speaks first, the process table may only contradict death."""
    state = shim.state
    if state in _SHIM_IS_SURE:
        return state
    if not node.shows_processes:
        return ShimState.NONE
    group = key.id if shim.group is None else shim.group
    if key in node.served or BundleKey(key.namespace, group) in node.served:
        return ShimState.ALIVE
    is_anybodys = state is ShimState.UNNAMED and shim.group is None
    unsure = may_be(node.unread, key, BundleKey(key.namespace, group))
    if unsure or not is_anybodys:
        return ShimState.NONE if unsure else ShimState.DEAD
    # No file names a socket and none names the group: any shim of the namespace might serve it.
    # Only containerd, answering and not listing the task, can then say that none does. "Not found"
    # will not do: it is said as well of a task whose container is no longer recorded.
    is_free = not any(may_be_in(some, key.namespace) for some in (node.served, node.unread))
    return ShimState.DEAD if is_free or task is TaskState.NOT_LISTED else ShimState.NONE


def _cgroup(key: BundleKey, look: Look, node: Node) -> CgroupState:
    """Let living processes that may be in its cgroup contradict "empty" and "gone"."""
    cgroup, scan = look.cgroup, node.processes
    if cgroup in _CGROUP_IS_SURE:
        return cgroup
    named = _named_cgroup(key, look)
    if key.id in scan.cgroup_names or _find_hints(key, named, node):
        return CgroupState.POPULATED
    if node.foreign_processes or (scan.unplaced and not named.refutes):
        return CgroupState.NONE
    if cgroup is CgroupState.UNNAMED:
        # It may have any name. Where something is still mounted, a workload may live in there of
        # which nothing else is left to show. A dead init does not say that it was the last: in
        # the host's pid namespace, or in its pod's, what it has forked lives on.
        is_open = bool(look.mounts) or node.foreign_mounts
        return CgroupState.GONE if scan.answered and not is_open else CgroupState.NONE
    return cgroup


def hints(key: BundleKey, look: Look, node: Node) -> tuple[str, ...]:
    """Give the cgroups in which a living process may be this bundle's, in order of name."""
    return _find_hints(key, _named_cgroup(key, look), node)


def _find_hints(key: BundleKey, named: NamedCgroup, node: Node) -> tuple[str, ...]:
    return find_hints(key, named, node.processes.cgroup_paths, node.served)


def _named_cgroup(key: BundleKey, look: Look) -> NamedCgroup:
    usual = () if look.cgroup_source is CgroupSource.NONE else (usual_path(key),)
    exists = look.cgroup is CgroupState.EMPTY
    return NamedCgroup(look.cgroup_source, look.cgroup_paths or usual, exists)
