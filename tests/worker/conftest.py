"""What tests in this folder share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.handles import open_files


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    """Give a handle on an empty directory, and see that no other is left open."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = open_files()
    yield fd
    assert open_files() <= before, "a handle was left open"
    os.close(fd)
