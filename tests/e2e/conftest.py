"""Nodes for the tests, each gone without a trace when its test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with nothing on it."""
    with Node(tmp_path) as made:
        yield made


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Node]:
    """A node whose containerd serves Kubernetes too."""
    with Node(tmp_path, cri=True) as made:
        yield made
