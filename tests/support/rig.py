"""A loop and everything around it, in virtual time."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from reconciler.decide.engine import Engine
from reconciler.loop import Loop
from reconciler.model.policy import Policies
from reconciler.ports import Stages
from tests.support.clock import VirtualClock
from tests.support.fakes import (
    FakeCleaner,
    FakeExits,
    FakeGuards,
    FakeInspector,
    FakeNodeSource,
    FakeWatcher,
    Memory,
)


@dataclass
class Rig:
    """A loop and everything around it."""

    policies: Policies
    relist: float | None = 300.0

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.inspector = FakeInspector()
        self.cleaner = FakeCleaner(self.clock, self.inspector)
        self.node_source = FakeNodeSource(self.clock)
        self.guards = FakeGuards()
        self.exits = FakeExits()
        self.watcher = FakeWatcher()
        self.memory = Memory()
        self.engine = Engine(self.policies)
        self.stages = Stages(
            clock=self.clock,
            inspector=self.inspector,
            node_source=self.node_source,
            cleaner=self.cleaner,
            guards=self.guards,
            exits=self.exits,
            watcher=self.watcher,
            listeners=(self.memory,),
        )
        self.loop = Loop(self.engine, self.stages, relist=self.relist)

    async def run_until(self, done: Callable[[], bool]) -> None:
        """Turn until a condition holds; fail after a day of virtual time."""
        end = self.clock.now + 86400

        def check(now: float) -> bool:
            assert now < end, "did not happen within a day"
            return done()

        with anyio.fail_after(20):
            await self.loop.run(check)

    async def run_for(self, seconds: float) -> None:
        end = self.clock.now + seconds
        await self.run_until(lambda: self.clock.now >= end)
