"""The executor remembers no more than it needs, however long it runs."""

from pathlib import Path

import anyio
import pytest

from reconciler.act import crew
from reconciler.act.channel import LookJob, Manner
from reconciler.act.executor import Executor
from reconciler.model.ids import BundleKey
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

    async def never(_: object, attempt: crew.Attempt, seconds: float) -> None:
        assert isinstance(attempt.job, LookJob)
        (key,) = attempt.job.keys
        attempt.is_dying = lambda: key.id in dying

    monkeypatch.setattr(crew.Crew, "run", never)
    with site(tmp_path) as made:
        executor = Executor(Manner(made.layout, runc="runc"))

        async def look(name: str) -> None:
            dying.add(name)
            key = BundleKey("default", name)
            assert await executor.look_far((key,), frozenset(), frozenset({name})) is None

        await look("stays")
        for number in range(20):
            await look(str(number))
            dying.discard(str(number - 1))
        await look("last")
        assert set(executor._hung) == {frozenset({one}) for one in ("stays", "19", "last")}
