"""Canary: data that must survive, with a hash to prove that it did."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Canary:
    """A small tree somewhere, and what it was when it was planted."""

    root: Path
    fingerprint: str

    def intact(self) -> bool:
        return fingerprint(self.root) == self.fingerprint


def plant(root: Path, *, files: int = 3) -> Canary:
    """Fill a directory with what a naive cleaner would love to find."""
    (root / "deep" / "er").mkdir(parents=True)
    for number in range(files):
        (root / f"data-{number}").write_bytes(os.urandom(64))
        (root / "deep" / f"data-{number}").write_bytes(os.urandom(64))
    (root / "deep" / "er" / "last").write_bytes(os.urandom(64))
    (root / "link").symlink_to("deep/er/last")
    return Canary(root, fingerprint(root))


def fingerprint(root: Path) -> str:
    """Hash names, types, inodes and content of everything at and below ``root``."""
    digest = hashlib.sha256()
    for path in sorted([root, *root.rglob("*")], key=os.fsencode):
        found = path.lstat()
        name = os.fsencode(path.relative_to(root))
        digest.update(b"%d:%s:%o:%d;" % (len(name), name, found.st_mode, found.st_ino))
        if stat.S_ISREG(found.st_mode):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        elif stat.S_ISLNK(found.st_mode):
            digest.update(os.fsencode(path.readlink()))
    return digest.hexdigest()
