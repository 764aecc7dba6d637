"""What is left of each kind, as real objects, and the same made anew by somebody who lives."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest import mock

from reconciler.model.debris import DebrisKind, DebrisResult, Place
from reconciler.model.evidence import Answer, ProcessScan
from reconciler.model.outcome import Result
from reconciler.worker import context
from reconciler.worker.debris import clean
from reconciler.worker.inventory import take
from reconciler.worker.messages import DebrisJob
from tests.support import canary
from tests.support.bundles import CGROUPS, Site, listen
from tests.support.cgroups import join
from tests.support.inline import InlineWorker, inline_worker

NOBODY: Final = ProcessScan(answered=True)
ENDS: Final = ("stdin", "stdout", "stderr")


@dataclass
class Ground:
    """A node on which things are left, and one worker.

    Attributes:
        made: Its directories.
        worker: The worker.
        scanned: What a pass over /proc finds.
        handles: What must be given back: listeners, processes.
        started: Pids of processes that wait for a group.
    """

    made: Site
    worker: InlineWorker
    scanned: ProcessScan = NOBODY
    handles: ExitStack = field(default_factory=ExitStack)
    started: list[int] = field(default_factory=list)

    @property
    def fifos(self) -> Path:
        return Path(os.fsdecode(self.made.layout.fifos))

    @property
    def hierarchy(self) -> Path:
        """One that takes anybody in without more ado."""
        return next(one for one in sorted(CGROUPS.iterdir()) if one.name != "cpuset")

    def dead(self, kind: DebrisKind) -> tuple[Place, ...]:
        """What an inventory finds of a kind and is certain of, however young it is."""
        taken = take(self.worker.place)
        assert kind in taken.looked, taken.troubles
        return tuple(
            one
            for one in taken.places
            if one.key.kind is kind and (one.lives, one.owned) == (Answer.NO, Answer.NO)
        )

    def clean(self, places: tuple[Place, ...]) -> tuple[DebrisResult, ...]:
        return clean(self.worker.place, DebrisJob(places, self.worker.containerd))

    def remove(self, kind: DebrisKind) -> tuple[DebrisResult, ...]:
        """Find and remove all there is of a kind."""
        return self.clean(self.dead(kind))

    def one(self, kind: DebrisKind) -> Place:
        (place,) = self.dead(kind)
        return place


@contextmanager
def ground(base: Path) -> Iterator[Ground]:
    """Give a node on which only what a test makes is there; in a private mount namespace."""
    with inline_worker(base) as (made, worker):
        here = Ground(made, worker)

        def scan(**_: object) -> ProcessScan:
            return here.scanned

        with here.handles, mock.patch.object(context, "scan", scan):
            (made.tree / made.cgroup).mkdir(parents=True)
            here.fifos.mkdir()
            yield here


def cleaned(results: tuple[DebrisResult, ...]) -> bool:
    return {one.result for one in results} == {Result.CLEANED}


def stays(here: Ground, place: Place, path: Path) -> DebrisResult:
    """Try to remove it: it must stay as it is."""
    before = canary.snapshot(path) if path.is_dir() and not is_group(path) else None
    (result,) = here.clean((place,))
    assert result.result is Result.SKIPPED, result
    assert result.detail
    assert sum(one.mutations for one in result.steps) == 0
    assert path.exists()
    if before is not None:
        assert canary.snapshot(path) == before
    return result


def is_group(path: Path) -> bool:
    return path.is_relative_to("/sys")


@dataclass(frozen=True)
class Leaving:
    """A kind of thing.

    Attributes:
        kind: Which.
        leave: Leaves one that is dead; gives its path.
        anew: What somebody does who makes one of that name that lives: in this order, and never
            faster than a few of our calls after each other.
        lives: Whether that one is there and whole.
    """

    kind: DebrisKind
    leave: Callable[[Ground], Path]
    anew: tuple[Callable[[Ground, Path], None], ...]
    lives: Callable[[Ground, Path], bool]


# ------------------------------------------------------------------------------------- sockets


def _leave_socket(here: Ground) -> Path:
    path = here.made.run / "s" / ("ab" * 32)
    listen(path).close()
    return path


def _listen_anew(here: Ground, path: Path) -> None:
    path.unlink(missing_ok=True)  # as a shim does that finds a dead one
    here.handles.enter_context(listen(path))


def accepts(_: Ground, path: Path) -> bool:
    directory = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"/proc/self/fd/{directory}/{path.name}") == 0
    finally:
        os.close(directory)


# --------------------------------------------------------------------------------------- FIFOs


def fill(directory: Path, id_: str) -> None:
    for end in ENDS:
        os.mkfifo(directory / f"{id_}-{end}")


def _leave_fifos(here: Ground) -> Path:
    path = here.fifos / "1234567"
    path.mkdir()
    fill(path, "gone")
    return path


def _leave_nothing_in(here: Ground) -> Path:
    path = here.fifos / "1234567"
    path.mkdir()
    return path


def _empty_anew(_: Ground, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()


def _fill_anew(_: Ground, path: Path) -> None:
    with suppress(FileNotFoundError):  # it was taken away
        fill(path, "new")


def _is_filled(_: Ground, path: Path) -> bool:
    return _names(path) == {f"new-{end}" for end in ENDS}


def _names(path: Path) -> set[str]:
    return {one.name for one in path.iterdir()} if path.exists() else set()


# -------------------------------------------------------------------------------- runc's states


def _leave_state(here: Ground) -> Path:
    bundle = here.made.bundle("gone", mounted=False, cgroups=False)
    shutil.rmtree(bundle.path)
    shutil.rmtree(bundle.work)
    bundle.socket.unlink()
    write(bundle.runc_state, cgroup_paths={"": str(here.hierarchy / here.made.cgroup / "no")})
    return bundle.runc_state


def write(path: Path, **changed: object) -> None:
    """Change what a state says, without a trace in its directory's times."""
    state = path / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | changed))


def write_living(here: Ground, path: Path) -> None:
    """Write the state of a container of another containerd: its init is this process."""
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    state = {
        "id": path.name,
        "init_process_pid": os.getpid(),
        "init_process_start": int(start),
        "config": {"rootfs": "/", "labels": ["bundle=/run/other/containerd/x"]},
        "cgroup_paths": {},
    }
    (path / "state.json").write_text(json.dumps(state))


def _run_anew(here: Ground, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # `runc delete`
    path.mkdir()
    write_living(here, path)


def _is_theirs(_: Ground, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return "/run/other" in (path / "state.json").read_text()
    return False


# ------------------------------------------------------------------------------------- cgroups


def _leave_group(here: Ground) -> Path:
    path = here.hierarchy / here.made.cgroup / "gone"
    path.mkdir(parents=True)
    work = Path(os.fsdecode(here.made.layout.work)) / here.made.cgroup / "gone"
    work.mkdir(parents=True, exist_ok=True)  # that it was a container's
    return path


def _make_bundle(here: Ground, path: Path) -> None:
    (here.made.tree / here.made.cgroup / "gone").mkdir()


def _start_one(here: Ground, _: Path) -> None:
    """A shim, and runc, are started before a group is made."""
    here.started.append(_start(here))


def _group_anew(_: Ground, path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir()
    path.mkdir()


def _start(here: Ground) -> int:
    sleeper = subprocess.Popen(["sleep", "600"])

    def end() -> None:
        sleeper.kill()
        sleeper.wait()

    here.handles.callback(end)
    return sleeper.pid


def join_one(here: Ground, path: Path) -> None:
    """Have a process in a group, which must be there."""
    join(_start(here), [path])


def _join(here: Ground, path: Path) -> None:
    """Put the one that was started there; where it was taken away nobody lives."""
    if path.is_dir():
        join(here.started.pop(), [path])


def _is_populated(_: Ground, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return bool((path / "cgroup.procs").read_text().strip())
    return False


# ------------------------------------------------------------------- work directories, and hidden


def _leave_work(here: Ground) -> Path:
    path = Path(os.fsdecode(here.made.layout.work)) / "default" / "gone"
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").write_text("left")
    return path


def _write_anew(_: Ground, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "new").write_text("precious")


def _is_whole(_: Ground, path: Path) -> bool:
    return _names(path) == {"new"}


def _leave_hidden(here: Ground) -> Path:
    bundle = here.made.bundle("gone", mounted=False, cgroups=False)
    shutil.rmtree(bundle.work)
    shutil.rmtree(bundle.runc_state)
    bundle.socket.unlink()
    return bundle.path.rename(bundle.path.with_name(f".{bundle.path.name}"))


def _leave_hidden_work(here: Ground) -> Path:
    return (path := _leave_work(here)).rename(path.with_name(".gone"))


SOCKET: Final = Leaving(DebrisKind.SHIM_SOCKET, _leave_socket, (_listen_anew,), accepts)
FIFOS: Final = Leaving(DebrisKind.FIFO_DIR, _leave_fifos, (_empty_anew, _fill_anew), _is_filled)
EMPTY: Final = Leaving(
    DebrisKind.FIFO_DIR, _leave_nothing_in, (_empty_anew, _fill_anew), _is_filled
)
STATE: Final = Leaving(DebrisKind.RUNC_STATE, _leave_state, (_run_anew,), _is_theirs)
GROUP: Final = Leaving(
    DebrisKind.CGROUP, _leave_group, (_make_bundle, _start_one, _group_anew, _join), _is_populated
)
WORK: Final = Leaving(DebrisKind.WORK_DIR, _leave_work, (_write_anew,), _is_whole)
HIDDEN_BUNDLE: Final = Leaving(DebrisKind.HIDDEN_BUNDLE, _leave_hidden, (_write_anew,), _is_whole)
HIDDEN_WORK: Final = Leaving(
    DebrisKind.HIDDEN_BUNDLE, _leave_hidden_work, (_write_anew,), _is_whole
)

ALL: Final = {
    "socket": SOCKET,
    "fifos": FIFOS,
    "empty": EMPTY,
    "state": STATE,
    "group": GROUP,
    "work": WORK,
    "hidden": HIDDEN_BUNDLE,
    "hidden-work": HIDDEN_WORK,
}
