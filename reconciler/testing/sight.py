"""What a real inspector would see of a simulated node, faults of sight included.

Each witness is built from what it could reach on a real node: files that may be missing, the
process table, sockets, cgroups, containerd's answer. The truth is never consulted. Blindness is
always "no answer".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.model.cgroups import CgroupSource, NamedCgroup, usual_path
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import (
    UNSEEN,
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Entries,
    Init,
    InitState,
    Kind,
    Labels,
    Look,
    ProcessScan,
    Runtime,
    RuntimeState,
    Shim,
    ShimProcess,
    ShimState,
)
from reconciler.model.ids import SANDBOX_TREE, BundleKey
from reconciler.model.observations import Hidden, Listed, Seen
from reconciler.testing.node import Node
from reconciler.testing.parts import Bundle, Daemon, Process, Role

_PID_FILES = Entries.INIT_PID
_SOCKET_FILES = Entries.ADDRESS | Entries.BOOTSTRAP


@dataclass(slots=True)
class Sight:
    """The inspector and the witnesses of one reconciler on one node.

    Attributes:
        proc: Whether /proc shows every process.
        tree: Whether the state tree can be listed.
        blind: Bundles of which a look learns that they exist and nothing more.
        foreign: Whether we are in another pid namespace: it has processes of its own, and none of
            the node's.
        lists: Whether containerd's lists of tasks come; else it answers about single bundles.
        most: About how many of them at a time.
        sandboxes: Whether the tree of sandboxes can be read.
    """

    node: Node
    proc: bool = True
    tree: bool = True
    blind: set[BundleKey] = field(default_factory=set)
    foreign: bool = False
    lists: bool = True
    most: int = 2
    sandboxes: bool = True

    def listed(self, namespace: str | None = None) -> Listed:
        """List the tree or one namespace."""
        if not self.tree:
            return Listed(answered=False, present=True, namespace=namespace)
        node, trees = self.node, ("", SANDBOX_TREE) if self.sandboxes else ("",)
        return Listed(
            answered=True,
            present=True,
            bundles=tuple(
                Seen(key, node.bundles[key].identity)
                for key in sorted(node.bundles)
                if namespace in (None, key.namespace) and key.tree in trees
            ),
            hidden=tuple(
                Hidden(key, identity, mtime, ours)
                for key, (identity, mtime, ours) in sorted(node.hidden.items())
                if namespace in (None, key.namespace) and key.tree in trees
            ),
            namespace=namespace,
            sandboxes=self.sandboxes,
        )

    def look(self, key: BundleKey) -> Look | None:
        """Look at one bundle."""
        bundle = self.node.bundles.get(key)
        if bundle is None:
            return None
        if key.tree and not self.sandboxes:
            return UNSEEN
        if key in self.blind:
            return Look(bundle.identity, Kind.DIRECTORY)
        return Look(
            identity=bundle.identity,
            kind=Kind.DIRECTORY,
            entries=bundle.files,
            newest_mtime=bundle.mtime,
            size_bytes=4096,
            created=_yes(bool(bundle.files & _PID_FILES) or bundle.runc_state),
            runtime=_runtime(bundle),
            init=self._init(bundle),
            shim=self._shim(bundle),
            cgroup=self._cgroup(bundle),
            mounts=tuple(bundle.mounts),
            labels=_labels(bundle),
            cgroup_source=_source(bundle),
            cgroup_paths=_paths(bundle),
        )

    def scan(self) -> ProcessScan:
        """Pass over the process table."""
        if not self.proc:
            return ProcessScan()
        processes = () if self.foreign else tuple(self.node.processes.values())
        return ProcessScan(
            answered=True,
            helpers=frozenset(p.key.task for p in processes if p.role is Role.HELPER),
            shims=tuple(ShimProcess(p.key, p.pid) for p in processes if p.role is Role.SHIM),
            cgroup_paths=frozenset(p.cgroup for p in processes if p.cgroup is not None),
        )

    def containerd(
        self,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
    ) -> Containerd:
        """Ask containerd.

        Args:
            about: Whom to ask for alone where its list does not come.
            shims: Of which shims to ask whether it knows them at all.
        """
        said = self._containerd(about)
        if said.state is not ContainerdState.UP:
            return said
        groups, records = shims(), {key.task for key in self.node.tasks | self.node.containers}
        known = [one for one in groups if any(key.task in records for key in one)]
        recorded = frozenset(key for one in known for key in one)
        unrecorded = frozenset(key for one in groups if one not in known for key in one)
        return replace(said, recorded=recorded, unrecorded=unrecorded)

    def _containerd(self, about: Callable[[str], Sequence[BundleKey]]) -> Containerd:
        tasks, pid = frozenset(self.node.tasks), self.node.daemon_pid
        match self.node.daemon:
            case Daemon.UP if not self.lists:
                spaces = frozenset(key.namespace for key in {*tasks, *self.node.bundles})
                asked = frozenset(key for name in spaces for key in about(name)[: self.most])
                return Containerd(
                    ContainerdState.UP,
                    tasks & asked,
                    pid=pid,
                    unlisted=spaces,
                    absent=asked - tasks,
                )
            case Daemon.UP:
                return Containerd(ContainerdState.UP, tasks, pid=pid)
            case Daemon.HUNG:
                return Containerd(ContainerdState.NONE, detail="deadline exceeded")
            case Daemon.DOWN:
                return Containerd(ContainerdState.DOWN, detail="nobody holds its lock")

    # ------------------------------------------------------------------ one witness each

    def _init(self, bundle: Bundle) -> Init:
        if not (bundle.files & _PID_FILES or bundle.runc_state) or not bundle.init_pid:
            return Init(InitState.ABSENT)
        pid = bundle.init_pid
        process = None if self.foreign else self.node.processes.get(pid)
        if process is None:
            # hidepid makes a foreign process look absent, but a pidfd still finds it
            return Init(InitState.DEAD, pid, "no such process")
        if not self.proc:
            return Init(InitState.NONE, pid, "/proc hides it")
        return _whose(process, bundle)

    def _shim(self, bundle: Bundle) -> Shim:
        is_told = bundle.files & Entries.CONFIG or bundle.key.tree  # there it is nobody's member
        group = bundle.group if is_told else None
        if bundle.files & _SOCKET_FILES:
            lives = self._answers(bundle.key.namespace, bundle.group)
            state = ShimState.ALIVE if lives else ShimState.DEAD
        else:
            derived = group or bundle.key.id
            lives = self._answers(bundle.key.namespace, derived)
            state = ShimState.ALIVE if lives else ShimState.UNNAMED
        named = state is not ShimState.UNNAMED
        socket = "/run/containerd/s/" + bundle.group if named else None
        return Shim(state, socket, group)

    def _answers(self, namespace: str, group: str) -> bool:
        return (namespace, group) in self.node.shims

    def _cgroup(self, bundle: Bundle) -> CgroupState:
        path = _named_path(bundle)
        if self.foreign and path is not None:
            return CgroupState.GONE  # its cgroup namespace is another one, too
        if self.node.in_cgroup(path or usual_path(bundle.key)):
            return CgroupState.POPULATED
        if path is None:
            return CgroupState.UNNAMED
        return CgroupState.EMPTY if _is_there(bundle) else CgroupState.GONE


def _source(bundle: Bundle) -> CgroupSource:
    if bundle.runc_state:
        return CgroupSource.RUNTIME
    return CgroupSource.CONFIG if bundle.files & Entries.CONFIG else CgroupSource.NONE


def _named_path(bundle: Bundle) -> str | None:
    """Give the cgroup that the bundle's files name: the runtime knows, config.json only asks."""
    match _source(bundle):
        case CgroupSource.RUNTIME:
            return bundle.cgroup_path
        case CgroupSource.CONFIG:
            return bundle.asked_path
        case CgroupSource.NONE:
            return None


def _is_there(bundle: Bundle) -> bool:
    return bundle.cgroup and _named_path(bundle) == bundle.cgroup_path


def _paths(bundle: Bundle) -> tuple[str, ...]:
    path = _named_path(bundle)
    return () if path in {None, usual_path(bundle.key)} else (path,)


def _whose(process: Process, bundle: Bundle) -> Init:
    """Return whether the process a bundle names is its own: pids come back."""
    path, source = process.cgroup or "/", _source(bundle)
    asked = _named_path(bundle)
    named = NamedCgroup(source, () if asked is None else (asked,), _is_there(bundle))
    if named.holds(path) or (bundle.runc_state and process.started == bundle.init_started):
        return Init(InitState.ALIVE, process.pid)
    if not bundle.runc_state and named.may_be_called(bundle.key.id, path):
        return Init(InitState.ALIVE, process.pid)
    if bundle.runc_state and process.started != bundle.init_started:
        return Init(InitState.DEAD, process.pid, "start time differs from runc's state")
    if named.refutes:
        return Init(InitState.DEAD, process.pid, "not in the container's cgroup")
    if process.started > bundle.init_started:
        return Init(InitState.DEAD, process.pid, "began after the pid was written")
    return Init(InitState.NONE, process.pid, "cannot determine whose process it is")


def _yes(fact: bool) -> Answer:  # noqa: FBT001 - the fact itself
    return Answer.YES if fact else Answer.NO


def _runtime(bundle: Bundle) -> Runtime:
    if not bundle.files & Entries.SHIM_BINARY_PATH:
        return Runtime(RuntimeState.UNNAMED)
    ours = bundle.runtime == "runc"
    return Runtime(RuntimeState.KNOWN if ours else RuntimeState.ALIEN, bundle.runtime)


def _labels(bundle: Bundle) -> Labels:
    if not bundle.files & Entries.CONFIG:
        return Labels()
    sandbox = bundle.group if bundle.group != bundle.key.id else ""
    return Labels(known=True, pod_namespace=bundle.pod_namespace, sandbox=sandbox)
