"""Layout: where containerd and runc keep what belongs to a bundle. Names only, no disk.

Sources: containerd `runtime/v2/manager.go` (state and work trees), `runtime/v2/shim/util_unix.go`
(`SocketAddress`), `metadata` plugin (bolt file), runc's `--root`. Shim sockets, client FIFOs and
runc's state live in containerd's compiled-in default directory whatever `state` says.
"""

import hashlib
from typing import Final

import msgspec

from reconciler.model.ids import SANDBOX_TREE, TASK_TREE, BundleKey, unescape

TASKS: Final = b"io.containerd.runtime.v2.task"
"""Name of the state tree (and of the work tree) below containerd's state (and root) directory."""

SANDBOXES: Final = b"io.containerd.sandbox.controller.v1.shim"
"""Name of the tree in which 2.x keeps a directory of each pod that a shim serves as its sandbox."""

DEFAULT_STATE: Final = b"/run/containerd"
DEFAULT_ROOT: Final = b"/var/lib/containerd"
DEFAULT_ADDRESS: Final = b"/run/containerd/containerd.sock"


class Layout(msgspec.Struct, frozen=True):
    """The directories of one containerd. All paths are absolute, as bytes, without a final slash.

    Attributes:
        state: containerd's state directory; the watched tree is below it.
        root: containerd's persistent directory; work dirs and the metadata lock are below it.
        address: containerd's gRPC socket.
        runc_shims: Names of shims' binaries that are runc's besides containerd's own.
        runtime_dir: Where shims put sockets and runc its state, unless options.json says otherwise.
        boots: Our own record of what was there in earlier boots; empty where a boot empties the
            tree, or nobody may act on one that it does not (`reconciler.probe.boots`).
    """

    state: bytes = DEFAULT_STATE
    root: bytes = DEFAULT_ROOT
    address: bytes = DEFAULT_ADDRESS
    runtime_dir: bytes = DEFAULT_STATE
    runc_shims: tuple[str, ...] = ()
    boots: bytes = b""

    @property
    def tasks(self) -> bytes:
        """The state tree: ``<state>/io.containerd.runtime.v2.task``."""
        return self.state + b"/" + TASKS

    @property
    def sandboxes(self) -> bytes:
        """The tree of sandboxes: ``<state>/io.containerd.sandbox.controller.v1.shim``."""
        return self.state + b"/" + SANDBOXES

    def tree(self, name: str) -> bytes:
        """The state tree of this name, as keys have it."""
        return self.sandboxes if name else self.tasks

    def tree_of(self, key: BundleKey) -> bytes:
        """The state tree that a bundle is in."""
        return self.tree(key.tree)

    @property
    def sandbox_work(self) -> bytes:
        """The work tree of sandboxes: ``<root>/io.containerd.sandbox.controller.v1.shim``."""
        return self.root + b"/" + SANDBOXES

    def work_of(self, key: BundleKey) -> bytes:
        """The tree in which the work directories of such bundles are."""
        return self.sandbox_work if key.tree else self.work

    def key_at(self, path: bytes, namespace: str, id_: str) -> BundleKey:
        """Give the key of what bears this name at a path in one of the trees."""
        trees = (self.sandboxes + b"/", self.sandbox_work + b"/")
        return BundleKey(namespace, id_, SANDBOX_TREE if path.startswith(trees) else TASK_TREE)

    @property
    def work(self) -> bytes:
        """The work tree: ``<root>/io.containerd.runtime.v2.task``."""
        return self.root + b"/" + TASKS

    @property
    def metadata_lock(self) -> bytes:
        """The bolt file on which a living containerd holds a flock."""
        return self.root + b"/io.containerd.metadata.v1.bolt/meta.db"

    @property
    def sockets(self) -> bytes:
        """Directory of the shims' sockets."""
        return self.runtime_dir + b"/s"

    @property
    def own_sockets(self) -> bytes:
        """Directory of the shims' sockets where containerd keeps them with its state (2.3 can)."""
        return self.state + b"/s"

    @property
    def fifos(self) -> bytes:
        """Directory of the clients' FIFO directories."""
        return self.runtime_dir + b"/fifo"

    @property
    def runc_root(self) -> bytes:
        """runc's root where options.json names no other; the namespace is a directory below it."""
        return self.runtime_dir + b"/runc"

    def bundle(self, key: BundleKey) -> bytes:
        """Path of a bundle, for messages and for comparing with mountinfo; never for removal."""
        return self.tree_of(key) + b"/" + key.path

    def shim_socket(self, namespace: str, group: str, address: bytes | None = None) -> bytes:
        """Path of the socket a shim derives from containerd's address, namespace and group id."""
        return self.sockets + b"/" + self.shim_digest(namespace, group, address)

    def shim_digest(self, namespace: str, group: str, address: bytes | None = None) -> bytes:
        """The name of that socket."""
        named = b"/".join((address or self.address, unescape(namespace), unescape(group)))
        return hashlib.sha256(named).hexdigest().encode()
