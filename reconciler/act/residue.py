"""Residue: what a dead container left outside its bundle, named by its id (step 5 of a cleanup).

Each function removes one kind and says in a line what it did. None of them is needed for another,
so whatever one of them cannot do is a warning. All of them run while the bundle directory, the lock
of the id, still stands.
"""

from reconciler.act.channel import CleanJob
from reconciler.act.fifos import remove_fifo_dir, shares_id
from reconciler.act.groups import remove_group
from reconciler.act.neighbours import Neighbours
from reconciler.act.places import check_runc_state, remove_place
from reconciler.act.record import Kept, Tally
from reconciler.act.second_look import Seen
from reconciler.act.sockets import is_there, remove_socket
from reconciler.act.workplace import Workplace
from reconciler.model.evidence import Entries
from reconciler.model.ids import show


class Residue:
    """The residue of one bundle, as the second look found it."""

    def __init__(self, place: Workplace, job: CleanJob, seen: Seen) -> None:
        self._place = place
        self._key = job.key
        self._layout = job.manner.layout
        self._look = seen.look
        self._resources = seen.resources

    def remove_cgroups(self, tally: Tally) -> str:
        """Remove its groups in every hierarchy; what one hierarchy refuses does not keep others."""
        kept = []
        around = self._place.node(self._layout, self._place.sweep())
        neighbours = Neighbours(around, self._key)
        for group in self._resources.cgroups:
            try:
                neighbours.refuse(b"/" + group.relative)
                remove_group(group.mount, group.relative, self._key.id, tally)
            except Kept as reason:
                kept.append(str(reason))
            except OSError as error:
                kept.append(f"{show(group.path)}: {error.strerror}")
        if kept:
            raise Kept("; ".join(kept))
        return f"{tally.mutations} cgroups" if tally.mutations else ""

    def remove_runc_state(self, tally: Tally) -> str:
        """Remove runc's directory for it; one that a file named only if it looks like runc's."""
        root, _, namespace = self._resources.runc_root.rpartition(b"/")
        if namespace != self._key.namespace:
            raise Kept(f"runc's root {show(self._resources.runc_root)} is not the namespace's")
        if root != self._layout.runc_root:
            check_runc_state(root, self._key)
        remove_place(root, self._key, tally, self._place.stop)
        return ""

    def remove_socket(self, tally: Tally) -> str:
        """Remove its dead shim's socket, unless another bundle names it too."""
        kept = []
        for path in self._sockets():
            if not is_there(path):
                continue
            other = self._other_user(path)
            if other is not None:
                kept.append(f"{show(other)} names the same socket")
                continue
            try:
                remove_socket(self._layout.sockets, path, tally)
            except Kept as reason:
                kept.append(str(reason))
        if kept:
            raise Kept("; ".join(kept))
        return ""

    def _other_user(self, path: bytes) -> bytes | None:
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

    def _sockets(self) -> tuple[bytes, ...]:
        """Give the sockets of its shim: the one it names, and those a shim would have derived.

        An abstract one (it begins with NUL) went with its shim.
        """
        shim, key = self._look.shim, self._key
        named = shim.socket if shim.socket and shim.socket.startswith(b"/") else None
        own = self._layout.shim_socket(key.namespace, key.id)
        group = self._layout.shim_socket(key.namespace, shim.group) if shim.group else None
        return tuple(dict.fromkeys(path for path in (named, own, group) if path is not None))

    def remove_fifos(self, tally: Tally) -> str:
        """Remove the directories of its standard streams, if the id is this bundle's alone."""
        place, key, fifos = self._place, self._key, self._layout.fifos
        numbers = place.fifo_dirs.of(fifos, key.id)
        if not numbers:
            return ""
        if shares_id(self._layout.tasks, key):
            raise Kept("another namespace has a bundle of this id")
        for number in numbers:
            remove_fifo_dir(fifos, number, key.id, place.open_fifos(), tally)
        return ""

    def remove_work_dir(self, tally: Tally) -> str:
        """Remove its directory in containerd's persistent tree."""
        remove_place(self._layout.work, self._key, tally, self._place.stop)
        return ""
