"""Residue: what a dead container left outside its bundle, named by its id (step 5 of a cleanup).

Each function removes one kind and says in a line what it did. None of them is needed for another,
so whatever one of them cannot do is a warning. All of them run while the bundle directory, the lock
of the id, still stands. That lock holds in its own tree alone, so only those objects go that were
pinned when the bundle was judged, and where a name is shared with other containerds of the node
these are asked, too. Among them runc's state is the lock: runc makes no container while a state of
its name stands, so the names are free again only once that has gone.
"""

import os
from typing import Final

from reconciler import kernel
from reconciler.model.evidence import Entries
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe.beneath import beneath, opened
from reconciler.worker.context import WorkerContext
from reconciler.worker.fifos import Times, remove_fifo_dir
from reconciler.worker.going import bundles_called
from reconciler.worker.groups import remove_group
from reconciler.worker.judged import Judged
from reconciler.worker.messages import CleanJob
from reconciler.worker.neighbours import Neighbours
from reconciler.worker.objects import HIDDEN, Aside, ObjectId, check_object
from reconciler.worker.removal import remove_tree
from reconciler.worker.second_look import Seen
from reconciler.worker.sockets import hidden_path, is_there, remove_socket
from reconciler.worker.states import Owner, State, read_state
from reconciler.worker.step_log import Kept, Tally

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
        kept = []
        if not self._resources.cgroups:
            return ""
        around = self._place.nearby(self._place.scan())
        neighbours = Neighbours(around, self._key)
        for group in self._resources.cgroups:
            try:
                # Asked for each: another containerd may start the id between any two.
                other = self._place.instances.user(self._key)
                if other is not None:
                    raise Kept(other)  # noqa: TRY301 -- said as all other reasons are
                neighbours.refuse("/" + escape(group.relative))
                judged = self._judged.objects.get(group.path)
                remove_group(group.mount, group.relative, self._key.id, judged, tally)
            except Kept as reason:
                kept.append(str(reason))
            except OSError as error:
                kept.append(f"{escape(group.path)}: {error.strerror}")
        if kept:
            raise Kept("; ".join(dict.fromkeys(kept)))
        return f"{tally.mutations} cgroups" if tally.mutations else ""

    def remove_runc_state(self, tally: Tally) -> str:
        """Remove the runtime's directory for it, if its content was shown to be the bundle's."""
        root = self._resources.runc_root
        if root.rpartition(b"/")[2] != unescape(self._key.namespace):
            raise Kept(f"runc's root {escape(root)} is not the namespace's")
        owner = Owner(self._layout, self._key, self._identity)
        _remove_state(root, owner, self._judged.state, tally)
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
        return self._place.users.others(self._layout.tasks, self._key, path)

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
                remove_fifo_dir(fifos, number, key.id, times, tally)
            except Kept as reason:
                kept.append(f"FIFOs in {escape(number)}: {reason}")
        if kept:
            raise Kept("; ".join(kept))
        return ""

    def remove_work_dir(self, tally: Tally) -> str:
        """Remove its directory in containerd's persistent tree."""
        judged = self._judged.objects.get(self._layout.work + b"/" + self._key.path)
        _remove_place(self._layout.work, self._key, judged, tally)
        return ""


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


def _remove_state(root: bytes, owner: Owner, judged: State | None, tally: Tally) -> None:
    """Remove a runtime's state directory ``<root>/<id>``, if it was shown to be the bundle's.

    It is shared between the containerds of a node, so it is put aside first: whoever made another
    of that name has it still, or has got it back, whole.

    Raises as :func:`_remove_place` does, Kept also if another has its name by now.
    """
    base, _, namespace = root.rpartition(b"/")
    id_, what = unescape(owner.key.id), f"runc's state of {owner.key.id}"
    hidden = HIDDEN + id_
    with opened(base, os.O_PATH) as top, beneath(top, namespace) as parent:

        def refuse(now: bytes) -> None:
            found = kernel.statx(parent, now)
            if judged is not None and judged.doubt:
                raise Kept(f"{what} is kept: {judged.doubt}")
            check_object(found, judged.id if judged else None, what)

        aside = Aside(parent, id_, hidden, refuse, tally)
        begun = read_state(root, owner, hidden)
        if begun is not None and begun.doubt:
            aside.put_back()
        elif begun is not None:
            _remove(parent, hidden, begun.id, escape(hidden), tally)
        aside.put()
        _remove(parent, hidden, judged.id if judged else None, what, tally)


def _remove(parent: int, name: bytes, judged: ObjectId | None, what: str, tally: Tally) -> None:
    """Remove what was judged, held open so that its number cannot be another's meanwhile."""
    handle = kernel.openat2(parent, name, _HANDLE, kernel.RESOLVE_STRICT)
    try:
        check_object(kernel.statx_handle(handle), judged, what)
        if judged is not None:
            remove_tree(parent, name, judged.identity, tally)
    finally:
        os.close(handle)
