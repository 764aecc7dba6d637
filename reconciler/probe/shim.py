"""Does the shim live? Asked of its socket, because a pod's containers share one shim.

A shim names its socket in ``bootstrap.json`` or ``address``; where neither does, or what they name
is dead, the sockets that a shim would derive are tried. The most alive answer wins.
"""

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.model.evidence import Shim, ShimState
from reconciler.model.layout import Layout
from reconciler.probe.door import Address, Door


class Names(NamedTuple):
    """What is known about a shim before it is asked.

    Attributes:
        namespace: containerd's namespace.
        group: Id the shim was started for; None if that cannot be told.
        id: The bundle's own id.
        named: Addresses that files name, best first.
    """

    namespace: bytes
    group: bytes | None
    id: bytes
    named: tuple[Address, ...] = ()


def ask(names: Names, layout: Layout, door: "Door", addresses: Iterable[bytes] = ()) -> Shim:
    """Find out whether the shim lives.

    Args:
        names: What the bundle's files say.
        layout: Where shims put their sockets, and containerd's own address.
        door: Does the knocking.
        addresses: Further containerd addresses a shim may have been started with.
    """
    asked: dict[bytes, tuple[ShimState, str]] = {}
    for address in (*names.named, *map(Address, derived(names, layout, addresses))):
        if address.path in asked:
            continue
        state, detail = door.knock(address)
        if state is ShimState.ALIVE:
            return Shim(state, address.path, names.group, None, detail)
        asked[address.path] = state, detail
    for path, (state, detail) in asked.items():
        if state is ShimState.NONE:
            return Shim(state, path or None, names.group, None, detail)
    if not names.named:
        return Shim(ShimState.UNNAMED, None, names.group, None, "no file names its socket")
    path = names.named[0].path
    return Shim(ShimState.DEAD, path, names.group, None, asked[path][1])


def derived(names: Names, layout: Layout, addresses: Iterable[bytes] = ()) -> tuple[bytes, ...]:
    """Give the sockets a shim of this bundle or of its group would derive."""
    ids = dict.fromkeys((names.group or names.id, names.id))
    found = dict.fromkeys((layout.address, *addresses))
    return tuple(
        layout.shim_socket(names.namespace, group, address) for address in found for group in ids
    )
