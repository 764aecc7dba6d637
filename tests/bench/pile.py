"""Piles of made-up bundles at containerd's usual place, in a mount namespace of their own."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace
from typing_extensions import override

from reconciler.demo.node import Process
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from tests.support import mountns
from tests.support.bundles import Bundle, Site

T = TypeVar("T")

STATE: Final = Path("/run/containerd")
_ADDRESS: Final = STATE / f"bench-{os.getpid()}.sock"
"""Nobody else's, so that no other pile's shim, in its own mount namespace, is taken for ours."""
PATIENCE: Final = 1800.0
LONG_AGO: Final = time.time() - 9 * 86400.0
"""So old that `find -mtime +7` finds them."""


class Pile(Site):
    """A site whose state directory is the usual one, so that shims and runc lie there, too."""

    @property
    @override
    def run(self) -> Path:
        return STATE

    @property
    @override
    def layout(self) -> Layout:
        return replace(super().layout, address=os.fsencode(_ADDRESS))

    def heap(self, count: int, *, mounted: bool = False, cgroups: bool = False) -> list[Bundle]:
        """Make many dead bundles."""
        made = [
            self.bundle(f"c{number}", mounted=mounted, cgroups=cgroups) for number in range(count)
        ]
        for bundle in made:
            for path in bundle.path.iterdir():
                if not path.is_dir() or path.is_symlink():
                    os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
            os.utime(bundle.path, (LONG_AGO, LONG_AGO))
        return made

    def words(self, *said: str) -> list[str | bytes | Path]:
        """Make a command line of the product for this tree."""
        where = ("--state", STATE, "--root", self.base / "lib", "--address", _ADDRESS)
        return [sys.executable, "-m", "reconciler", *where, *said]


def with_pile(work: Callable[[Pile], T]) -> T:
    """Do some work on an empty pile in a mount namespace that ends with it.

    containerd is provably down there, and a process that looks like a shim lives beside the pile,
    so that the guards have somebody to compare with.
    """

    def body() -> T:
        with tempfile.TemporaryDirectory() as base, _pile(Path(base)) as pile, _shim(pile):
            return work(pile)

    return mountns.in_private_mounts(body, PATIENCE)


@contextlib.contextmanager
def _pile(base: Path) -> Iterator[Pile]:
    mountns.tmpfs("/run", "size=1m")
    pile = Pile(base)
    try:
        for place in (pile.run, pile.base / "lib"):
            mountns.mount(None, place, None, mountns.MS_REMOUNT, "size=60%,nr_inodes=0")
        lock = Path(os.fsdecode(pile.layout.metadata_lock))
        lock.parent.mkdir()
        lock.write_bytes(b"")
        yield pile
    finally:
        pile.close()
        for place in (pile.run, pile.base / "lib", Path("/run")):
            mountns.umount(place, mountns.MNT_DETACH)


@contextlib.contextmanager
def _shim(pile: Pile) -> Iterator[None]:
    """Have a shim whose bundle was removed under it: the pile stays as large as it is made."""
    place = pile.layout.bundle(BundleKey("bench", "keeper"))
    os.makedirs(place)
    words = ["containerd-shim-runc-v2", "-namespace", "bench", "-id", "keeper"]
    shim = Process([*words, "-address", str(_ADDRESS)], cwd=place)
    os.rmdir(place)
    os.rmdir(os.path.dirname(place))
    try:
        yield
    finally:
        shim.end()
