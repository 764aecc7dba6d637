"""Places: directories outside the bundle that carry its id, removed below a root we were told.

The root comes from the configuration and may itself be a symlink; below it nothing is followed and
no mount is crossed. Which object the name means is asked just before, and no other is removed. The
bundle still exists, so containerd cannot give its id, and with it these names, to another task.
"""

import os
import stat
from collections.abc import Callable
from typing import Final

from reconciler import kernel
from reconciler.act.record import Kept, Tally
from reconciler.act.removal import remove_tree
from reconciler.model.ids import BundleKey, Identity, show

_ROOT: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

RUNC_FILES: Final = (b"state.json", b"exec.fifo", b"notify.sock")
"""What runc keeps in a state directory, besides its temporary ``state-*``."""


def remove_place(root: bytes, key: BundleKey, tally: Tally, stop: Callable[[], bool]) -> bool:
    """Remove ``<root>/<namespace>/<id>`` and all below it.

    Returns:
        Whether there was such a directory.

    Raises:
        Blocked: A mount, a symlink or the kernel is in the way.
        OSError: It could not even be looked at.
    """
    try:
        parent = _open_namespace(root, key.namespace)
    except FileNotFoundError:
        return False
    try:
        found = kernel.statx(parent, key.id)
        identity = Identity(found.dev, found.ino, found.mount_id)
        tally.add(remove_tree(parent, key.id, identity, stop).entries)
    except FileNotFoundError:
        return False
    finally:
        os.close(parent)
    return True


def check_runc_state(root: bytes, key: BundleKey) -> None:
    """Make sure that ``<root>/<namespace>/<id>`` looks like runc's, where a file named the root.

    Raises:
        Kept: It holds something that runc does not write.
        FileNotFoundError: There is no such directory.
    """
    parent = _open_namespace(root, key.namespace)
    try:
        state = kernel.open_beneath(parent, key.id)
    finally:
        os.close(parent)
    try:
        if os.fstat(state).st_uid != os.geteuid():
            raise Kept("runc's state directory belongs to somebody else")
        for entry in os.listdir(state):
            name = os.fsencode(entry)
            if name not in RUNC_FILES and not name.startswith(b"state-"):
                raise Kept(f"{show(name)} in runc's state directory is not runc's")
            found = os.stat(name, dir_fd=state, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise Kept(f"{show(name)} in runc's state directory is a directory")
    finally:
        os.close(state)


def _open_namespace(root: bytes, namespace: bytes) -> int:
    top = os.open(root, _ROOT)
    try:
        return kernel.open_beneath(top, namespace)
    finally:
        os.close(top)
