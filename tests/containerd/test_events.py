"""Events are hints, and containerd's coming and going is doubt."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from reconciler.clock import Bell
from reconciler.containerd.client import _TOPICS, ContainerdClient, Events
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, HintKind, Observation, Resync, ResyncKind
from reconciler.supervision import RESTARTS
from tests.support.fake_containerd import FakeContainerd

WEB = BundleKey("default", "web")
HINT = Hint(WEB, HintKind.CONTAINERD)
DOUBT = Resync(ResyncKind.CONTAINERD)


@dataclass
class ImpatientClock:
    """Never waits, and remembers for how long it should have."""

    waits: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return 100.0

    def wall(self) -> float:
        return 0.0

    async def wait(self, bell: Bell, until: float | None) -> None:
        assert until is not None
        self.waits.append(until - 100.0)
        await checkpoint()


async def until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(10):
        while not condition():
            await checkpoint()


async def test_events_become_hints_and_a_restart_becomes_doubt(tmp_path: Path) -> None:
    fake, received = FakeContainerd(tmp_path), list[Observation]()
    events = Events(ContainerdClient(fake.layout.address), ImpatientClock())
    async with fake, anyio.create_task_group() as tasks:
        tasks.start_soon(events.run, received.append)
        await fake.subscribed()
        fake.publish(WEB)
        await until(lambda: received == [HINT])
        await fake.stop()
        await until(lambda: received == [HINT, DOUBT])
        await fake.start()
        await until(lambda: received == [HINT, DOUBT, DOUBT])
        await fake.subscribed()
        fake.publish(WEB, "/tasks/delete")
        await until(lambda: received == [HINT, DOUBT, DOUBT, HINT])
        tasks.cancel_scope.cancel()


async def test_the_exit_of_an_exec_is_no_hint(tmp_path: Path) -> None:
    fake, received = FakeContainerd(tmp_path), list[Observation]()
    events = Events(ContainerdClient(fake.layout.address), ImpatientClock())
    async with fake, anyio.create_task_group() as tasks:
        tasks.start_soon(events.run, received.append)
        await fake.subscribed()
        fake.publish(WEB, process="a3f0")
        fake.publish(WEB, process=WEB.id)  # its init
        await until(lambda: bool(received))
        assert received == [HINT]
        tasks.cancel_scope.cancel()


def test_execs_are_not_subscribed_to() -> None:
    topics = ("/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/start")
    (pattern,) = (one.split('"')[1] for one in _TOPICS if "~=" in one)
    exact = {one.split('"')[1] for one in _TOPICS if "~=" not in one}
    received = {topic for topic in topics if re.search(pattern, topic) or topic in exact}
    assert received == {"/tasks/exit", "/tasks/start"}


async def test_attempts_grow_rarer_until_an_event_comes(tmp_path: Path) -> None:
    fake, clock, received = FakeContainerd(tmp_path), ImpatientClock(), list[Observation]()
    events = Events(ContainerdClient(fake.layout.address), clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.run, received.append)
        await until(lambda: clock.waits.count(RESTARTS.most) >= 2)
        first = RESTARTS.first
        assert clock.waits[:4] == [first, 2 * first, 4 * first, 8 * first]
        assert received == []
        async with fake:
            await fake.subscribed()
            fake.publish(WEB)
            await until(lambda: HINT in received)
            before = len(clock.waits)
        await until(lambda: len(clock.waits) > before)
        assert clock.waits[before] == RESTARTS.first
        tasks.cancel_scope.cancel()
