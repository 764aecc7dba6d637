"""Places that a bundle's files name, or that its look begins at, on a filesystem that is dead."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.safety.ground import Ground
from tests.support.bundles import Bundle
from tests.support.deadfuse import dead_fuse
from tests.support.mountns import umount

DEAD: Final = Path("/run/far")
"""A dead filesystem is mounted here."""

_DETACH: Final = 2


def _rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def its_runtime_root(bundle: Bundle) -> None:
    _rewrite(bundle.path / "options.json", root=str(DEAD / "runc"))


def its_runtime_root_behind_a_symlink(bundle: Bundle) -> None:
    link = DEAD.with_name(f"link-{bundle.path.name}")
    link.symlink_to(f"./../{DEAD.relative_to('/')}")
    _rewrite(bundle.path / "options.json", root=str(link / "runc"))


def its_address(bundle: Bundle) -> None:
    (bundle.path / "address").write_text(f"unix://{DEAD}/s/shim")


def its_bootstrap_address(bundle: Bundle) -> None:
    said = {"version": 3, "address": f"unix://{DEAD}/s/shim", "protocol": "ttrpc"}
    (bundle.path / "bootstrap.json").write_text(json.dumps(said))


def its_socket_is_a_symlink(bundle: Bundle) -> None:
    bundle.socket.unlink()
    bundle.socket.symlink_to(DEAD / "s" / "shim")


def its_shim(bundle: Bundle) -> None:
    (bundle.path / "shim-binary-path").write_text(f"{DEAD}/bin/containerd-shim-runc-v2")


def its_links(bundle: Bundle) -> None:
    (bundle.path / "work").unlink()
    for name in ("work", "s"):
        (bundle.path / name).symlink_to(DEAD / name)


def its_cgroups(bundle: Bundle) -> None:
    _rewrite(bundle.runc_state / "state.json", cgroup_paths={"memory": str(DEAD / "group")})


ARMED: Final[tuple[Callable[[Bundle], None], ...]] = (
    its_runtime_root,
    its_runtime_root_behind_a_symlink,
    its_address,
    its_bootstrap_address,
    its_socket_is_a_symlink,
    its_shim,
    its_links,
    its_cgroups,
)
"""What one bundle can name."""

MOUNTED: Final[dict[str, Callable[[Bundle], Path]]] = {
    "the bundle": lambda bundle: bundle.path,
    "its work directory": lambda bundle: bundle.work,
    "its runtime state": lambda bundle: bundle.runc_state,
    "its socket": lambda bundle: bundle.socket,
}
"""What of one bundle may itself be dead."""

SHARED: Final[dict[str, Callable[[Ground], bytes]]] = {
    "work tree": lambda on: on.site.layout.work,
    "root": lambda on: on.site.layout.root,
    "sockets": lambda on: on.site.layout.sockets,
    "runtime root": lambda on: on.site.layout.runc_root,
}
"""Where the looks at all bundles begin."""


@contextmanager
def dead_at(*targets: Path) -> Iterator[None]:
    """Have dead filesystems mounted; in the end they are gone, and whoever waits is freed."""
    with ExitStack() as cleanup:
        for target in targets:
            server = dead_fuse(target)
            cleanup.callback(umount, target, _DETACH)
            cleanup.callback(os.close, server)
        yield


@contextmanager
def dead() -> Iterator[None]:
    """Have the place that bundles name."""
    DEAD.mkdir(exist_ok=True)
    with dead_at(DEAD):
        yield
