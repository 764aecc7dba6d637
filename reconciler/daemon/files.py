"""Configuration files that change: editors rename over them, Kubernetes swaps a symlink above them.

Watched are the directories in which a name on the way to a file stands, so that a change of the
file, of a link to it, or of a directory of drop-ins is seen. An event is only a hint: now and then,
and whenever other directories are to be watched, the files are compared with what they were.

The watcher is asked every two seconds and not waited for in a thread: such a thread cannot be
interrupted, and would hold up the end of the daemon.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import anyio
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from reconciler.settings.files import USUAL

QUIET: Final = 2.0
"""Seconds between two questions, and without a change before a file is read: half a file could lack
its protecting rules."""

_RESTLESS: Final = 5
"""Questions after which a file that never comes to rest is read all the same."""

_COMPARE: Final = 150
"""Questions between two comparisons: an event may be lost, or never come from a network."""

_PLAIN: Final = (False, False, 0, False, False)
"""No debugging, no polling and its pause, no subdirectories, no mercy on missing permissions."""

_MILLISECOND: Final = 1
_MOST_LINKS: Final = 40

Looks = tuple[tuple[str, tuple[int, ...]], ...]
"""What each file looked like: device, inode, size, modification; empty if it was not there."""


class ConfigFiles:
    """The files of the configuration, and what they look like.

    To be made before they are read, so that a change in between is noticed.

    Args:
        config: The only file to read, None for the usual places.
    """

    def __init__(self, config: str | None) -> None:
        self._config = config
        self._before = looks(self.names())

    def names(self) -> tuple[str, ...]:
        """Name the files that count now, and those that would if they were there."""
        return usual_files() if self._config is None else (self._config,)

    async def changes(self, trouble: Callable[[str], None]) -> AsyncIterator[str]:
        """Say which file changed, each time one does; ends only when cancelled.

        Args:
            trouble: Hears why they cannot be watched; even then they are compared now and then.
        """
        while True:
            ways, hit = names_on_the_way(self.names()), ""
            try:
                with RustNotify(list(directories(ways)), *_PLAIN) as watcher:
                    hit = await _hit(watcher, ways, self._difference(looks(self.names())))
            except (OSError, WatchfilesRustInternalError) as error:
                # No inotify instance is left, or a directory went away this very moment.
                trouble(str(error))
                await anyio.sleep(QUIET * _COMPARE)
            now = looks(self.names())
            hit = hit or self._difference(now)
            self._before = now
            if hit:
                yield hit

    def _difference(self, now: Looks) -> str:
        return min((name for name, _ in set(self._before) ^ set(now)), default="")


async def _hit(watcher: RustNotify, ways: frozenset[str], hit: str) -> str:
    """Wait for a change on these ways, if there was none yet, and then for quiet.

    Empty: there was none in a long time.
    """
    quiet_after = _RESTLESS
    for _ in range(_COMPARE):
        await anyio.sleep(QUIET)
        found = watcher.watch(_MILLISECOND, _MILLISECOND, _MILLISECOND, None)
        paths = sorted(path for _, path in found if path in ways) if isinstance(found, set) else []
        if hit and (not paths or quiet_after <= 0):
            return hit
        if paths:
            hit = hit or paths[0]
            quiet_after -= 1
    return hit


def usual_files() -> tuple[str, ...]:
    """Name the files at the usual places, whether or not they are there."""
    drop_ins: list[str] = []
    if os.path.isdir(USUAL.directory):
        drop_ins = sorted(os.listdir(USUAL.directory))
    return (
        USUAL.vendor,
        USUAL.main,
        USUAL.directory,
        *(os.path.join(USUAL.directory, name) for name in drop_ins if name.endswith(".toml")),
    )


def names_on_the_way(files: Iterable[str]) -> frozenset[str]:
    """Name every file, every link it is reached through, and what of them is missing."""
    return frozenset(name for file in files for name in _way(Path(os.path.abspath(file))))


def directories(names: Iterable[str]) -> tuple[str, ...]:
    """List the directories in which these names stand, those that are there."""
    return tuple(sorted({d for name in names if os.path.isdir(d := os.path.dirname(name))}))


def looks(files: Iterable[str]) -> Looks:
    """Say what each file looks like now."""
    return tuple((name, _look(name)) for name in files)


def _look(name: str) -> tuple[int, ...]:
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _way(path: Path) -> Iterator[str]:
    """Yield a file, its missing directories, and each link on the way to it with its target."""
    for _ in range(_MOST_LINKS):
        yield str(path)
        for parent in path.parents:
            if parent.is_symlink():
                yield str(parent)
                path = _target(parent) / path.relative_to(parent)
                break
            if not parent.exists():
                yield str(parent)
        else:
            if not path.is_symlink():
                return
            path = _target(path)


def _target(link: Path) -> Path:
    return Path(os.path.normpath(link.parent / os.readlink(link)))
