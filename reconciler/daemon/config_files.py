"""Configuration files that change: editors rename over them, Kubernetes swaps a symlink above them.

Watched are the directories in which a name on the way to a file stands, so that a change of the
file, of a link to it, or of a directory of drop-ins is seen. An event is only a hint: now and then,
and whenever other directories are to be watched, the files are compared with what they were.

watchfiles has no way to wait without asking again and again, so it is not asked while nothing
happens: inotify wakes us, and then watchfiles tells when the files have come to rest.
"""

import os
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Final

import anyio

from reconciler.settings.files import USUAL, Places
from reconciler.watch import inotify_fd
from reconciler.watch.backend import BackendError
from reconciler.watch.inotify_fd import Inotify

QUIET: Final = 2.0
"""Seconds without a change before a file is read: half a file could lack its protecting rules."""

_RESTLESS: Final = 5
"""So many times :data:`QUIET` a file that never comes to rest is waited for, and no longer."""

_COMPARE: Final = 300.0
"""Seconds between two comparisons: an event may be lost, or never come from a network."""

_WATCHED: Final = (
    inotify_fd.NAMES | inotify_fd.CLOSE_WRITE | inotify_fd.MOVE_SELF | inotify_fd.ONLYDIR
)
_ELSEWHERE: Final = inotify_fd.GONE | inotify_fd.MOVE_SELF | inotify_fd.OVERFLOW
"""What means that the directories must be found anew."""

_SPARE: Final = 16
"""Handles that are needed more urgently."""

_STEP_MS: Final = 50
"""How long watchfiles gathers changes while a file comes to rest."""

_MOST_LINKS: Final = 40

Looks = tuple[tuple[str, tuple[int, ...]], ...]
"""What each file looked like: device, inode, size, modification; empty if it was not there."""


class ConfigFiles:
    """The files of the configuration (those at their places if none is named), and their looks.

    To be made before they are read, so that a change in between is noticed.
    """

    def __init__(self, config: str | None, places: Places = USUAL) -> None:
        self._config = config
        self._places = places
        self._before = looks(self.names())

    def names(self) -> tuple[str, ...]:
        """Name the files that count now, and those that would if they were there."""
        return usual_files(self._places) if self._config is None else (self._config,)

    async def changes(self, trouble: Callable[[str], None]) -> AsyncIterator[str]:
        """Say which file changed, each time one does; ends only when cancelled.

        ``trouble`` receives why they cannot be watched; even then they are compared now and then.
        """
        while True:
            ways, hit = names_on_the_way(self.names()), ""
            try:
                with closing(Inotify()) as bell:
                    _check_spare(bell)
                    watched = _watch(bell, directories(ways))
                    hit = self._difference(looks(self.names()))  # before they were watched
                    with anyio.move_on_after(_COMPARE):
                        hit = hit or await _received(bell, watched, ways)
                    if hit:
                        await _come_to_rest(ways)
            except (OSError, BackendError) as error:
                # No inotify instance is left, or a directory went away this very moment.
                trouble(str(error))
                await anyio.sleep(_COMPARE)
            now = looks(self.names())
            hit = hit or self._difference(now)
            self._before = now
            if hit:
                yield hit

    def _difference(self, now: Looks) -> str:
        return min((name for name, _ in set(self._before) ^ set(now)), default="")


def _check_spare(bell: Inotify) -> None:
    """Leave the last handles to looks, workers and clients; BackendError if there are too few.

    The lowest free number is given out, so it tells.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and bell.fileno() + _SPARE > soft:
        raise BackendError(f"only {soft} handles are allowed, which is too few to spare one")


def _watch(bell: Inotify, names: Iterable[str]) -> dict[int, list[str]]:
    """Watch directories; gives the names of each, for a link makes two of one."""
    watched: dict[int, list[str]] = {}
    for name in names:
        watched.setdefault(bell.add_watch(os.fsencode(name), _WATCHED), []).append(name)
    return watched


async def _received(bell: Inotify, watched: dict[int, list[str]], ways: frozenset[str]) -> str:
    """Wait for a change on these ways; empty if they must be found anew."""
    while True:
        await anyio.wait_readable(bell.fileno())
        for event in bell.read():
            if event.mask & _ELSEWHERE:
                return ""
            for directory in watched[event.wd]:
                name = os.path.join(directory, os.fsdecode(event.name))
                if name in ways:
                    return name


async def _come_to_rest(ways: frozenset[str]) -> None:
    """Wait until nothing has changed on these ways for :data:`QUIET` seconds.

    Changes of other files in the same directories end nothing early.
    """
    # Here, because it is a megabyte, and a thread while it lives, that idle daemons do not need.
    from watchfiles import awatch

    rest = anyio.current_time() + QUIET
    last = rest + QUIET * (_RESTLESS - 1)
    changes = awatch(
        *directories(ways),
        watch_filter=None,
        debounce=_STEP_MS,
        step=_STEP_MS,
        rust_timeout=_STEP_MS,  # its thread cannot be cancelled, so it never waits for long
        yield_on_timeout=True,
        recursive=False,
    )
    try:
        async with aclosing(changes):
            async for batch in changes:
                now = anyio.current_time()
                if not ways.isdisjoint(path for _, path in batch):
                    rest = min(now + QUIET, last)
                if now >= rest:
                    return
    except (RuntimeError, ExceptionGroup) as error:
        if isinstance(error, ExceptionGroup) and error.split(RuntimeError)[1] is not None:
            raise
        await anyio.sleep(QUIET)  # it fails at any name that is not UTF-8: let time alone do


def usual_files(places: Places) -> tuple[str, ...]:
    """Name the files at the usual places, whether or not they are there."""
    drop_ins: list[str] = []
    if os.path.isdir(places.directory):
        drop_ins = sorted(os.listdir(places.directory))
    return (
        places.vendor,
        places.main,
        places.directory,
        *(os.path.join(places.directory, name) for name in drop_ins if name.endswith(".toml")),
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
