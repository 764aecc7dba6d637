"""Who owns what a bundle left is asked before anything is removed, and waited for if need be."""

from functools import partial
from pathlib import Path

import pytest

from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.layout import TASKS
from reconciler.model.outcome import BlockReason, Result
from reconciler.worker.instances import Instances
from tests.support.inline import (
    assert_blocked,
    assert_cleaned,
    assert_untouched,
    inline_worker,
    step,
)
from tests.support.mountns import private_mounts
from tests.support.shims import working_in


def always(scanned: ProcessScan, _: bool) -> ProcessScan:
    return scanned


@pytest.mark.safety
@private_mounts
def test_who_cannot_be_told_now_is_waited_for_before_anything_is_touched(tmp_path: Path) -> None:
    """A shim that leads nowhere may be of another containerd, which may have the same names."""
    with inline_worker(tmp_path) as (made, inline), working_in(tmp_path / "out") as out:
        grouped, plain = made.bundle("c1"), made.bundle("c3", cgroups=False)
        piped = made.bundle("c2", cgroups=False, fifos=True)
        silent = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), out),))
        inline.place.instances = Instances(made.layout, partial(always, silent))
        inline.patient = True
        for bundle in (grouped, piped):
            left = bundle.left()
            outcome = inline.clean(bundle)
            assert_blocked(outcome, BlockReason.OWNER)
            assert f"pid {out}" in outcome.detail
            assert [one.step for one in outcome.steps] == ["guards"]
            assert_untouched(outcome, bundle, left)
        assert_cleaned(inline.clean(plain), plain)  # of what it left nobody is asked about

        inline.patient = False
        outcome = inline.clean(piped)
        assert outcome.result is Result.CLEANED
        assert f"pid {out}" in step(outcome, "fifo").detail
        assert piped.fifos.exists()

        inline.patient = True
        passed = ProcessScan(True)
        inline.place.instances = Instances(made.layout, partial(always, passed))
        assert_cleaned(inline.clean(grouped), grouped)


@pytest.mark.safety
@private_mounts
def test_another_who_has_the_name_is_not_waited_for(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle, tree = made.bundle("c1"), tmp_path / "other" / TASKS.decode() / "default"
        (tree / bundle.key.id).mkdir(parents=True)
        with working_in(tree / "pod") as pid:
            known = ProcessScan(True, shims=(ShimProcess(BundleKey("default", "pod"), pid),))
            inline.place.instances = Instances(made.layout, partial(always, known))
            inline.patient = True
            outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome
        assert "another containerd" in step(outcome, "cgroup").detail
        assert all(group.exists() for group in bundle.cgroups)
