"""What one bundle names on a dead filesystem must not hang what is done to another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason, Outcome, Result, StepResult
from reconciler.worker.messages import KillJob
from reconciler.worker.orphans import end_orphan
from tests.safety.elsewhere import (
    ARMED,
    dead,
    its_runtime_root,
    its_runtime_root_behind_a_symlink,
)
from tests.safety.ground import Ground, ground
from tests.safety.populated import populate
from tests.support.bundles import DOWN, Bundle
from tests.support.deadfuse import end_if_it_hangs
from tests.support.forked import in_a_child
from tests.support.inline import InlineWorker, step
from tests.support.mountns import private_mounts, tmpfs

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

SECONDS = 5
UNTOLD = {its_runtime_root, its_runtime_root_behind_a_symlink}
"""Where it names its runtime's root there, nobody can say which cgroups are its own."""


def unhung(on: Ground, act: Callable[[InlineWorker], Outcome]) -> Outcome:
    """Act in a process that is ended if it hangs."""

    def run() -> Outcome:
        end_if_it_hangs(SECONDS)
        return act(InlineWorker(on.site))

    return in_a_child(run)


@pytest.mark.fault("I15", "I18", "a file names a place on a dead filesystem")
@pytest.mark.parametrize("arm", ARMED, ids=lambda arm: arm.__name__)
@private_mounts
def test_ending_an_orphan_goes_nowhere_that_another_names(
    tmp_path: Path, arm: Callable[[Bundle], None]
) -> None:
    with ground(tmp_path) as on:
        orphan, other = on.dead("orphan"), on.dead("other", mounted=False)
        process = populate(orphan.cgroups)
        try:
            arm(other)
            with dead():
                job = KillJob(orphan.key, orphan.identity, DOWN.containerd)
                outcome = unhung(on, lambda inline: end_orphan(inline.place, job))
            if arm in UNTOLD:
                assert outcome.reason is BlockReason.CGROUP, outcome
                assert f"those of {other.key} cannot be known" in outcome.detail
                assert process.alive
            else:
                assert outcome.result is Result.KILLED, outcome
        finally:
            process.end()
        assert on.harm() == []


@pytest.mark.fault("I14", "I18", "a file names a place on a dead filesystem")
@pytest.mark.parametrize("arm", ARMED, ids=lambda arm: arm.__name__)
@private_mounts
def test_cleaning_goes_nowhere_that_another_of_this_id_names(
    tmp_path: Path, arm: Callable[[Bundle], None]
) -> None:
    with ground(tmp_path) as on:
        bundle, other = on.dead("same"), on.dead("same", "other", mounted=False)
        arm(other)
        with dead():
            outcome = unhung(on, lambda inline: inline.clean(bundle))
        assert outcome.result is Result.CLEANED, outcome
        done = step(outcome, "cgroup")
        if arm in UNTOLD:
            assert (done.result, done.mutations) == (StepResult.WARNING, 0), done
            assert f"may be that of {other.key}" in done.detail
        else:
            assert done.result is StepResult.DONE, done
        assert on.harm() == []


def covered(namespace: Path) -> None:
    tmpfs(namespace)


def behind_a_symlink(namespace: Path) -> None:
    there = namespace.rename(namespace.parent.parent / "elsewhere")
    namespace.symlink_to(there)


@pytest.mark.parametrize("bar", [covered, behind_a_symlink])
@private_mounts
def test_what_bundles_of_a_namespace_own_that_cannot_be_entered_is_not_known(
    tmp_path: Path, bar: Callable[[Path], None]
) -> None:
    with ground(tmp_path) as on:
        bundle, other = on.dead("same"), on.dead("same", "other", mounted=False)
        bar(other.path.parent)
        outcome = unhung(on, lambda inline: inline.clean(bundle))
        assert outcome.result is Result.CLEANED, outcome
        done = step(outcome, "cgroup")
        assert (done.result, done.mutations) == (StepResult.WARNING, 0), done
        assert f"may be that of {other.key.namespace}/" in done.detail
