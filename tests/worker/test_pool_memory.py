"""The pool remembers no more than it needs, however long it runs."""

from pathlib import Path

import anyio
import pytest

from reconciler.model.ids import BundleKey
from reconciler.worker.messages import LookJob, WorkerScope
from reconciler.worker.pool import WorkerPool
from reconciler.worker.running_job import Attempt
from tests.support.bundles import site
from tests.support.mountns import private_mounts


@private_mounts
def test_only_looks_that_still_hang_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles name places that come and go, each with its names; a daemon lives for months."""
    anyio.run(only_what_still_hangs, tmp_path, monkeypatch)


async def only_what_still_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = set[str]()
    asked: list[tuple[Attempt, str]] = []

    async def never(_: object, attempt: Attempt, seconds: float) -> None:
        assert isinstance(attempt.job, LookJob)
        (key,) = attempt.job.keys
        asked.append((attempt, key.id))

    def is_dying(attempt: Attempt) -> bool:
        return any(one is attempt and name in dying for one, name in asked)

    monkeypatch.setattr(WorkerPool, "_run", never)
    monkeypatch.setattr(Attempt, "is_dying", is_dying)
    with site(tmp_path) as made:
        pool = WorkerPool(WorkerScope(made.layout))

        async def look(name: str) -> None:
            dying.add(name)
            key = BundleKey("default", name)
            assert await pool.look_far((key,), frozenset(), frozenset({name})) is None

        await look("stays")
        for number in range(20):
            await look(str(number))
            dying.discard(str(number - 1))
        await look("last")
        assert set(pool._hung) == {frozenset({one}) for one in ("stays", "19", "last")}
