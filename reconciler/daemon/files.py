"""Configuration files that change: editors rename over them, Kubernetes swaps a symlink above them.

Watched are the directories in which a name on the way to a file stands, so that a change of the
file, of a link to it, or of a directory of drop-ins is seen. What changed is read again whole.
"""

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

import watchfiles

from reconciler.daemon.configuration import Configuration
from reconciler.settings.files import USUAL

_DEBOUNCE: Final = 5000
"""Milliseconds after which a file that never comes to rest is read all the same."""

_QUIET: Final = 500
"""Milliseconds without a change before it is read: half a file could lack its protecting rules."""

_MOST_LINKS: Final = 40


async def changes_of(configuration: Configuration) -> AsyncIterator[str]:
    """Say which file changed, each time one does; ends only when cancelled."""
    while True:
        watched = directories(configuration.loaded.files)
        if not watched:
            return
        async for changes in watchfiles.awatch(
            *watched, recursive=False, debounce=_DEBOUNCE, step=_QUIET, raise_interrupt=False
        ):
            named = sorted(path for _, path in changes if _matters(path, configuration))
            if named:
                yield named[0]
            if directories(configuration.loaded.files) != watched:
                break


def directories(files: Iterable[str]) -> tuple[str, ...]:
    """List the directories to watch: of every name that is passed on the way to a file."""
    found = {where for name in (*files, *_places()) for where in _on_the_way(name)}
    return tuple(sorted(where for where in found if os.path.isdir(where)))


def _places() -> tuple[str, ...]:
    return (USUAL.main, os.path.join(USUAL.directory, "any.toml"))


def _on_the_way(name: str) -> Iterable[str]:
    """Yield the directories of a file and of each link it is reached through."""
    path = Path(name)
    for _ in range(_MOST_LINKS):
        yield str(path.parent)
        parent = path.parent
        if parent.is_symlink():
            yield str(parent.parent)
            path = parent.parent / os.readlink(parent) / path.name
        elif path.is_symlink():
            path = parent / os.readlink(path)
        else:
            return


def _matters(path: str, configuration: Configuration) -> bool:
    """Tell whether a change may concern the configuration, and not a neighbour in /etc."""
    names = {os.path.basename(file) for file in configuration.loaded.files}
    name = os.path.basename(path)
    return name in names or name.endswith(".toml") or name.startswith("..")
