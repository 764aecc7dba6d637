"""A world of its own for every test."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probe.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def open_world() -> Iterator[World]:
    """Give a world that others may look at, to become one of them."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with tempfile.TemporaryDirectory(prefix="reconciler-") as directory:
        Path(directory).chmod(0o755)
        made = World(Path(directory))
        yield made
        made.close()
