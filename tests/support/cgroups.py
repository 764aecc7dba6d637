"""Real processes in real cgroups, as runc puts them there: into each of a container's."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.bundles import CGROUPS


def join(pid: int, groups: Iterable[Path]) -> None:
    """Put a process into all of these, which are made if need be."""
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
        if "cpuset" in group.parts:  # of version 1: takes nobody in before it has processors
            _share_processors(group)
        (group / "cgroup.procs").write_text(str(pid))


@contextmanager
def freeze(groups: Sequence[Path]) -> Iterator[None]:
    """Freeze groups of the freezer of version 1; thawed in the end, or nobody in them could end."""
    try:
        for group in groups:
            state = group / "freezer.state"
            state.write_text("FROZEN")
            while state.read_text().strip() != "FROZEN":
                state.write_text("FROZEN")  # as runc does: forks may outrun it
        yield
    finally:
        for group in reversed(groups):
            (group / "freezer.state").write_text("THAWED")


def _share_processors(group: Path) -> None:
    top = CGROUPS / "cpuset"
    names = group.relative_to(top).parts
    for depth in range(1, len(names) + 1):
        here = top.joinpath(*names[:depth])
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (here / name).read_text().strip():
                (here / name).write_text((here.parent / name).read_text())
