"""Asks each witness of one bundle with what the bundle's own files say.

Joins the files to the modules that know how to ask: cgroups, processes, sockets. A file that is
there and could not be read keeps its witness from saying "no": that is no answer.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from msgspec.structs import replace

from reconciler.model.cgroups import CgroupSource, NamedCgroup
from reconciler.model.evidence import Answer, CgroupState, Init, InitState, Shim, ShimState
from reconciler.model.ids import BundleKey
from reconciler.probe import boots, documents, metadata, process, runc, sockets
from reconciler.probe.cgroups import Cgroups, resolve
from reconciler.probe.context import NodeContext
from reconciler.probe.documents import Spec
from reconciler.probe.folder import Folder
from reconciler.probe.runc import Runc

# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_NO, _NO_ANSWER = Answer.NO, Answer.NONE
_INIT_ALIVE, _INIT_ABSENT = InitState.ALIVE, InitState.ABSENT
_POPULATED, _UNNAMED = CgroupState.POPULATED, CgroupState.UNNAMED
_CONFIG: Final = CgroupSource.CONFIG
_NOBODY_LEFT: Final = (CgroupState.EMPTY, CgroupState.GONE)
_SEEN: Final = (CgroupState.EMPTY, CgroupState.POPULATED)
_MAY_LIVE: Final = (InitState.ALIVE, InitState.NONE)
_SHIM: Final = b"containerd-shim"
"""What a shim is called in /proc/PID/comm, which holds 15 bytes."""


class BundleFiles(NamedTuple):
    """What a bundle says of itself.

    Attributes:
        key: Its name.
        path: The same as a path within a tree of namespaces, for a system call.
        folder: Its files.
        spec: config.json, None if it cannot be understood.
        group: Id its shim was started for, None if that cannot be known.
        peer: Files of the sandbox's bundle that a member may lack.
        is_earlier: It is known to have been there before this boot.
    """

    key: BundleKey
    path: bytes
    folder: Folder
    spec: Spec | None
    group: str | None
    peer: Folder | None = None
    is_earlier: bool = False


def ask_runtime(own: BundleFiles, around: NodeContext) -> Runc:
    """Ask what the runtime remembers."""
    folder = own.folder
    options, barred = folder.text("options.json"), folder.is_barred("options.json")
    found = runc.look(around.handles, around.layout, own.path, options, barred=barred)
    # Another's state does not tell that this container was ever made.
    return found if _is_its(own, around, found) else replace(found, exists=_NO)


def _is_its(own: BundleFiles, around: NodeContext, remembered: Runc) -> bool:
    """Return whether the runtime's state may be about this bundle, by what it says itself.

    Two containerds share runc's default root. A state that names another bundle may be this one's
    by another path, or somebody else's: it may hint at life (whoever it names counts as alive), and
    it never speaks against it: it disproves no pid, and names no cgroup in which nobody is left.
    """
    bundle = remembered.bundle
    if bundle is None:
        return True
    tree = bundle.removesuffix(b"/" + own.path)
    if tree == bundle:
        return False
    return tree == around.tree_of(own.key) or tree == around.layout.tree_of(own.key)


def ask_cgroups(own: BundleFiles, around: NodeContext, remembered: Runc) -> Cgroups:
    """Ask the container's cgroups."""
    if around.cgroups is None:
        return Cgroups(CgroupState.NONE)
    linux = own.spec.linux if own.spec else None
    inner = named = resolve(linux.cgroups_path) if linux else ()
    told = resolve(remembered.cgroup_path) if remembered.cgroup_path else ()
    inner += told
    listings = around.handles.listings
    found = around.cgroups.look(own.key, remembered.cgroup_dirs, inner, listings)
    if told and found.source is _CONFIG:
        found = replace(found, source=CgroupSource.RUNTIME)
    is_its = _is_its(own, around, remembered)
    if not is_its:
        found = replace(found, source=_CONFIG if named else CgroupSource.NONE)
        if found.state in _NOBODY_LEFT:
            # That the other's is there does not say that this one's was made.
            alone = around.cgroups.look(own.key, (), named).state if named else _UNNAMED
            found = replace(found, state=alone)
    # A state that is torn has named one that nobody can read any more.
    is_torn = is_its and remembered.exists is Answer.YES and not remembered.whole
    if found.state is _UNNAMED and (
        is_torn or own.folder.is_barred("config.json") or remembered.exists is _NO_ANSWER
    ):
        return Cgroups(CgroupState.NONE)
    # Whatever else names a cgroup, its runtime may have put it into one that it does not tell.
    is_hidden = remembered.hides_cgroup or (bool(remembered.cgroup_path) and not told)
    if is_its and is_hidden and found.state is not _POPULATED:
        return replace(found, state=CgroupState.NONE)
    return found


def ask_init(own: BundleFiles, around: NodeContext, remembered: Runc, cgroups: Cgroups) -> Init:
    """Ask whether the container's first process lives."""
    folder = own.folder
    written = folder.text("init.pid")
    pid = documents.parse_pid(written) if written else None
    is_its = _is_its(own, around, remembered)
    known = (remembered.pid, remembered.start) if is_its else (None, None)
    found = process.candidates(pid, folder.pid_written, *known)
    # What the runtime remembers may have been written in this boot, whatever the bundle's age.
    if own.is_earlier and remembered.exists is _NO:
        found = tuple(one._replace(is_void=boots.is_older(one.written)) for one in found)
    # What cannot be read may be gone, and what was seen may be the other's: neither refutes.
    exists = is_its and cgroups.state in _SEEN
    named = NamedCgroup(cgroups.source, tuple(cgroups.names), exists)
    expected_cgroup = process.ExpectedCgroup(own.key.id, named)
    init = process.judge(found, expected_cgroup)
    if not is_its and remembered.pid is not None and init.state is not _INIT_ALIVE:
        other = process.judge_one(
            process.Candidate(remembered.pid, remembered.start), expected_cgroup
        )
        init = other if other.state in _MAY_LIVE else init
    if init.state is not _INIT_ALIVE and remembered.pid_is_vague:
        init = _with_vague(init, (remembered.pid, *(one.pid for one in found)), own.key.id)
    if init.state is _INIT_ALIVE:
        return init
    if folder.is_barred("init.pid") or remembered.exists is _NO_ANSWER:
        why = remembered.trouble or "a file that would name it could not be read"
        return Init(InitState.NONE, init.pid, why)
    if init.state is _INIT_ABSENT and folder.has_pid:
        return replace(init, detail="init.pid holds no pid")
    return init


def _with_vague(init: Init, pids: Iterable[int | None], id_: str) -> Init:
    """Let a process that bears a pid speak for life, whatever cgroup and times say against it."""
    for pid in pids:
        if pid is not None and init.state is not _INIT_ALIVE:
            other = process.judge_one(process.Candidate(pid), process.ExpectedCgroup(id_))
            init = other if other.state in _MAY_LIVE else init
    return init


def ask_shim(own: BundleFiles, around: NodeContext, init: Init) -> Shim:
    """Ask whether the shim lives, and who it is if its container tells."""
    folder = own.folder
    named = metadata.addresses_of(folder)
    if not named and own.peer is not None:
        named = metadata.addresses_of(own.peer)
    names = sockets.ShimNames(own.key.namespace, own.group, own.key.id, named)
    found = sockets.ask_sockets(
        names, around.layout, around.sockets, around.handles, around.addresses
    )
    if init.state is _INIT_ALIVE and init.pid is not None:
        return replace(found, pid=_shim_of(init.pid))
    barred = folder.is_barred("bootstrap.json") or folder.is_barred("address")
    if barred and found.state is not ShimState.ALIVE:
        return replace(found, state=ShimState.NONE, detail="its address could not be read")
    return found


def _shim_of(init: int) -> int | None:
    """Give the pid of a living init's parent if that is a shim.

    Told by its short name: reading its command line would wait for a lock that a process stuck in
    the kernel may hold for ever.
    """
    with suppress(OSError):
        seen = process.read_stat(init)
        if seen is not None and seen.ppid > 0 and process.read_name(seen.ppid) == _SHIM:
            return seen.ppid
    return None
