"""The checkpoint: what survives a restart so that waiting does not begin anew. Never for safety.

A small JSON file, replaced atomically, that says for each leftover since when it has been one and
for each bundle when it was last seen alive. It counts only within the same boot, only for the same
object, and a memory may only delay a removal or spare it a second waiting; verdicts never rest on
it. A missing, torn or hostile checkpoint is an empty one.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from reconciler.decide.nodestate import has_usual_cgroup
from reconciler.decide.track import Track
from reconciler.kernel import private
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.observations import Remembered, Stamp

VERSION: Final = 1
DIRECTORY: Final = "/run/containerd-reconciler"
MAX_BYTES: Final = 64 * 1024 * 1024
FRESH: Final = 120.0
"""A grace goes on over a restart only if the checkpoint is no older than this, in seconds."""


NONE: Final[Mapping[BundleKey, float]] = {}


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One bundle: names as shown, the object, and two monotonic times (or null).

    ``cgroup_until``: when it was last seen with the usual cgroup, seconds since the epoch (or
    null); of one that is gone the object is all zero.
    """

    namespace: str
    id: str
    dev: int
    ino: int
    mount_id: int
    last_alive: float | None
    leftover_since: float | None
    cgroup_until: float | None = None
    tree: str = ""


class Page(msgspec.Struct, frozen=True):
    """The whole file."""

    version: int
    boot_id: str
    written: float
    entries: list[Entry]


def place(environ: Mapping[str, str], layout: Layout) -> str:
    """Say where the checkpoint of a state tree is kept: in the runtime directory."""
    directory = environ.get("RUNTIME_DIRECTORY", "").split(":", 1)[0] or DIRECTORY
    return os.path.join(
        directory, f"checkpoint-{hashlib.sha256(layout.tasks).hexdigest()[:12]}.json"
    )


def boot_id() -> str:
    """Name the running boot (proc(5), ``/proc/sys/kernel/random/boot_id``)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write(
    path: str,
    boot: str,
    now: Stamp,
    tracks: Iterable[Track],
    gone: Mapping[BundleKey, float] = NONE,
) -> None:
    """Replace the checkpoint; bundles of which nothing is to be kept are left out.

    Args:
        path: Where it is.
        boot: The boot's id.
        now: The time.
        tracks: What is remembered of the bundles that are there.
        gone: Bundles that are not and have left their usual cgroup, and when that was last seen.

    Raises:
        OSError: It could not be written; the old one is still there.
    """
    entries = [
        Entry(
            track.key.namespace,
            track.key.id,
            track.identity.dev,
            track.identity.ino,
            track.identity.mount_id,
            track.last_alive,
            track.leftover_since,
            _seen_until(track, now) if has_usual_cgroup(track.key, track.look) else None,
            track.key.tree,
        )
        for track in tracks
        if track.last_alive is not None or track.leftover_since is not None
    ]
    entries += [
        Entry(key.namespace, key.id, 0, 0, 0, None, None, until) for key, until in gone.items()
    ]
    data = msgspec.json.encode(Page(VERSION, boot, now.mono, entries))
    directory, name = os.path.split(path)
    handle = private.open_directory(directory)
    try:
        with open(private.open_file(handle, f"{name}.new", os.O_WRONLY), "wb") as file:
            file.truncate(0)
            file.write(data)
        os.replace(f"{name}.new", name, src_dir_fd=handle, dst_dir_fd=handle)
    finally:
        os.close(handle)


def _seen_until(track: Track, now: Stamp) -> float:
    """Give the time of the last look, seconds since the epoch."""
    return now.wall - (now.mono - track.looked_at)


def read(path: str, boot: str, now: float) -> list[Remembered]:
    """Read the checkpoint of an earlier run; empty if there is none that counts."""
    page: Page | None = None
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if os.fstat(fd).st_uid != os.geteuid():
                return []  # somebody else's memory
            page = msgspec.json.decode(file.read(MAX_BYTES), type=Page)
    if page is None or page.version != VERSION or page.boot_id != boot or page.written > now:
        return []
    goes_on = now - page.written <= FRESH
    return [
        Remembered(
            BundleKey(entry.namespace, entry.id, entry.tree),
            Identity(entry.dev, entry.ino, entry.mount_id),
            last_alive=entry.last_alive,
            leftover_since=entry.leftover_since if goes_on else None,
            cgroup_until=entry.cgroup_until,
        )
        for entry in page.entries
        if (entry.last_alive or 0.0) <= now and (entry.leftover_since or 0.0) <= now
    ]
