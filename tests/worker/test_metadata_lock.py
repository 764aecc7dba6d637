"""Who holds containerd's metadata lock, and whether that is still so once the answer is given."""

import fcntl
import os
from pathlib import Path

import pytest

from reconciler.model.layout import Layout
from reconciler.probe.locks import LockState
from reconciler.worker import serve
from reconciler.worker.serve import metadata_lock

pytestmark = pytest.mark.safety


@pytest.mark.parametrize("doubt", ["", "another root is named"])
def test_a_containerd_that_comes_while_bundles_are_asked_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubt: str
) -> None:
    layout = Layout(
        state=os.fsencode(tmp_path / "run"),
        root=os.fsencode(tmp_path / "lib"),
        address=os.fsencode(tmp_path / "no.sock"),
    )
    path = Path(os.fsdecode(layout.metadata_lock))
    path.parent.mkdir(parents=True)
    with path.open("wb") as containerd:

        def come(_: Layout, _vouchers: object) -> str:
            fcntl.flock(containerd, fcntl.LOCK_EX)
            return doubt

        monkeypatch.setattr(serve, "doubt_about_root", come)
        assert metadata_lock(layout).state is LockState.FREE
        assert metadata_lock(layout, owner=True).state is LockState.HELD
