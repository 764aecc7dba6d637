"""A job that has waited for a free worker: is it still wanted, and by which settings?"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.worker.messages import CleanJob, CleanupOptions
from reconciler.worker.pool import Limits, WorkerPool
from tests.support.bundles import DOWN, Bundle, Site
from tests.support.mountns import private_mounts
from tests.worker.test_pool import (
    Later,
    clean,
    eventually,
    first_worker,
    handed_over,
    run,
    stopped,
)


async def clean_if(
    pool: WorkerPool, bundle: Bundle, permit: Callable[[], Outcome | None]
) -> Outcome:
    return await pool.clean(bundle.key, bundle.identity, DOWN, permit)


@pytest.mark.safety
@private_mounts
def test_a_job_that_waited_is_asked_for_again_and_done_by_the_settings_of_then(
    tmp_path: Path,
) -> None:
    """It queued behind one that hung; meanwhile the configuration was loaded anew."""
    asked: list[object] = []

    async def main(made: Site, pool: WorkerPool) -> None:
        hanging, refused, wanted = (made.bundle(name) for name in ("c1", "c2", "c3"))
        held = Outcome(refused.key, refused.identity, Result.HELD, BlockReason.POLICY, "changed")

        def permit(bundle: Bundle, answer: Outcome | None) -> Outcome | None:
            asked.append(bundle.key)
            return answer

        options = CleanupOptions(settle=7.0, lazy_unmount=True)
        worker = await first_worker(pool)
        laters = {bundle.key: Later() for bundle in (refused, wanted)}
        with stopped(worker):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clean(pool, hanging))
                await handed_over(pool, hanging)
                for bundle, answer in ((refused, held), (wanted, None)):
                    once_more = partial(permit, bundle, answer)
                    ask = partial(clean_if, pool, bundle, once_more)
                    tasks.start_soon(laters[bundle.key].get, ask)
                await eventually(lambda: len(pool._under_way) == 3)
                attempt = pool._under_way[wanted.key]
                pool.configure(options, parallel=1)
                assert asked == []  # nobody is asked before there is a worker
        assert asked == [refused.key, wanted.key]
        assert laters[refused.key].outcome == held
        assert refused.left()
        outcome = laters[wanted.key].outcome
        assert outcome is not None
        assert outcome.result is Result.CLEANED, outcome
        assert isinstance(attempt.job, CleanJob)
        assert attempt.job.options == options

    run(main, tmp_path, limits=Limits(job=0.8), parallel=1)
