"""Cgroups that somebody without privileges was given, and what he makes of them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support import hostile

_HIERARCHIES: Final = Path("/sys/fs/cgroup")
_OTHERS: Final = frozenset({"cpuset", "memory"})  # a cgroup of these takes setting up, or much


@contextmanager
def filled(count: int) -> Iterator[int]:
    """Have nobody's processes in very many cgroups below his own, one in each hierarchy.

    Gives the attacker's pid.
    """
    name = f"reconciler-test-given-{os.getpid()}"
    kinds = [one for one in _HIERARCHIES.iterdir() if one.name not in _OTHERS]
    places = [kind / name for kind in kinds]
    try:
        for place in places:
            place.mkdir()
            for what in (place, place / "cgroup.procs"):
                os.chown(what, hostile.NOBODY, hostile.NOBODY)
        with hostile.attacked(hostile.many_cgroups, count, *places) as pid:
            yield pid
    finally:
        for kind in kinds:
            _remove(kind, name)


def _remove(kind: Path, name: str) -> None:
    """Remove a cgroup and all below it, however long their paths; who was there has been killed."""
    for _, below, _, directory in os.fwalk(kind / name, topdown=False):
        for one in below:
            _remove_one(one, directory)
    os.rmdir(kind / name)


def _remove_one(name: str, directory: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            if time.monotonic() > deadline:
                raise
            os.sched_yield()
        else:
            return
