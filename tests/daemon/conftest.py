"""Trees for the daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import Site, containerd
from tests.support.fake_containerd import FakeContainerd


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def answering(site: Site) -> Iterator[FakeContainerd]:
    """A containerd that answers and lists nothing."""
    with containerd(site) as fake:
        yield fake
