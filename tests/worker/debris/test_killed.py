"""Killed at any mutating call the next run leaves nothing; the records count every call."""

import os
import signal
from pathlib import Path

import pytest

from reconciler.model.debris import DebrisKind, Place
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result, StepResult
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
