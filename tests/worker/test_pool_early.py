"""A pool takes over a fork server that was started before it, while the rest was being loaded."""

import pytest

from reconciler.errors import InvariantError
from reconciler.model.layout import Layout
from reconciler.worker.client import ForkServerClient
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import WorkerPool
from tests.support.children import has_ended


async def test_an_early_fork_server_serves_its_own_tree_alone_and_ends_with_the_pool() -> None:
    here, elsewhere = WorkerScope(Layout()), WorkerScope(Layout(state=b"/elsewhere"))
    server = ForkServerClient(here)
    with pytest.raises(InvariantError):
        await WorkerPool(elsewhere, server=server).__aenter__()
    async with WorkerPool(here, server=server) as pool:
        assert pool.fork_server == server.pid
        assert (await pool.scan()).answered
    assert has_ended(server.pid)
