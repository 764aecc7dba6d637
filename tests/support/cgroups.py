"""Real processes in real cgroups, as runc puts them there: into each of a container's."""

from collections.abc import Iterable
from pathlib import Path

from tests.support.bundles import CGROUPS


def join(pid: int, groups: Iterable[Path]) -> None:
    """Put a process into all of these, which are made if need be."""
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
        if "cpuset" in group.parts:  # of version 1: takes nobody in before it has processors
            _share_processors(group)
        (group / "cgroup.procs").write_text(str(pid))


def freeze(groups: Iterable[Path]) -> None:
    """Freeze those of version 1 that can be, and wait until they are."""
    for group in groups:
        state = group / "freezer.state"
        if state.exists():
            state.write_text("FROZEN")
            while state.read_text().strip() != "FROZEN":
                state.write_text("FROZEN")  # as runc does: forks may outrun it


def _share_processors(group: Path) -> None:
    top = CGROUPS / "cpuset"
    names = group.relative_to(top).parts
    for depth in range(1, len(names) + 1):
        here = top.joinpath(*names[:depth])
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (here / name).read_text().strip():
                (here / name).write_text((here.parent / name).read_text())
