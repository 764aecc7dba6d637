"""Users: which bundles of a namespace name which shim socket; members of a pod share one.

A socket goes with the last bundle that names it. To know the last one every bundle would have to be
read for every bundle removed, so what was read is kept for a while. That is exact all the same: a
bundle that is gone by now does not count, and none that came meanwhile can name a *dead* socket,
because a new member joins only a shim that lives.
"""

import os
from typing import Final

from reconciler import kernel
from reconciler.act.going import is_going
from reconciler.clock import SystemClock
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe import documents
from reconciler.probe.door import parse_address

_FRESH_SECONDS: Final = 2.0
_SHARE: Final = 20.0  # reading may take a twentieth of the time
_LIMIT: Final = 4096
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class SocketUsers:
    """Remembers who names which socket, one namespace at a time."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._tree = b""
        self._namespace = ""
        self._users: dict[bytes, set[str]] = {}
        self._until = 0.0

    def others(self, tree: bytes, key: BundleKey, socket: bytes) -> str | None:
        """Give the id of another bundle of the namespace that names the socket and stays, if any.

        Raises:
            OSError: The namespace cannot be read.
        """
        top = os.open(tree, _DIRECTORY)
        try:
            namespace = kernel.open_beneath(top, unescape(key.namespace))
        finally:
            os.close(top)
        try:
            self._refresh(tree, key.namespace, namespace)
            ids = self._users.get(socket, set()) - {key.id}
            staying = (id_ for id_ in sorted(ids) if _stays(namespace, id_))
            return next(staying, None)
        finally:
            os.close(namespace)

    def _refresh(self, tree: bytes, name: str, namespace: int) -> None:
        now = self._clock.monotonic()
        if (tree, name) == (self._tree, self._namespace) and now < self._until:
            return
        self._users = {}
        for entry in os.listdir(namespace):
            id_ = os.fsencode(entry)
            socket = None if id_.startswith(b".") else _named_socket(namespace, id_)
            if socket is not None:
                self._users.setdefault(socket, set()).add(escape(id_))
        self._tree, self._namespace = tree, name
        took = self._clock.monotonic() - now
        self._until = now + max(_FRESH_SECONDS, took * _SHARE)


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


def _stays(namespace: int, id_: str) -> bool:
    name = unescape(id_)
    try:
        kernel.statx(namespace, name)
    except FileNotFoundError:
        return False
    return not is_going(namespace, name)
