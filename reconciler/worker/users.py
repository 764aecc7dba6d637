"""Users: which bundles of a namespace name which shim socket; members of a pod share one.

A socket goes with the last bundle that names it. To know the last one every bundle would have to be
read for every bundle removed, so what was read is kept for a while. That is exact all the same: a
bundle that is gone by now does not count, and none that came meanwhile can name a *dead* socket,
because a new member joins only a shim that lives.
"""

from typing import Final

from reconciler import kernel
from reconciler.clock import SystemClock
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe import documents
from reconciler.probe.beneath import beneath, opened, visible
from reconciler.probe.fresh import Fresh
from reconciler.probe.sockets import parse_address
from reconciler.worker.going import stays

_FRESH_SECONDS: Final = 2.0
_COST: Final = 20.0  # reading may take a twentieth of the time
_LIMIT: Final = 4096


class SocketUsers:
    """Remembers who names which socket, one namespace at a time."""

    def __init__(self, clock: SystemClock) -> None:
        self._users = Fresh(clock, _read_users, _FRESH_SECONDS, cost=_COST)

    def others(self, tree: bytes, key: BundleKey, socket: bytes) -> str | None:
        """Give the id of another bundle of the namespace that names the socket and stays, if any.

        Raises:
            OSError: The namespace cannot be read.
        """
        name = unescape(key.namespace)
        ids = self._users.get((tree, name)).get(socket, set()) - {key.id}
        with opened(tree) as top, beneath(top, name) as namespace:
            return next((id_ for id_ in sorted(ids) if stays(namespace, unescape(id_))), None)


def _read_users(where: tuple[bytes, bytes]) -> dict[bytes, set[str]]:
    """Read in a tree's namespace which sockets are named, and by which ids."""
    found: dict[bytes, set[str]] = {}
    tree, name = where
    with opened(tree) as top, beneath(top, name) as namespace:
        for id_ in visible(namespace):
            socket = _named_socket(namespace, id_)
            if socket is not None:
                found.setdefault(socket, set()).add(escape(id_))
    return found


def _named_socket(namespace: int, id_: bytes) -> bytes | None:
    """Read the socket a bundle's files name: ``bootstrap.json`` (2.x), else ``address``."""
    for name in (b"bootstrap.json", b"address"):
        try:
            said = kernel.read_beneath(namespace, id_ + b"/" + name, _LIMIT)
        except OSError:
            continue  # missing, or nothing that names a socket
        text = documents.parse_bootstrap(said)
        address = None if text is None else parse_address(text)
        if address is not None and address.is_file:
            return address.path
    return None
