"""The packages, as a release has them, and a Debian in which nothing else is.

RECONCILER_DIST names a directory with what `make wheelhouse pyz deb` made, RECONCILER_DEBIAN_ROOT
one where the Debian is or is to be made; `.ci/run` does both, so that each is made once.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.support import debian_root

DIST = "RECONCILER_DIST"
ROOT = "RECONCILER_DEBIAN_ROOT"


@pytest.fixture(scope="session")
def dist() -> Path:
    """What was made."""
    if DIST not in os.environ:
        pytest.skip(f"{DIST} does not name what `make pyz deb` made")
    return Path(os.environ[DIST]).resolve()


@pytest.fixture(scope="session")
def pyz(dist: Path) -> Path:
    """The single file for this Python."""
    (found,) = dist.glob(f"*-cp{sys.version_info[0]}{sys.version_info[1]}-*.pyz")
    return found


@pytest.fixture(scope="session")
def deb(dist: Path) -> Path:
    """The package."""
    (found,) = dist.glob("*.deb")
    return found


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh Debian that nobody writes to."""
    kept = os.environ.get(ROOT)
    if kept is None:
        return debian_root.make(tmp_path_factory.mktemp("debian") / "root")
    return Path(kept) if Path(kept, "usr").exists() else debian_root.make(Path(kept))
