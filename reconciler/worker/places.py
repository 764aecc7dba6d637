"""Places: directories outside the bundle that carry its id, removed below a root we were told.

The root comes from the configuration and may itself be a symlink; below it nothing is followed and
no mount is crossed. Which object the name meant was asked when the bundle was judged, and no other
is removed: it is held open and compared, so that its number cannot be another's meanwhile.

A runtime's state is shared between the containerds of a node. It is taken out of use by a rename
first, as a bundle is, and looked at again: whoever made another of that name has it still, or has
got it back, whole.
"""

import os
from typing import Final

from reconciler import kernel
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe.beneath import beneath, opened
from reconciler.worker.objects import HIDDEN, Aside, ObjectId, check_object
from reconciler.worker.record import Kept, Tally
from reconciler.worker.removal import remove_tree
from reconciler.worker.states import Owner, State, read_state

_HANDLE: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


def remove_place(root: bytes, key: BundleKey, judged: ObjectId | None, tally: Tally) -> None:
    """Remove ``<root>/<namespace>/<id>`` and all below it.

    Raises:
        Kept: It is not the object that was judged.
        Blocked: A mount, a symlink or the kernel is in the way.
        OSError: It could not even be looked at; FileNotFoundError if there is none.
    """
    with opened(root, os.O_PATH) as top, beneath(top, unescape(key.namespace)) as parent:
        _remove(parent, unescape(key.id), judged, key.id, tally)


def remove_state(root: bytes, owner: Owner, judged: State | None, tally: Tally) -> None:
    """Remove a runtime's state directory ``<root>/<id>``, if it was shown to be the bundle's.

    Raises as :func:`remove_place` does, Kept also if another has its name by now.
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
    handle = kernel.openat2(parent, name, _HANDLE, kernel.RESOLVE_STRICT)
    try:
        check_object(kernel.statx_handle(handle), judged, what)
        if judged is not None:
            remove_tree(parent, name, judged.identity, tally)
    finally:
        os.close(handle)
