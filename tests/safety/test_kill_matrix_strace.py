"""SIGKILL at the n-th of every system call that changes or opens something: one run more converges.

Nothing of a dead bundle is left, live tasks and canaries are as they were. `make soak` adds every
other call there is, and workers that are killed again and again at the same place.
"""

import sys
from collections.abc import Callable

import pytest

from tests.safety import straced
from tests.safety.killing import Report
from tests.safety.working import in_shards

pytestmark = [pytest.mark.safety, pytest.mark.kernel]


def killed(record: Callable[[str, object], None], *options: str) -> int:
    """Kill everywhere; give how many were killed."""
    reports = in_shards(Report, *options)
    missed = {call for one in reports for kind in one.missed.values() for call in kind}
    attempts = sum(one.attempts for one in reports)
    kills = sum(one.killed for one in reports)
    sys.stdout.write(f"{kills} killed at {attempts} places\n")  # shown by -rP
    record("kills", kills)
    record("losses", sum(len(one.lost) for one in reports))
    assert [one.lost for one in reports] == [[], []]
    assert [one.left for one in reports] == [[], []]
    assert not missed & straced.FILES  # what changes the world is the same in each clean
    assert sum(one.skipped for one in reports) <= attempts * 0.05
    assert kills >= attempts * 0.97  # a few calls depend on what else goes on
    return kills


@pytest.mark.fault("I9", "I6", "SIGKILL anywhere")
@pytest.mark.timeout(180)
def test_killed_at_every_call_that_changes_or_opens_something_the_next_run_converges(
    record_property: Callable[[str, object], None],
) -> None:
    assert killed(record_property) > 200


@pytest.mark.fault("I9")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_five_times_at_every_call_whatsoever_the_next_run_converges(
    record_property: Callable[[str, object], None],
) -> None:
    assert killed(record_property, "--every", "--times", "5") > 3000
