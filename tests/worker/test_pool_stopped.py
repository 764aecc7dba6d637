"""A service manager stops a service by signals to every process of it, also as it starts."""

import os
import signal
from pathlib import Path

from reconciler.model.outcome import Result
from reconciler.worker.pool import WorkerPool
from tests.support.bundles import Site
from tests.support.children import has_ended
from tests.support.mountns import private_mounts
from tests.worker.test_pool import clean, fork_server_of, run


@private_mounts
def test_a_stop_of_the_whole_service_reaches_no_fork_server_that_starts(tmp_path: Path) -> None:
    """A service manager signals every process of it, and no other fork server may be made then."""

    async def main(made: Site, pool: WorkerPool) -> None:
        fork_server = fork_server_of(pool)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(fork_server, number)
        outcome = await clean(pool, made.bundle())()
        assert outcome.result is Result.CLEANED, outcome
        assert fork_server_of(pool) == fork_server
        os.kill(fork_server, signal.SIGTERM)  # nor later
        assert (await pool.scan()).answered
        assert not has_ended(fork_server)

    run(main, tmp_path)
