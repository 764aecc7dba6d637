"""Does the shim live? Asked of its socket, because a pod's containers share one shim.

A shim names its socket in ``bootstrap.json`` or ``address``; where neither does, or what they name
is dead, the sockets that a shim would derive are tried. The most alive answer wins. A socket that
refuses is a dead shim's. One that is not there is no more than a name: it says who is dead only if
the bundle's files tell for which id its shim was started.

Only sockets where containerd's shims listen are ever connected to: root's connection to any other
one could start a service (systemd.socket(5)), and a file can name any. Elsewhere is no answer.
"""

import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.evidence import Shim, ShimState
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.probe.handles import Handles
from reconciler.probe.sockets import GONE, Address, SocketProbe

# On Python 3.11 it takes ten times as long to name a member of an enumeration as to find one.
_ALIVE, _DEAD, _NO_ANSWER = ShimState.ALIVE, ShimState.DEAD, ShimState.NONE
_COVERED: Final = kernel.STATX_ATTR_MOUNT_ROOT | kernel.STATX_ATTR_AUTOMOUNT
_ABSTRACT: Final = b"\0/containerd-shim/"
"""How the abstract names of shims before containerd 1.4 began."""


class Names(NamedTuple):
    """What is known about a shim before it is asked.

    Attributes:
        group: Id the shim was started for; None if that cannot be known.
        id: The bundle's own id.
        named: Addresses that files name, best first.
    """

    namespace: str
    group: str | None
    id: str
    named: tuple[Address, ...] = ()


def ask(
    names: Names,
    layout: Layout,
    sockets: "SocketProbe",
    handles: Handles,
    addresses: Iterable[bytes] = (),
) -> Shim:
    """Find out whether the shim lives.

    ``addresses`` are further containerd addresses that a shim may have been started with.
    """
    asked: dict[bytes, tuple[ShimState, str]] = {}
    silent: bytes | None = None
    for address in (*names.named, *map(Address, derived(names, layout, addresses))):
        path = address.path
        if path in asked:
            continue
        state, detail = asked[path] = _probe(address, layout, sockets, handles)
        if state is _ALIVE:
            return Shim(state, escape(path), names.group, None, detail)
        if state is _NO_ANSWER and silent is None:
            silent = path
    if silent is not None:
        return Shim(_NO_ANSWER, escape(silent) or None, names.group, None, asked[silent][1])
    if not names.named:
        return Shim(ShimState.UNNAMED, None, names.group, None, "no file names its socket")
    path = names.named[0].path
    if names.group is None and all(asked[one.path][1] == GONE for one in names.named):
        # A torn address leads nowhere, and a living shim's socket can be lost. With nothing that
        # tells its pod, either, any shim of the namespace might serve it.
        return Shim(ShimState.UNNAMED, None, None, None, f"{GONE}, and no file tells its pod")
    return Shim(_DEAD, escape(path), names.group, None, asked[path][1])


def _probe(
    address: Address, layout: Layout, sockets: "SocketProbe", handles: Handles
) -> tuple[ShimState, str]:
    """Probe where shims listen, and nowhere else: through no symlink and at nothing mounted."""
    path = address.path
    directory, _, name = path.rpartition(b"/")
    is_file = address.is_file
    if is_file:
        is_of_shims = directory == layout.sockets or directory == layout.own_sockets  # noqa: PLR1714 - the second is seldom asked for
    else:
        is_of_shims = not path or path.startswith(_ABSTRACT)
    if not is_of_shims:
        return ShimState.NONE, f"{escape(path)} is no place of containerd's shims"
    if not is_file:
        return sockets.probe(address)
    try:
        fd = handles.named(directory)
        seen = kernel.statx(fd, name)
    except FileNotFoundError:
        return _DEAD, GONE
    except OSError as error:
        return ShimState.NONE, error.strerror or str(error)
    if stat.S_ISLNK(seen.mode) or seen.attributes & _COVERED:
        return ShimState.NONE, "something else has its socket's name"
    return sockets.probe(Address(b"/proc/self/fd/%d/%s" % (fd, name)))


def derived(names: Names, layout: Layout, addresses: Iterable[bytes] = ()) -> tuple[bytes, ...]:
    """Give the sockets a shim of this bundle or of its group would derive."""
    group, id_ = names.group or names.id, names.id
    ids = (group,) if group == id_ else (group, id_)
    return tuple(
        [
            layout.shim_socket(names.namespace, one, address)
            for address in dict.fromkeys((layout.address, *addresses))
            for one in ids
        ]
    )
