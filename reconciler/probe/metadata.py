"""What a bundle's own files say it is: its pod, its labels, its runtime, its shim's addresses.

Values in, values out; no disk. Whatever cannot be understood is as good as missing, and a missing
label is never a guess: a rule that protects must be able to tell that it cannot know.
"""

from collections.abc import Collection
from typing import Final

from reconciler.model.evidence import NO_LABELS, Labels, Runtime, RuntimeState
from reconciler.model.ids import BundleKey, escape, is_identifier
from reconciler.probe import documents
from reconciler.probe.documents import Annotations, Spec
from reconciler.probe.folder import Folder
from reconciler.probe.sockets import Address, parse_address

_RUNTIMES: Final = {
    name: Runtime(RuntimeState.KNOWN, escape(name))
    for name in (b"containerd-shim-runc-v1", b"containerd-shim-runc-v2")
}
_PLAIN: Final = Labels(known=True)
_NO_ANNOTATIONS: Final = Annotations()
_LONGEST: Final = 4096
"""Characters of what a rule may match on; what is longer is kept for no bundle, and not known."""


def spec_of(folder: Folder) -> Spec | None:
    """Read config.json; None if it is missing, torn or hostile."""
    data = folder.text("config.json")
    return documents.parse_spec(data) if data else None


def group_of(key: BundleKey, folder: Folder, spec: Spec | None) -> str | None:
    """Tell for which id the bundle's shim was started: a pod's members share the sandbox's.

    None if nothing says so: without config.json it may be anybody's member. What lies in the tree
    of sandboxes is nobody's.
    """
    if key.tree:
        return key.id
    noted = (spec and spec.annotations) or _NO_ANNOTATIONS
    noted_id = (noted.runc_group or noted.sandbox_id).encode("utf-8", "replace")
    named = escape(noted_id or (folder.text("sandbox") or b"").strip())
    if named:
        return named if is_identifier(named) else None
    return key.id if spec is not None else None


def labels_of(folder: Folder, spec: Spec | None, wanted: Collection[str]) -> Labels:
    """Take from config.json what rules may match on; ``wanted`` are annotations by name.

    Without it containerd's own note (2.x) may still name the pod's sandbox, which knows most of it.
    """
    data = folder.text("config.json")
    if spec is None or data is None:
        return _unknown(folder)
    noted = spec.annotations or _NO_ANNOTATIONS
    chosen: tuple[tuple[str, str], ...] = ()
    if wanted:
        extra = documents.parse_annotations(data)
        if extra is None:
            return _unknown(folder)
        chosen = tuple(sorted((name, extra[name]) for name in wanted if name in extra))
    elif noted == _NO_ANNOTATIONS and not folder.text("sandbox"):
        return _PLAIN
    named = (noted.pod_namespace, noted.pod, noted.container, noted.sandbox_id)
    if any(len(text) > _LONGEST for text in (*named, *(value for _, value in chosen))):
        return _unknown(folder)
    return Labels(
        known=True,
        pod_namespace=noted.pod_namespace,
        pod=noted.pod,
        container=noted.container,
        sandbox=noted.sandbox_id or _sandbox_of(folder),
        annotations=chosen,
    )


def _unknown(folder: Folder) -> Labels:
    sandbox = _sandbox_of(folder)
    return Labels(sandbox=sandbox) if sandbox else NO_LABELS


def _sandbox_of(folder: Folder) -> str:
    """Give the sandbox as containerd 2.x notes it beside config.json; empty if it does not."""
    sandbox = escape((folder.text("sandbox") or b"").strip())
    return sandbox if is_identifier(sandbox) else ""


def runtime_of(folder: Folder, peer: Folder | None, also: Collection[str] = ()) -> Runtime:
    """Tell the runtime by its shim's name; a pod's member may leave that to its sandbox.

    ``also`` names shims that are runc's, as the operator says.
    """
    path = folder.text("shim-binary-path")
    if path is None and folder.is_barred("shim-binary-path"):
        return Runtime(RuntimeState.NONE)
    if path is None and folder.alien:
        return Runtime(RuntimeState.ALIEN)
    if path is None and peer is not None:
        return runtime_of(peer, None, also)
    name = (path or b"").strip().rpartition(b"/")[2]
    if not name:
        return Runtime(RuntimeState.UNNAMED)
    known = _RUNTIMES.get(name)
    if known is not None:
        return known
    shown = escape(name)
    return Runtime(RuntimeState.KNOWN if shown in also else RuntimeState.ALIEN, shown)


def is_runc_shim(name: bytes, also: Collection[str] = ()) -> bool:
    """Return whether a program of this name is runc's shim; ``also`` as in :func:`runtime_of`."""
    return name in _RUNTIMES or escape(name) in also


def addresses_of(folder: Folder) -> tuple[Address, ...]:
    """Give the shim's addresses that files name, the newer file's first."""
    bootstrap = folder.text("bootstrap.json")
    newer = documents.parse_bootstrap(bootstrap) if bootstrap else None
    found = []
    for text in (newer, folder.text("address")):
        address = parse_address(text) if text else None
        if address is not None:
            found.append(address)
    return tuple(found)
