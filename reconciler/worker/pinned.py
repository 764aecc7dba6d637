"""Pinned: which objects the names of a bundle's residue meant when the bundle was judged.

Runc's root, the socket directory and the names of cgroups are shared between the containerds of a
node. The bundle directory locks its id in its own tree only, so another one may begin to use the
same name between the look and the removal. Each name is therefore pinned to its object here, and
:class:`reconciler.worker.residue.Residue` removes no other. Reads only.
"""

from collections.abc import Mapping

import msgspec

from reconciler.model.ids import unescape
from reconciler.model.layout import Layout
from reconciler.worker.messages import CleanJob
from reconciler.worker.objects import NOTHING, ObjectId, find
from reconciler.worker.runtime_states import Owner, State, read_state
from reconciler.worker.second_look import Seen
from reconciler.worker.sockets import hidden_path


class Judged(msgspec.Struct, frozen=True):
    """What was there.

    Attributes:
        sockets: The sockets its shim may have had, by path; names they were hidden by, too.
        objects: Its cgroups and its work directory, by path.
        state: The runtime's state directory; None if there was none.
    """

    sockets: tuple[bytes, ...] = ()
    objects: Mapping[bytes, ObjectId] = msgspec.field(default_factory=dict)
    state: State | None = None

    def allowed(self, *paths: bytes) -> frozenset[ObjectId]:
        """Give the objects that any of these paths meant."""
        return frozenset(self.objects[path] for path in paths if path in self.objects)


def pin(
    layout: Layout, job: CleanJob, seen: Seen, old: float, before: State | None = None
) -> Judged:
    """Pin the residue of a bundle that was judged just now.

    ``before`` is the state as an earlier look of this attempt found it: what was shown to be the
    bundle's remains so, even if its content has gone since. ``old``: see `Owner`.
    """
    resources, key = seen.resources, job.key
    sockets = _sockets(layout, job, seen)
    names = [group.path for group in resources.cgroups]
    names += [path for socket in sockets for path in (socket, hidden_path(socket))]
    names += [layout.work_of(key) + b"/" + key.path]
    found = {path: this for path in names if (this := find(path)) is not None}
    try:
        owner = Owner(layout, key, job.identity, seen.look.newest_mtime, old)
        state = read_state(resources.runc_root, owner)
    except OSError as error:
        state = State(NOTHING, f"it cannot be read: {error.strerror}")
    if state is not None and before is not None and before.id == state.id and not before.doubt:
        state = State(state.id)
    return Judged(sockets, found, state)


def _sockets(layout: Layout, job: CleanJob, seen: Seen) -> tuple[bytes, ...]:
    """Give the sockets of its shim: the one it names, and those a shim would have derived.

    An abstract one (it begins with NUL) went with its shim.
    """
    shim, key = seen.look.shim, job.key
    named = unescape(shim.socket) if shim.socket and shim.socket.startswith("/") else None
    own = layout.shim_socket(key.namespace, key.id)
    group = layout.shim_socket(key.namespace, shim.group) if shim.group else None
    return tuple(dict.fromkeys(path for path in (named, own, group) if path is not None))
