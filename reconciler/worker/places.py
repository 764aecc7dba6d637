"""Places: directories outside the bundle that carry its id, removed below a root we were told.

The root comes from the configuration and may itself be a symlink; below it nothing is followed and
no mount is crossed. Which object the name meant was asked when the bundle was judged, and no other
is removed: it is held open and compared, so that its number cannot be another's meanwhile.

A runtime's state is shared between the containerds of a node. It is taken out of use by a rename
first, as a bundle is, and looked at again: whoever made another of that name has it still, or has
got it back, whole.
"""

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe.beneath import beneath, opened
from reconciler.worker.objects import HIDDEN, ObjectId, check_object, object_of
from reconciler.worker.record import Kept, Tally
from reconciler.worker.removal import remove_tree
from reconciler.worker.states import Owner, State, read_state

_HANDLE: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


def remove_place(
    root: bytes, key: BundleKey, judged: ObjectId | None, tally: Tally, stop: Callable[[], bool]
) -> None:
    """Remove ``<root>/<namespace>/<id>`` and all below it.

    Raises:
        Kept: It is not the object that was judged.
        Blocked: A mount, a symlink or the kernel is in the way.
        FileNotFoundError: There is no such directory.
        OSError: It could not even be looked at.
    """
    with opened(root, os.O_PATH) as top, beneath(top, unescape(key.namespace)) as parent:
        _Place(parent, tally, stop).remove(unescape(key.id), judged, key.id)


def remove_state(
    root: bytes, owner: Owner, judged: State | None, tally: Tally, stop: Callable[[], bool]
) -> None:
    """Remove a runtime's state directory ``<root>/<id>``, if it was shown to be the bundle's.

    Raises:
        Kept: It was not, or another has its name by now.
        Blocked: A mount, a symlink or the kernel is in the way.
        FileNotFoundError: There is no such directory.
        OSError: It could not even be looked at.
    """
    base, _, namespace = root.rpartition(b"/")
    id_, what = unescape(owner.key.id), f"runc's state of {owner.key.id}"
    hidden = HIDDEN + id_
    with opened(base, os.O_PATH) as top, beneath(top, namespace) as parent:
        place = _Place(parent, tally, stop)
        begun = read_state(root, owner, hidden)
        if begun is not None and begun.doubt:
            place.rename(hidden, id_)
        elif begun is not None:
            place.remove(hidden, begun.id, escape(hidden))
        found = kernel.statx(parent, id_)
        if judged is not None and judged.doubt:
            raise Kept(f"{what} is kept: {judged.doubt}")
        check_object(found, judged.id if judged else None, what)
        place.rename(id_, hidden)
        if judged is None or object_of(kernel.statx(parent, hidden)) != judged.id:
            place.rename(hidden, id_)
            raise Kept(f"{what} is another one than was judged")
        place.remove(hidden, judged.id, what)


class _Place(NamedTuple):
    """A directory that holds what is removed, and what every removal there needs."""

    parent: int
    tally: Tally
    stop: Callable[[], bool]

    def rename(self, old: bytes, new: bytes) -> None:
        kernel.renameat2(self.parent, old, self.parent, new)
        self.tally.add()

    def remove(self, name: bytes, judged: ObjectId | None, what: str) -> None:
        handle = kernel.openat2(self.parent, name, _HANDLE, kernel.RESOLVE_STRICT)
        try:
            check_object(kernel.statx_handle(handle), judged, what)
            if judged is not None:
                removed = remove_tree(self.parent, name, judged.identity, self.stop)
                self.tally.add(removed.entries)
        finally:
            os.close(handle)
