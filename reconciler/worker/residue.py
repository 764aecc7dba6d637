"""Residue: what a dead container left outside its bundle, named by its id (step 5 of a cleanup).

Each function removes one kind and says in a line what it did. None of them is needed for another,
so whatever one of them cannot do is a warning. All of them run while the bundle directory, the lock
of the id, still stands. That lock holds in its own tree alone, so only those objects go that were
pinned when the bundle was judged, and where a name is shared with other containerds of the node
these are asked, too. Among them runc's state is the lock: runc makes no container while a state of
its name stands, so the names are free again only once that has gone.
"""

from reconciler.model.evidence import Entries
from reconciler.model.ids import escape, unescape
from reconciler.worker.context import WorkerContext
from reconciler.worker.fifos import Times, remove_fifo_dir
from reconciler.worker.going import bundles_called
from reconciler.worker.groups import remove_group
from reconciler.worker.judged import Judged
from reconciler.worker.messages import CleanJob
from reconciler.worker.neighbours import Neighbours
from reconciler.worker.places import remove_place, remove_state
from reconciler.worker.record import Kept, Tally
from reconciler.worker.second_look import Seen
from reconciler.worker.sockets import hidden_path, is_there, remove_socket
from reconciler.worker.states import Owner


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
        remove_state(root, owner, self._judged.state, tally)
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
        remove_place(self._layout.work, self._key, judged, tally)
        return ""
