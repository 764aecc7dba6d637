"""What was opened meanwhile, by inotify: needs no help of who opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # it comes without types


@contextmanager
def opened_of(paths: list[Path]) -> Iterator[list[str]]:
    """Collect which of these were opened, read or written; the list is filled at the end.

    A directory stands for itself and for whatever is right below it.
    """
    found: list[str] = []
    mask = flags.OPEN | flags.ACCESS | flags.MODIFY
    with INotify() as notify:
        names = {notify.add_watch(path, mask): path.name for path in paths}
        yield found
        found += [names[event.wd] for event in notify.read(timeout=0) if event.mask & mask]
