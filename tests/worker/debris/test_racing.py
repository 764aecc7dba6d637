"""Whoever makes a thing anew while the dead one of its name is removed keeps what he made.

At each call of ours in turn, and by a thread at any moment; the same catches a removal by path.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import ParamSpec, TypeVar

import pytest

from reconciler import kernel
from reconciler.model.debris import Place
from reconciler.model.ids import unescape
from reconciler.model.outcome import Result
from tests.support.mountns import private_mounts
from tests.worker.debris.leaving import ALL, Ground, Leaving, ground

pytestmark = pytest.mark.safety

P = ParamSpec("P")
T = TypeVar("T")
Remover = Callable[[Ground, Place], Result]

CALLS = (
    (kernel, "statx"),
    (kernel, "statx_handle"),
    (kernel, "openat2"),
    (kernel, "open_beneath"),
    (kernel, "read_beneath"),
    (kernel, "renameat2"),
    (os, "open"),
    (os, "scandir"),
    (os, "unlink"),
    (os, "rmdir"),
)
APART = 3
"""Calls of ours that pass between two steps of whoever makes something: he needs many more."""

PASSES = 100


class Racer:
    """Makes a thing anew at one of our calls and, where that takes several steps, after it.

    Attributes:
        done: Whether he was at it.
    """

    def __init__(
        self, here: Ground, leaving: Leaving, path: Path, at: int, apart: int = APART
    ) -> None:
        # Without a distance only the last one comes later.
        last = len(leaving.anew) - 1
        self._steps = [
            (at + (apart * number or int(number == last)), step)
            for number, step in enumerate(leaving.anew)
        ]
        self._here, self._path = here, path
        self._calls = 0
        self._busy = False
        self.done = False

    @contextmanager
    def racing(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module, name in CALLS:
                patch.setattr(module, name, self._wrap(getattr(module, name)))
            yield
        if self.done:
            self._step_until(self._steps[-1][0] if self._steps else 0)  # after our last call

    def _wrap(self, call: Callable[P, T]) -> Callable[P, T]:
        def raced(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self._busy:
                self._calls += 1
                self._step_until(self._calls)
            return call(*args, **kwargs)

        return raced

    def _step_until(self, call: int) -> None:
        self._busy = True
        while self._steps and self._steps[0][0] <= call:
            self.done = True
            self._steps.pop(0)[1](self._here, self._path)
        self._busy = False


def ours(here: Ground, place: Place) -> Result:
    (result,) = here.clean((place,))
    return result.result


def by_path(_: Ground, place: Place) -> Result:
    """What loses: judge, and then remove whatever has the path."""
    os.scandir("/").close()  # as long as it takes
    path = Path(os.fsdecode(unescape(place.key.path)))
    if path.is_socket():
        os.unlink(path)
    elif path.is_relative_to("/sys"):
        with suppress(OSError):  # somebody is in it
            os.rmdir(path)
    else:
        _remove_by_path(path)
    return Result.CLEANED


def _remove_by_path(path: Path) -> None:
    with suppress(OSError):
        with os.scandir(path) as entries:
            below = [(Path(one.path), one.is_dir()) for one in entries]
        for one, is_directory in below:
            (_remove_by_path if is_directory else os.unlink)(one)
        os.rmdir(path)


def race(
    base: Path, leaving: Leaving, remover: Remover, at: int, apart: int = APART
) -> tuple[bool, bool, Result]:
    """Race once; tell whether anybody was at it, whether he has kept what he made, and our end."""
    base.mkdir()
    with ground(base) as here:
        path = leaving.leave(here)
        place = here.one(leaving.kind)
        racer = Racer(here, leaving, path, at, apart)
        with racer.racing():
            result = remover(here, place)
        return racer.done, leaving.lives(here, path), result


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_what_is_made_anew_at_any_call_of_ours_lives(tmp_path: Path, leaving: Leaving) -> None:
    ends = set()
    at = 0
    while True:
        at += 1
        raced, lives, result = race(tmp_path / str(at), leaving, ours, at)
        if not raced:
            break
        assert lives, f"lost at call {at}: {result}"
        ends.add(result)
    assert result is Result.CLEANED
    assert at > 10
    assert Result.SKIPPED in ends


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_the_race_catches_a_removal_by_path(tmp_path: Path, leaving: Leaving) -> None:
    calls = range(1, 6)
    races = [race(tmp_path / str(at), leaving, by_path, at, apart=0) for at in calls]
    lost = [result for raced, lives, result in races if raced and not lives]
    assert lost, "nothing was lost: this race proves nothing"


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_what_a_thread_makes_anew_at_any_moment_lives(tmp_path: Path, leaving: Leaving) -> None:
    sys.setswitchinterval(1e-5)
    with ground(tmp_path) as here:
        for number in range(PASSES):
            path = leaving.leave(here)
            place = here.one(leaving.kind)
            begun = Event()
            thread = Thread(target=make, args=(leaving, here, path, begun, number))
            thread.start()
            begun.set()
            result = ours(here, place)
            thread.join()
            assert leaving.lives(here, path), f"lost in pass {number}: {result}"
            _clear(here, path)


def make(leaving: Leaving, here: Ground, path: Path, begun: Event, number: int) -> None:
    begun.wait()
    for _ in range(number * 20):  # another moment each time
        pass
    for step in leaving.anew:
        step(here, path)


def _clear(here: Ground, path: Path) -> None:
    here.handles.pop_all().close()
    if path.is_relative_to("/sys"):
        while path.exists():  # who was in it is still on his way out
            with suppress(OSError):
                path.rmdir()
        for bundle in (here.made.tree / here.made.cgroup).iterdir():
            bundle.rmdir()
    elif path.is_socket():
        path.unlink()
    else:
        shutil.rmtree(path)
