"""A containerd that is hung, slow or restarting in a loop makes no leftovers by its silence."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd import tasks
from reconciler.containerd.answers import Singles
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Containerd, ContainerdState
from tests.decide.world import World, dead
from tests.support.asking import ask
from tests.support.fake_containerd import GET, NAMESPACES, TASKS, VERSION, FakeContainerd

pytestmark = [
    pytest.mark.safety,
    pytest.mark.fault("containerd hung, slow, restarting in a loop"),
]

UP, DOWN, NONE = ContainerdState.UP, ContainerdState.DOWN, ContainerdState.NONE


class Sick:
    """A dead bundle, and a containerd with the same namespace that is asked about it."""

    def __init__(self, fake: FakeContainerd) -> None:
        self.fake = fake
        fake.namespaces = {"ns"}
        self.world = World()
        self.world.listed(a=1)
        self.world.look(dead())

    async def ask(self) -> Containerd:
        singles = Singles(self.world.engine.to_ask)
        with anyio.fail_after(10):
            said = await ask(self.fake.layout, deadline=0.3, singles=singles)
        self.world.wait(1)
        self.world.node(said)
        return said

    def is_leftover(self) -> bool:
        return self.world.view().judgement.verdict is Verdict.LEFTOVER


@pytest.fixture
async def sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sick]:
    monkeypatch.setattr(tasks, "SOON", 0.1)
    monkeypatch.setattr(tasks, "ALONE", 0.3)
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeContainerd(tmp_path))
        stack.enter_context(fake.lock())
        yield Sick(fake)


def hang_at(*methods: str) -> Callable[[FakeContainerd], None]:
    return lambda fake: fake.delays.update(dict.fromkeys(methods, 3600.0))


def fail_at(*methods: str) -> Callable[[FakeContainerd], None]:
    error = GRPCError(Status.UNAVAILABLE, "shutting down")
    return lambda fake: fake.errors.update(dict.fromkeys(methods, error))


@pytest.mark.parametrize(
    "ill",
    [
        hang_at(VERSION),
        hang_at(NAMESPACES),
        hang_at(TASKS, GET),
        fail_at(VERSION),
        fail_at(NAMESPACES),
        fail_at(TASKS, GET),
    ],
    ids=["version", "namespaces", "tasks", "no version", "no namespaces", "no tasks"],
)
async def test_silence_makes_no_leftover_and_its_end_does(
    sick: Sick, ill: Callable[[FakeContainerd], None]
) -> None:
    ill(sick.fake)
    for _ in range(2):
        assert (await sick.ask()).state is NONE
        assert not sick.is_leftover()
    sick.fake.delays.clear()
    sick.fake.errors.clear()
    assert (await sick.ask()).state is UP
    assert sick.is_leftover()


async def test_what_is_slow_alone_is_asked_for_alone(sick: Sick) -> None:
    hang_at(TASKS)(sick.fake)
    assert (await sick.ask()).unlisted == {"ns"}
    assert sick.is_leftover()
    hang_at(GET)(sick.fake)
    await sick.ask()
    assert not sick.is_leftover(), "nothing was answered, so nothing earlier counts"


async def test_one_that_restarts_in_a_loop_makes_none_while_it_starts(sick: Sick) -> None:
    for _ in range(3):
        assert (await sick.ask()).state is UP
        assert sick.is_leftover()
        await sick.fake.stop()  # it holds its lock, and refuses: it sweeps
        assert (await sick.ask()).state is NONE
        assert not sick.is_leftover()
        await sick.fake.start()
        sick.fake.drops = {TASKS}  # it dies half way through the answer
        assert (await sick.ask()).state is NONE
        assert not sick.is_leftover()
        await sick.fake.stop()
        sick.fake.drops = set()
        await sick.fake.start()
    assert (await sick.ask()).state is UP
    assert sick.is_leftover()
