"""What changes while an inventory is taken leaves out itself, and nothing else."""

import subprocess
from errno import EACCES
from pathlib import Path

import pytest

from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.worker.inventory import finds
from tests.support.inline import inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import working_in

pytestmark = pytest.mark.safety


@private_mounts
def test_a_shim_that_ends_meanwhile_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between the pass over /proc and the closer look; any other trouble still counts."""
    monkeypatch.setattr(finds, "runs_runc_shim", lambda *_: True)
    monkeypatch.setattr(finds, "was_in_our_tree", lambda *_: True)
    with inline_worker(tmp_path) as (made, _):
        ended = subprocess.Popen(["true"])
        ended.wait()
        with working_in(tmp_path / "gone") as living:
            pids = (ended.pid, living)
            there = tuple(ShimProcess(BundleKey("default", f"c{pid}"), pid) for pid in pids)
            scanned = ProcessScan(True, shims=there)
            assert [one.key.path for one in finds.shims(scanned, made.layout)] == [str(living)]
            monkeypatch.setattr(finds, "read_stat", _silent)
            with pytest.raises(PermissionError):
                list(finds.shims(scanned, made.layout))


def _silent(pid: int) -> None:
    raise PermissionError(EACCES, str(pid))
