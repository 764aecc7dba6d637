"""The real containerd and the fake one answer alike."""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from reconciler.containerd.client import ContainerdClient
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from tests.containerd.real import RealContainerd, until
from tests.containerd.test_client import tasks_of
from tests.support.asking import ask
from tests.support.fake_containerd import FakeContainerd

SPACE = f"contract-{os.getpid()}"
WEB, DNS = BundleKey(SPACE, "web"), BundleKey(SPACE, "dns")


class Daemon(Protocol):
    """What both can be told."""

    layout: Layout

    async def run(self, key: BundleKey) -> None: ...
    async def end(self, key: BundleKey) -> None: ...
    async def listening(self) -> None: ...


async def up(layout: Layout) -> Containerd:
    """Wait for it to serve."""
    with anyio.fail_after(30):
        while (said := await ask(layout)).state is not ContainerdState.UP:  # noqa: ASYNC110 -- nothing tells
            await anyio.sleep(0.005)
    return said


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.containerd)])
async def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Daemon]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            fake = await stack.enter_async_context(FakeContainerd(tmp_path))
            stack.enter_context(fake.lock())
            yield fake
        else:
            real = await stack.enter_async_context(RealContainerd(tmp_path))
            real.start()
            await up(real.layout)
            yield real


async def test_tasks_come_and_go(daemon: Daemon) -> None:
    client = ContainerdClient(daemon.layout.address)
    assert (await up(daemon.layout)).tasks == frozenset()
    await daemon.run(WEB)
    await daemon.run(DNS)
    assert await tasks_of(client) == {WEB, DNS}
    await daemon.end(DNS)
    assert await tasks_of(client) == {WEB, DNS}, "a stopped task is still a task"
    assert await client.delete(DNS) == ""
    assert await tasks_of(client) == {WEB}
    assert await client.delete(DNS) == "", "an unknown task is fine"
    assert "cannot delete a running process" in await client.delete(WEB)
    assert await tasks_of(client) == {WEB}
    await daemon.end(WEB)
    assert await client.delete(WEB) == ""
    assert await tasks_of(client) == frozenset()


async def test_what_it_knows_of_a_name_is_said(daemon: Daemon) -> None:
    client = ContainerdClient(daemon.layout.address)
    await up(daemon.layout)
    await daemon.run(WEB)
    known = await client.find(DNS, (DNS, WEB))
    assert known.recorded == {DNS, WEB}
    assert known.unrecorded == set()
    known = await client.find(DNS, (DNS,))
    assert known.recorded == set()
    assert known.unrecorded == {DNS}


async def test_the_version_is_said(daemon: Daemon) -> None:
    version = (await ContainerdClient(daemon.layout.address).ask()).version
    assert version
    assert (await ask(daemon.layout)).version == version


async def test_what_happens_to_a_task_is_heard(daemon: Daemon) -> None:
    client, received, subscribed = (
        ContainerdClient(daemon.layout.address),
        set[BundleKey](),
        anyio.Event(),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.subscribe, subscribed.set, received.add)
        with anyio.fail_after(30):
            await subscribed.wait()
            await daemon.listening()
            await daemon.run(WEB)
            await until(lambda: WEB in received)
            received.clear()
            await daemon.end(WEB)
            await until(lambda: WEB in received)
            received.clear()
            await client.delete(WEB)
            await until(lambda: WEB in received)
        tasks.cancel_scope.cancel()


@pytest.mark.containerd
async def test_a_life_of_containerd_as_the_witness_sees_it(tmp_path: Path) -> None:
    async with RealContainerd(tmp_path) as real:
        never = await ask(real.layout)
        assert never.state is ContainerdState.NONE
        assert never.detail.endswith("; is --root right?")

        real.start()
        said = await up(real.layout)
        assert said.pid == real.pid
        await real.run(WEB)

        real.freeze()
        hung = await ask(real.layout, deadline=0.2)
        real.thaw()
        assert (hung.state, hung.pid) == (ContainerdState.NONE, real.pid)
        assert "it hangs" in hung.detail

        real.kill()
        down = await ask(real.layout)
        assert down.state is ContainerdState.DOWN, down.detail
        assert down.tasks == frozenset()

        real.start()
        states = [ContainerdState.DOWN]
        with anyio.fail_after(30):
            while states[-1] is not ContainerdState.UP:
                said = await ask(real.layout)
                if said.state is not states[-1]:
                    states.append(said.state)
        assert (
            states
            in (  # once it holds its lock it is never down again; a fast one skips a state
                [ContainerdState.DOWN, ContainerdState.NONE, ContainerdState.UP],
                [ContainerdState.DOWN, ContainerdState.UP],
            )
        )
        assert said.tasks == {WEB}
