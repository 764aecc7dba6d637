"""The inventory on a busy node, where strangers' shims end while it is taken."""

import os
import subprocess
from pathlib import Path

import pytest

from reconciler.model.debris import DebrisKind
from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.worker import context
from tests.support.mountns import private_mounts
from tests.worker.test_inventory import OF_A_BUNDLE, debris, found, left


def test_one_that_has_ended_leaves_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's shim that ends while debris is listed hides none of it, nor any shim."""
    with subprocess.Popen(["sleep", "60"]) as zombie, subprocess.Popen(["true"]) as gone:
        gone.wait()
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        shims = (ShimProcess(BundleKey("default", "lost"), one.pid) for one in (gone, zombie))
        scanned = ProcessScan(True, shims=tuple(shims))
        monkeypatch.setattr(context, "scan", lambda **_: scanned)
        _all_of_a_bundle_is_certain(tmp_path)


@private_mounts
def _all_of_a_bundle_is_certain(base: Path) -> None:
    with left(base) as (_, worker, _bundle):
        taken = found(worker)
        assert debris(taken).keys() == OF_A_BUNDLE
        assert [one for one in taken.places if one.key.kind is DebrisKind.SHIM] == []
