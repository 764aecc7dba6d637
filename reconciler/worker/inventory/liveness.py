"""Liveness: who lives in what nobody owns, where to know it costs more than to list it. Reads.

Asked last and of few: a listing shows which states and cgroups there are, and this what is in them.
"""

from typing import Final

from msgspec.structs import replace

from reconciler.model.debris import UNPROVEN, DebrisKind, Place
from reconciler.model.evidence import Answer, CgroupState, InitState
from reconciler.model.ids import NOWHERE, BundleKey, escape, unescape
from reconciler.model.layout import Layout
from reconciler.probe.beneath import beneath, identity_of, opened
from reconciler.probe.cgroups import CgroupMounts, Cgroups, children, resolve
from reconciler.probe.context import NodeContext
from reconciler.probe.folder import read_files
from reconciler.probe.process import Candidate, ExpectedCgroup, judge_one
from reconciler.probe.runc import Runc, look, look_at
from reconciler.worker.objects import HIDDEN, find
from reconciler.worker.runtime_states import Owner

_BY_GROUP: Final = {
    CgroupState.POPULATED: Answer.YES,
    CgroupState.EMPTY: Answer.NO,
    CgroupState.GONE: Answer.NO,
    CgroupState.UNNAMED: Answer.NONE,
    CgroupState.NONE: Answer.NONE,
}
_BY_INIT: Final = {
    InitState.ALIVE: Answer.YES,
    InitState.DEAD: Answer.NO,
    InitState.ABSENT: Answer.NONE,
    InitState.NONE: Answer.NONE,
}


def check_liveness(place: Place, around: NodeContext) -> Place:
    """Look who lives in a place that nobody owns, where that costs more than to list it."""
    try:
        match place.key.kind:
            case DebrisKind.RUNC_STATE:
                return _look_into_state(place, around)
            case DebrisKind.CGROUP if around.cgroups is not None:
                return _look_into_group(place, around, around.cgroups)
            case DebrisKind.HIDDEN_BUNDLE:
                return _look_for_state(place, around)
            case _:
                return place
    except OSError as error:
        return replace(place, lives=Answer.NONE, detail=error.strerror or "it cannot be read")


def _look_into_group(place: Place, around: NodeContext, mounted: CgroupMounts) -> Place:
    """Look which object a group is, who is in it, and whether it was a container's.

    An administrator may have made it, for containers to be put below it: one that has groups below
    it, and one by a name of which no container has left anything else, is for people to judge.

    Raises:
        OSError: It cannot be read.
    """
    path = unescape(place.key.path)
    state, found = mounted.state_at(path)
    since = max(found.mtime, found.btime)
    lives, this = _BY_GROUP[state], identity_of(found)
    place = replace(place, lives=lives, identity=this, since=since)
    if lives is Answer.YES:
        return place
    if has_groups_below(path):
        return replace(place, lives=Answer.NONE, detail="there are groups below it")
    if not _was_a_container(BundleKey(place.namespace, place.id), around.layout):
        is_free = place.owned is Answer.NO  # so that is all that there is to know
        if place.is_drawn:  # runc's root is shared, and groups of other managers are called so, too
            is_free = is_free and _is_ours(place.namespace, around.layout)
        return replace(place, owned=Answer.NONE, detail=UNPROVEN, unproven=is_free)
    return place


def has_groups_below(path: bytes) -> bool:
    """Return whether a group, by its whole path, has others below it.

    Raises:
        OSError: It cannot be read.
    """
    with opened(path) as group:
        return bool(children(group))


def _is_ours(namespace: str, layout: Layout) -> bool:
    """Return whether a namespace has a directory in a tree of our own containerd."""
    tops = (layout.tasks, layout.work)
    return any(find(top + b"/" + unescape(namespace)) is not None for top in tops)


def _was_a_container(key: BundleKey, layout: Layout) -> bool:
    """Return whether a container of a name has left something else that bears that very name.

    That is runc's state, containerd's work directory, or the socket of its shim, whose name is a
    digest of both namespace and id. FIFOs do not count: what was executed may have any name.
    """
    namespace, id_ = b"/" + unescape(key.namespace) + b"/", unescape(key.id)
    places = ((layout.work, b"."), (layout.runc_root, HIDDEN))
    paths = [top + namespace + name for top, hidden in places for name in (id_, hidden + id_)]
    paths.append(layout.shim_socket(key.namespace, key.id))
    return any(find(path) is not None for path in paths)


def _look_for_state(place: Place, around: NodeContext) -> Place:
    """Look whether a container of a hidden bundle's id lives: its removal may have been cut short.

    The state may be in the root that its ``options.json`` names; without that, in the default one.
    """
    path, key = unescape(place.key.path), BundleKey(place.namespace, place.id)
    if not path.startswith(around.layout.tasks + b"/"):
        return place  # in a work directory nobody lives
    with opened(path) as bundle:
        folder = read_files(bundle, ("options.json",))
    options, is_barred = folder.text("options.json"), folder.is_barred("options.json")
    for file in dict.fromkeys((options, None)):
        with around.handles as handles:
            said = look(handles, around.layout, key.path, file, barred=is_barred)
        if said.exists is Answer.NO:
            continue
        if said.exists is Answer.NONE or not said.whole:
            return replace(place, lives=Answer.NONE, detail="what the runtime wrote is not known")
        lives, detail = _who_lives(key, said, around)
        if lives is not Answer.NO:
            return replace(place, lives=lives, detail=detail)
    return place


def _look_into_state(place: Place, around: NodeContext) -> Place:
    """Look whose a state is by what it says, and whether its container lives.

    Whoever it is that took it out of use had seen what it said; some of that may be gone since.

    Raises:
        OSError: It cannot be read.
    """
    key = BundleKey(place.namespace, place.id)
    above, _, name = unescape(place.key.path).rpartition(b"/")
    root, _, space = above.rpartition(b"/")
    with opened(root) as top, beneath(top, space) as namespace, beneath(namespace, name) as state:
        said = look_at(state, above)
    if said.bundle is not None and not Owner(around.layout, key, NOWHERE).is_at(said.bundle):
        return replace(place, owned=Answer.YES, detail=f"it is that of {escape(said.bundle)}")
    if said.exists is not Answer.YES or not said.whole:
        if name.startswith(HIDDEN):
            return replace(place, lives=Answer.NO, detail="a removal that was cut short")
        return replace(place, lives=Answer.NONE, detail="what the runtime wrote cannot be read")
    if said.bundle is None:
        return replace(place, owned=Answer.NONE, detail="it names no bundle")
    lives, detail = _who_lives(key, said, around)
    return replace(place, lives=lives, detail=detail)


def _who_lives(key: BundleKey, said: Runc, around: NodeContext) -> tuple[Answer, str]:
    """Say whether a container lives by its state: its cgroup first, then its init."""
    if around.cgroups is None:
        return Answer.NONE, "the cgroup hierarchies cannot be read"
    groups = groups_of(key, said, around.cgroups)
    if _BY_GROUP[groups.state] is not Answer.NO:
        return _BY_GROUP[groups.state], f"its cgroup: {groups.state.value}"
    if said.pid is None or said.start is None:
        return Answer.NONE, "it names no init process"
    init = judge_one(Candidate(said.pid, said.start), ExpectedCgroup(key.id)).state
    hooks = ", poststop hooks are pending" if said.has_poststop_hooks else ""
    return _BY_INIT[init], f"init {said.pid}: {init.value}{hooks}"


def groups_of(key: BundleKey, said: Runc, mounted: CgroupMounts) -> Cgroups:
    """Find the cgroups that a state names, and what is in them; no other counts."""
    inner = resolve(said.cgroup_path) if said.cgroup_path else ()
    if not said.cgroup_dirs and not inner:
        return Cgroups(CgroupState.UNNAMED)
    return mounted.look(key, said.cgroup_dirs, inner)
