"""Residue: what a dead container left outside its bundle, named by its id (step 5 of a cleanup).

Each function removes one kind and says in a line what it did. None of them is needed for another,
so whatever one of them cannot do is a warning. All of them run while the bundle directory, the lock
of the id, still stands. That lock holds in its own tree alone, so only those objects go that were
pinned when the bundle was judged, and where a name is shared with other containerds of the node
these are asked, too. Among them runc's state is the lock: runc makes no container while a state of
its name stands, so the names are free again only once that has gone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from reconciler import kernel
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.bundle import Resources
from reconciler.probe.cgroups import CgroupDir
from reconciler.probe.context import NodeContext
from reconciler.worker.blocked import Blocked
from reconciler.worker.context import WorkerContext
from reconciler.worker.fifos import FifoDir, Times, remove_fifo_dir
from reconciler.worker.groups import remove_group
from reconciler.worker.messages import CleanJob
from reconciler.worker.neighbours import Neighbours
from reconciler.worker.objects import HIDDEN, Aside, ObjectId, check_object
from reconciler.worker.pinned import Judged
from reconciler.worker.removal import remove_tree
from reconciler.worker.roots import doubt_root
from reconciler.worker.runtime_states import Owner, State, read_state
from reconciler.worker.second_look import Seen, refuse_work_elsewhere
from reconciler.worker.sockets import hidden_path, is_there, remove_socket
from reconciler.worker.step_log import Kept, Tally
from reconciler.worker.under_removal import bundles_called

_HANDLE: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


class Residue:
    """The residue of one bundle, as the look that judged it found it; it was made at ``born``."""

    def __init__(
        self, place: WorkerContext, job: CleanJob, seen: Seen, judged: Judged, born: float | None
    ) -> None:
        self._place = place
        self._key = job.key
        self._identity = job.identity
        self._layout = place.layout
        self._look = seen.look
        self._resources = seen.resources
        self._judged = judged
        self._born = born

    def remove_cgroups(self, tally: Tally) -> str:
        """Remove its groups in every hierarchy; what one hierarchy refuses does not keep others."""
        objects = self._judged.objects
        groups = {one: objects.get(one.path) for one in self._resources.cgroups}
        return remove_groups(self._place, self._key, groups, tally)

    def remove_runc_state(self, tally: Tally) -> str:
        """Remove the runtime's directory for it, if its content was shown to be the bundle's."""
        root = self._resources.runc_root
        if root.rpartition(b"/")[2] != unescape(self._key.namespace):
            raise Kept(f"runc's root {escape(root)} is not the namespace's")
        owner = Owner(self._layout, self._key, self._identity)
        try:
            remove_state(root, owner, self._judged.state, tally)
        except FileNotFoundError:
            doubt = doubt_root(self._place.nearby(self._place.scan()), self._key)
            if doubt:
                raise Kept(doubt) from None
            raise
        return ""

    def remove_socket(self, tally: Tally) -> str:
        """Remove its dead shim's socket, unless another bundle that stays names it too."""
        kept = []
        for path in self._judged.sockets:
            if not is_there(path):
                continue
            other = self._other_user(path)
            if other is not None:
                kept.append(f"{other} names the same socket")
                continue
            try:
                judged = self._judged.allowed(path, hidden_path(path))
                remove_socket(self._layout.sockets, path, judged, tally)
            except Kept as reason:
                kept.append(str(reason))
        if kept:
            raise Kept("; ".join(kept))
        return ""

    def _other_user(self, path: bytes) -> str | None:
        """Give another bundle that names the socket; a container that is in no pod shares none."""
        look = self._look
        is_alone = (
            look.labels.known
            and not look.labels.sandbox
            and Entries.SANDBOX not in look.entries
            and look.shim.group in {None, self._key.id}
        )
        if is_alone:
            return None
        return self._place.users.others(self._layout, self._key, path)

    def remove_fifos(self, tally: Tally) -> str:
        """Remove the directories of its standard streams, if the id is this bundle's alone."""
        place, key, fifos = self._place, self._key, self._layout.fifos
        numbers = place.fifo_dirs.of(fifos, key.id)
        if not numbers:
            return ""
        if any(other != key for other in bundles_called(self._layout.tasks, (key.id,))):
            raise Kept("another namespace has a bundle of this id")
        other = place.instances.user_of_id(key.id)
        if other is not None:
            raise Kept(other)
        times, kept = Times(self._born, place.clock.wall()), []
        for number in numbers:
            try:
                remove_fifo_dir(FifoDir(fifos, number), key.id, times.refuse, tally)
            except Kept as reason:
                kept.append(f"FIFOs in {escape(number)}: {reason}")
        if kept:
            raise Kept("; ".join(kept))
        return ""

    def remove_work_dir(self, tally: Tally) -> str:
        """Remove its directory in containerd's persistent tree."""
        refuse_work_elsewhere(self._place, self._key)
        work = self._layout.work_of(self._key)
        judged = self._judged.objects.get(work + b"/" + self._key.path)
        _remove_place(work, self._key, judged, tally)
        return ""


def refuse_unanswered(place: WorkerContext, key: BundleKey, resources: Resources) -> None:
    """Raise Blocked if nobody can say now whether another containerd has a bundle's names.

    For who asks before anything of it is changed. Its cgroups and FIFOs would be kept then, and
    once the bundle is gone nothing tells any more whose they are.
    """
    numbers: list[bytes] = []
    with suppress(OSError):  # then they are kept, and the step says why
        numbers = place.fifo_dirs.of(place.layout.fifos, key.id)
    why = place.instances.unanswered(key) if resources.cgroups else None
    if numbers and why is None:
        why = place.instances.unanswered(key, anywhere=True)
    if why is not None:
        raise Blocked(BlockReason.OWNER, key.id, why)


def remove_groups(
    place: WorkerContext,
    key: BundleKey,
    groups: Mapping[CgroupDir, ObjectId | None],
    tally: Tally,
    *,
    refuse: Callable[[], None] | None = None,
) -> str:
    """Remove the groups of a name that nobody else may have; one that is kept keeps no other.

    Args:
        place: The worker's.
        key: The name.
        groups: Which groups, and what was there when they were judged.
        tally: Counts the groups removed.
        refuse: Asked right before each, because somebody may begin to use the name between any two:
            raises Kept if it must stay. Without it other containerds are asked.

    Raises:
        Kept: Some stay, and why.
        Blocked: Somebody lives in one, or systemd has it.
    """
    kept = []
    if not groups:
        return ""
    around = place.nearby(place.scan())
    neighbours = Neighbours(around, key)

    def refuse_others() -> None:
        other = place.instances.user(key)
        if other is not None:
            raise Kept(other)

    for group, judged in groups.items():
        try:
            neighbours.refuse("/" + escape(group.relative))
            top = _hierarchy_of(around, group)
            remove_group(top, group, key.id, judged, tally, refuse=refuse or refuse_others)
        except Kept as reason:
            kept.append(str(reason))
        except OSError as error:
            kept.append(f"{escape(group.path)}: {error.strerror}")
    if kept:
        raise Kept("; ".join(dict.fromkeys(kept)))
    return f"{tally.mutations} cgroups" if tally.mutations else ""


def _hierarchy_of(around: NodeContext, group: CgroupDir) -> int:
    """Give the handle by which groups of a hierarchy are looked at; raises Kept without one."""
    found = None if around.cgroups is None else around.cgroups.handle_on(group.mount)
    if found is None:
        raise Kept(f"{escape(group.mount)} is no cgroup hierarchy")
    return found


def _remove_place(root: bytes, key: BundleKey, judged: ObjectId | None, tally: Tally) -> None:
    """Remove ``<root>/<namespace>/<id>`` and all below it.

    The root comes from the configuration and may itself be a symlink; below it nothing is followed
    and no mount is crossed.

    Raises:
        Kept: It is not the object that was judged.
        Blocked: A mount, a symlink or the kernel is in the way.
        OSError: It could not even be looked at; FileNotFoundError if there is none.
    """
    with opened(root, os.O_PATH) as top, beneath(top, unescape(key.namespace)) as parent:
        _remove(parent, unescape(key.id), judged, key.id, tally)


def remove_state(root: bytes, owner: Owner, judged: State | None, tally: Tally) -> None:
    """Remove a runtime's state directory ``<root>/<id>``, if it was shown to be the bundle's.

    It is shared between the containerds of a node, so it is put aside first: whoever made another
    of that name has it still, or has got it back, whole.

    Raises as :func:`_remove_place` does, Kept also if another has its name by now.
    """
    with _aside(root, owner, judged, tally) as aside:
        _finish_state(root, owner, aside)
        aside.put()
        what = f"runc's state of {owner.key.id}"
        _remove(aside.parent, aside.hidden, judged.id if judged else None, what, tally)


def finish_state(root: bytes, owner: Owner, judged: ObjectId, tally: Tally) -> None:
    """Remove only what an earlier run has taken out of use of that name; raises likewise."""
    with _aside(root, owner, None, tally) as aside:
        what = f"what was taken out of use as runc's state of {owner.key.id}"
        check_object(kernel.statx(aside.parent, aside.hidden), judged, what)
        _finish_state(root, owner, aside)


def _finish_state(root: bytes, owner: Owner, aside: Aside) -> None:
    begun = read_state(root, owner, aside.hidden)
    if begun is not None and begun.doubt:
        aside.put_back()
    elif begun is not None:
        _remove(aside.parent, aside.hidden, begun.id, escape(aside.hidden), aside.tally)


@contextmanager
def _aside(root: bytes, owner: Owner, judged: State | None, tally: Tally) -> Iterator[Aside]:
    """Open a runtime's root, so that the state of a name in it can be put aside."""
    base, _, namespace = root.rpartition(b"/")
    id_, what = unescape(owner.key.id), f"runc's state of {owner.key.id}"
    with opened(base, os.O_PATH) as top, beneath(top, namespace) as parent:

        def refuse(now: bytes) -> None:
            found = kernel.statx(parent, now)
            if judged is not None and judged.doubt:
                raise Kept(f"{what} is kept: {judged.doubt}")
            check_object(found, judged.id if judged else None, what)

        yield Aside(parent, id_, HIDDEN + id_, refuse, tally)


def _remove(parent: int, name: bytes, judged: ObjectId | None, what: str, tally: Tally) -> None:
    """Remove what was judged, held open so that its number cannot be another's meanwhile."""
    handle = kernel.openat2(parent, name, _HANDLE, kernel.RESOLVE_STRICT)
    try:
        check_object(kernel.statx_handle(handle), judged, what)
        if judged is not None:
            remove_tree(parent, name, judged.identity, tally)
    finally:
        os.close(handle)
