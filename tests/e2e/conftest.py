"""Nodes for the tests, each gone without a trace when its test ends.

A node has the machine's cgroups, or version 2 alone where its parameter is true
(`tests.e2e.kinds.either`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kinds import needs_version_2
from tests.e2e.node import Node


def _unified(request: pytest.FixtureRequest) -> bool:
    wanted = bool(getattr(request, "param", False))
    if wanted:
        needs_version_2()
    return wanted


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with nothing on it."""
    with Node(tmp_path, unified=_unified(request)) as made:
        yield made


@pytest.fixture
def kubernetes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node whose containerd serves Kubernetes too."""
    with Node(tmp_path, cri=True, unified=_unified(request)) as made:
        yield made
