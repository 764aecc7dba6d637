"""Where the race takes place: bundles to take apart, canaries, and a living bundle."""

import os
from pathlib import Path
from typing import Final

from reconciler import kernel
from reconciler.probe.beneath import identity_of
from tests.safety.removers import Job
from tests.support.canary import plant
from tests.support.mountns import tmpfs

PLACES: Final = (b"rootfs", b"rootfs/data", b"extra", b"a", b"a/b", b"a/b/c")
VICTIMS: Final = (b"victim-0", b"victim-1", b"victim-2")
FILES: Final = (b"config.json", b"a/file", b"a/b/c/file")


class Arena:
    """A tmpfs with the bundles; canaries on it and beside it, and a living bundle."""

    def __init__(self, top: Path) -> None:
        self.top = top / "arena"
        self.top.mkdir()
        tmpfs(self.top, "size=256m")
        for name in ("tree", "nursery", "stash", "homes"):
            (self.top / name).mkdir()
        self.tree = self.top / "tree"
        self.homes = self.top / "homes"
        self.canaries = [plant(self.top / "same"), plant(top / "other")]
        self.alive = plant(self.top / "alive")
        self.parent = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        # By a handle, since the attacker moves it about.
        self._alive_fd = os.open(self.alive.root, os.O_RDONLY | os.O_DIRECTORY)
        self._made = 0

    def new_job(self, name: bytes) -> Job:
        """Put a bundle in its place, judged while it was still out of the attackers' reach."""
        self._made += 1
        made = self.top / "nursery" / str(self._made)
        for place in PLACES:
            (made / os.fsdecode(place)).mkdir(parents=True, exist_ok=True)
            if place != b"extra":  # stays empty, so that an attacker can drop it without a care
                (made / os.fsdecode(place) / "file").touch()
        (made / "config.json").touch()
        os.mkfifo(made / "log")
        fd = os.open(made, os.O_PATH)
        expected = identity_of(kernel.statx_handle(fd))
        os.close(fd)
        made.rename(self.tree / os.fsdecode(name))
        return Job(self.parent, self.tree, name, expected)

    def missing(self) -> list[Path]:
        """Name what is gone: a quick look, for every pass."""
        gone = [path for canary in self.canaries for path in canary.missing()]
        for path in self.alive.planted:
            try:
                os.stat(
                    path.relative_to(self.alive.root), dir_fd=self._alive_fd, follow_symlinks=False
                )
            except FileNotFoundError:
                gone.append(path)
        return gone

    def lost(self) -> list[Path]:
        """Name what is gone or different: a close look, for the end."""
        return [*self.missing(), *(path for canary in self.canaries for path in canary.lost())]
