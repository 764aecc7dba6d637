"""Killed at any mutating call the next run leaves nothing; the records count every call."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from reconciler.model.debris import WHOLE_BATCH, DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.ids import NOWHERE, BundleKey
from reconciler.model.outcome import Result, StepResult
from reconciler.worker.channel import ProgressFile
from reconciler.worker.messages import DebrisJob, Progress
from reconciler.worker.running_job import Attempt
from tests.support.bundles import identify
from tests.support.mountns import private_mounts
from tests.worker.debris.leaving import ALL, WORK, Ground, Leaving, cleaned, ground
from tests.worker.test_steps_killed import Counter

pytestmark = pytest.mark.safety


def killed_at(here: Ground, place: Place, number: int, *, before: bool) -> bool:
    """Remove a place in a process that ends at a mutating call; false if there are not so many."""
    pid = os.fork()
    if pid == 0:
        with Counter(number, before=before).installed():
            here.clean((place,))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_killed_anywhere_the_next_run_leaves_nothing(
    tmp_path: Path, leaving: Leaving, before: bool
) -> None:
    with ground(tmp_path) as here:
        number = 0
        while True:
            number += 1
            path = leaving.leave(here)
            was_killed = killed_at(here, here.one(leaving.kind), number, before=before)
            ours = [one for one in path.parent.iterdir() if one.name.startswith(".reconciler-")]
            left = here.dead(leaving.kind)
            hidden = here.dead(DebrisKind.HIDDEN_BUNDLE) if leaving is WORK else ()
            if leaving.kind is DebrisKind.HIDDEN_BUNDLE and path.is_relative_to(here.made.tree):
                _finish(here, ours)  # those in the state tree the engine finishes
            for places in (left, hidden):
                assert cleaned(here.clean(places)) or not places
            assert [one for one in path.parent.iterdir() if one.is_dir() or one.is_socket()] == []
            if not was_killed:
                break
        assert number > 1


def _finish(here: Ground, ours: list[Path]) -> None:
    for one in ours:
        outcome = here.worker.finish(BundleKey("default", one.name), identify(one))
        assert outcome.result is Result.CLEANED, outcome


@pytest.mark.parametrize("leaving", ALL.values(), ids=ALL)
@private_mounts
def test_the_records_count_every_mutating_call(tmp_path: Path, leaving: Leaving) -> None:
    with ground(tmp_path) as here:
        path = leaving.leave(here)
        counter = Counter()
        with counter.installed():
            (result,) = here.remove(leaving.kind)
        assert result.result is Result.CLEANED, result
        assert not path.exists()
        assert sum(one.mutations for one in result.steps) == counter.calls > 0
        assert result.steps[-1].result is StepResult.DONE
        assert result.seconds > 0


def _told(here: Ground, places: tuple[Place, ...], progress: Progress) -> tuple[DebrisResult, ...]:
    """What the parent tells of a batch whose worker it has ended when it had noted this."""

    async def tell() -> tuple[DebrisResult, ...]:
        attempt = Attempt(DebrisJob(places, here.worker.containerd))
        attempt.progress = progress
        return attempt.results(places, attempt.cut_short(WHOLE_BATCH, 60.0))

    return anyio.run(tell)


@private_mounts
def test_of_a_batch_that_is_cut_off_the_records_count_every_call_so_far(tmp_path: Path) -> None:
    with ground(tmp_path) as here:
        work = Path(os.fsdecode(here.made.layout.work)) / "default"
        for name in ("one", "two", "three"):
            (work / name / "below").mkdir(parents=True)
        places = here.dead(DebrisKind.WORK_DIR)
        counter, page = Counter(), ProgressFile(os.memfd_create("progress"))
        seen: list[tuple[int, Progress]] = []

        def note(progress: Progress) -> None:
            page.write(progress)
            seen.append((counter.calls, page.read()))

        here.worker.place.note = note
        with counter.installed():
            whole = here.clean(places)
        page.close()
        assert cleaned(whole)
        assert len(seen) > len(places)
        for calls, progress in seen:
            told = _told(here, places, progress)
            assert sum(one.mutations for result in told for one in result.steps) == calls
            over = sum(result.result is Result.CLEANED for result in told)
            assert over == len(progress.places)
            assert told[:over] == whole[:over]
        assert _told(here, places, seen[-1][1]) == whole


def test_progress_of_a_large_batch_is_read_whole() -> None:
    places = tuple(
        DebrisResult(
            PlaceKey(DebrisKind.WORK_DIR, f"/w/{number}"), NOWHERE, Result.CLEANED, None, "x" * 4000
        )
        for number in range(50)
    )
    page = ProgressFile(os.memfd_create("progress"))
    page.write(Progress("work-dir", places=places))
    assert page.read().places == places
    page.close()
