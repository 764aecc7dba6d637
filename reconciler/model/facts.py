"""Facts: what was seen of a bundle and what the node's witnesses say of it, joined into facts.

:class:`~reconciler.model.evidence.Look` and :class:`~reconciler.model.evidence.Node` flow in,
:class:`~reconciler.model.evidence.Facts` flow out. Pure. Nothing here turns "no answer" into "no":
of what cannot be seen from where we are, a no is no answer, and only a yes counts.
"""

from functools import cache
from typing import Final

from reconciler.model.cgroups import CgroupSource, NamedCgroup, find_hints, may_hint, usual_path
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

# Tables and constants, because on Python 3.11 to name a member of an enumeration takes ten times as
# long as to find one, and each look at a bundle is weighed.
_UP: Final = ContainerdState.UP
_TASK_UNKNOWN: Final = {
    ContainerdState.DOWN: TaskState.DOWN,
    ContainerdState.SKIPPED: TaskState.SKIPPED,
    ContainerdState.NONE: TaskState.NONE,
}
"""What containerd says of every task while it is not up."""

_SANDBOX: Final = {
    Answer.YES: TaskState.LISTED,
    Answer.NO: TaskState.NOT_FOUND,
    Answer.NONE: TaskState.NONE,
}
"""What it says of a sandbox, by whether it has a record of it."""

_YES, _NO, _NO_ANSWER = Answer.YES, Answer.NO, Answer.NONE
_INIT_DEAD: Final = InitState.DEAD
_SHIM_DEAD, _SHIM_UNNAMED = ShimState.DEAD, ShimState.UNNAMED
_CGROUP_UNNAMED: Final = CgroupState.UNNAMED

# What no process that is seen elsewhere can contradict.
_SHIM_IS_SURE: Final = frozenset({ShimState.ALIVE, ShimState.NONE})
_CGROUP_IS_SURE: Final = frozenset({CgroupState.POPULATED, CgroupState.NONE})

_row: Final = cache(Facts)
"""Gives one object for equal rows: a row is its eleven words, so there are few, and no more."""


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
    kind, created, pod = look.kind, look.created, members if key.tree else None
    return _row(kind, identifier, helper, shim, init, cgroup, runtime, created, task, recorded, pod)


def task_of(key: BundleKey, containerd: Containerd) -> TaskState:
    """Return what containerd says about one task, or about one sandbox.

    A sandbox is listed nowhere: containerd is asked for it alone. Only while it answers does it
    tell: what its database says of sandboxes when it is down, nobody knows.
    """
    if key.tree:
        return _SANDBOX[_recorded(key, containerd)]
    if containerd.state is not _UP:
        return _TASK_UNKNOWN[containerd.state]
    if key in containerd.tasks:
        return TaskState.LISTED
    if key.namespace not in containerd.unlisted:
        return TaskState.NOT_LISTED
    return TaskState.NOT_FOUND if key in containerd.absent else TaskState.NONE


def _recorded(key: BundleKey, containerd: Containerd) -> Answer:
    """Return whether containerd knows anything of a bundle's shim; no answer if not asked."""
    if containerd.state is not _UP or not (containerd.recorded or containerd.unrecorded):
        return _NO_ANSWER
    if key in containerd.recorded:
        return _YES
    return _NO if key in containerd.unrecorded else _NO_ANSWER


def _helper(key: BundleKey, node: Node) -> Answer:
    if not node.processes.answered:
        return _NO_ANSWER
    if key in node.processes.helpers:
        return _YES
    is_sure = node.shows_processes and not may_be(node.unread, key)
    return _NO if is_sure else _NO_ANSWER


def _init(init: InitState, node: Node) -> InitState:
    """Believe in the death of a pid only where it means the process that the bundle's files mean.

    That nothing names an init is what files say, and they are the same from everywhere.
    """
    return InitState.NONE if node.foreign_processes and init is _INIT_DEAD else init


def _shim(key: BundleKey, shim: Shim, node: Node, task: TaskState) -> ShimState:
    """Resolve the shim: its socket speaks first, the process table may only contradict death."""
    state = shim.state
    if state in _SHIM_IS_SURE:
        return state
    if not node.shows_processes:
        return ShimState.NONE
    if shim.group is None or shim.group == key.id:
        group = key
    else:
        group = BundleKey(key.namespace, shim.group)
    if key in node.served or group in node.served:
        return ShimState.ALIVE
    if may_be(node.unread, key, group):
        return ShimState.NONE
    if state is not _SHIM_UNNAMED or shim.group is not None:
        return _SHIM_DEAD
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
    if key.id in scan.cgroup_names or hints(key, look, node):
        return CgroupState.POPULATED
    if node.foreign_processes or (scan.unplaced and not _named_cgroup(key, look).refutes):
        return CgroupState.NONE
    if cgroup is _CGROUP_UNNAMED:
        # It may have any name. Where something is still mounted, a workload may live in there of
        # which nothing else is left to show. A dead init does not say that it was the last: in
        # the host's pid namespace, or in its pod's, what it has forked lives on.
        is_open = bool(look.mounts) or node.foreign_mounts
        return CgroupState.GONE if scan.answered and not is_open else CgroupState.NONE
    return cgroup


def hints(key: BundleKey, look: Look, node: Node) -> tuple[str, ...]:
    """Give the cgroups in which a living process may be this bundle's, in order of name."""
    paths = node.processes.cgroup_paths
    if not may_hint(key.id, paths):
        return ()
    return find_hints(key, _named_cgroup(key, look), paths, node.served)


def _named_cgroup(key: BundleKey, look: Look) -> NamedCgroup:
    usual = () if look.cgroup_source is CgroupSource.NONE else (usual_path(key),)
    exists = look.cgroup is CgroupState.EMPTY
    return NamedCgroup(look.cgroup_source, look.cgroup_paths or usual, exists)
