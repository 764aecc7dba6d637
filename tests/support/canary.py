"""Canary: data that must survive, and proof that it did or did not."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

Entry = tuple[int, int, str]  # mode, inode, hash of the content


@dataclass(frozen=True)
class Canary:
    """A small tree somewhere, and what it was when it was planted."""

    root: Path
    planted: dict[Path, Entry]

    def intact(self) -> bool:
        """Exactly what was planted is there: same names, types, inodes, content."""
        return snapshot(self.root) == self.planted

    def lost(self) -> list[Path]:
        """Name what was planted and is gone or different; what was added does not matter."""
        now = snapshot(self.root)
        return [path for path, entry in self.planted.items() if now.get(path) != entry]

    def missing(self) -> list[Path]:
        """Name what is gone, without reading what is there: cheap enough for every turn."""
        return [path for path in self.planted if not os.path.lexists(path)]


def plant(root: Path, *, files: int = 3) -> Canary:
    """Fill a directory with what a naive cleaner would love to find."""
    (root / "deep" / "er").mkdir(parents=True)
    for number in range(files):
        (root / f"data-{number}").write_bytes(os.urandom(64))
        (root / "deep" / f"data-{number}").write_bytes(os.urandom(64))
    (root / "deep" / "er" / "last").write_bytes(os.urandom(64))
    (root / "link").symlink_to("deep/er/last")
    return Canary(root, snapshot(root))


def snapshot(root: Path) -> dict[Path, Entry]:
    """Describe everything at and below ``root``; nothing, if it is not there."""
    found: dict[Path, Entry] = {}
    if not root.exists():
        return found
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        digest = hashlib.sha256(content).hexdigest()
        found[path] = (status.st_mode, status.st_ino, digest)
    return found
