"""Boots: which bundles were there before this boot, by what a daemon wrote down. Reads only.

A state tree on a disk outlives a boot, and the pids in its bundles do not: whoever has one now is
somebody else. That must be known, and file times do not tell it, for a wall clock can be set: what
was made a minute after this boot, before the clock was right, looks years older than it. So a
daemon that sees a bundle writes down which object it is, by inode and time of birth, and in which
boot, by the kernel's own id of that. The name is taken while that object stands (containerd's
``mkdir`` refuses), so an object that another boot has seen is of no task of this one. What nobody
has seen then is not known to be old, and stays as it is.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from glob import glob
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from reconciler import kernel
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe.process import read_boot_time, read_whole

DIRECTORY: Final = "/var/lib/containerd-reconciler"
VERSION: Final = 1
MOST: Final = 64 * 1024 * 1024
"""Bytes of a record that are read."""

_BOOT_ID: Final = b"/proc/sys/kernel/random/boot_id"
_OTHERS_WRITE: Final = 0o022


class Born(NamedTuple):
    """Which object a bundle is, over boots: device and mount have other numbers in each."""

    namespace: str
    id: str
    ino: int
    btime_ns: int


class Record(msgspec.Struct, frozen=True):
    """The whole file.

    Attributes:
        boot: The kernel's id of the boot in which it was written.
        seen: What was seen in that boot.
        earlier: What is still there of what was seen in boots before it.
    """

    version: int
    boot: str
    seen: list[Born] = []
    earlier: list[Born] = []


def place(environ: Mapping[str, str], layout: Layout) -> bytes:
    """Say where the record of a state tree is kept; empty if there is none, nor a place for it.

    A service manager gives a daemon its directory; any other command looks into those of all.
    """
    name = f"boots-{sha256(layout.tasks).hexdigest()[:12]}.json"
    given = environ.get("STATE_DIRECTORY", "").split(":", 1)[0]
    if given:
        return os.fsencode(os.path.join(given, name))
    found = (one for top in (DIRECTORY, f"{DIRECTORY}/*") for one in sorted(glob(f"{top}/{name}")))
    return os.fsencode(next(found, ""))


def boot_id() -> str:
    """Give the kernel's id of this boot; empty if something else is shown in its place."""
    with suppress(OSError, ValueError):
        if not kernel.statx(kernel.AT_FDCWD, _BOOT_ID).is_mount_root:
            return read_whole(_BOOT_ID).decode("ascii").strip()
    return ""


def born(key: BundleKey, seen: kernel.Stat) -> Born | None:
    """Name an object; None where its filesystem does not keep when it was born."""
    return Born(key.namespace, key.id, seen.ino, seen.btime_ns) if seen.btime_ns else None


def is_older(written: float | None) -> bool:
    """Return whether a file was written before this boot, by the clock as it goes now.

    No proof, and only asked besides one: somebody may have written to an old bundle since.
    """
    booted = read_boot_time()
    return written is not None and booted is not None and written < booted


def read(path: bytes, boot: str) -> frozenset[Born]:
    """Give what was there before this boot; nothing if that is not certain.

    Args:
        path: The record; empty for none.
        boot: The id of this boot; empty if it is not known.
    """
    record: Record | None = None
    with suppress(OSError, msgspec.MsgspecError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
                return frozenset()  # somebody else's
            record = msgspec.json.decode(file.read(MOST), type=Record)
    if record is None or record.version != VERSION or not (boot and record.boot):
        return frozenset()
    later = record.seen if record.boot != boot else []
    return frozenset((*record.earlier, *later))
