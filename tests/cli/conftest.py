"""Nodes for the commands: one in a dictionary, and one of real processes and files."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from reconciler.demo.node import DemoNode
from reconciler.model.observations import Refusal
from reconciler.ports import Stages
from tests.support.clock import VirtualClock
from tests.support.fakes import (
    FakeCleaner,
    FakeExits,
    FakeGuards,
    FakeInspector,
    FakeNodeSource,
    Memory,
)


@dataclass
class FakeNode:
    clock: VirtualClock = field(default_factory=VirtualClock)
    inspector: FakeInspector = field(default_factory=FakeInspector)
    guards: FakeGuards = field(default_factory=FakeGuards)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.cleaner = FakeCleaner(self.clock, self.inspector)
        self.node_source = FakeNodeSource(self.clock, debris=self.cleaner.debris)

    @property
    def stages(self) -> Stages:
        return Stages(
            clock=self.clock,
            inspector=self.inspector,
            node_source=self.node_source,
            cleaner=self.cleaner,
            guards=self.guards,
            exits=FakeExits(),
            listeners=(self.memory,),
        )

    def refuse(self, *refused: Refusal) -> None:
        self.guards.refused = refused


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoNode]:
    """A throw-away tree of real processes and files."""
    # Not in /dev, which no configuration may name; and short, for the sockets' sake.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        with DemoNode(time.time()) as node:
            yield node
