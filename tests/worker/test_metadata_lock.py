"""Who holds containerd's metadata lock, and whether that is still so once the answer is given."""

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState
from reconciler.probe.owner import Vouchers, _State
from reconciler.worker import serve
from reconciler.worker.messages import Job, Locked, LockJob, WorkerScope
from reconciler.worker.pool import WorkerPool
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


async def test_what_one_worker_has_found_out_the_next_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it travels between processes; one that gives no answer makes nothing forgotten."""
    pool = WorkerPool(WorkerScope(Layout(state=os.fsencode(tmp_path))))
    found = Vouchers(frozenset({b"/lib"}), {b".": _State(1, 2, 3, 4, 5)})
    told: list[Vouchers] = []

    async def answer(job: Job, *_: object) -> Locked | str:
        job = msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=LockJob)
        told.append(job.vouchers)
        return "it died" if len(told) == 2 else Locked(Lock(LockState.FREE), found)

    monkeypatch.setattr(pool, "_ask", answer)
    for _ in range(3):
        await pool.lock(owner=True)
    assert told == [Vouchers(), found, found]
