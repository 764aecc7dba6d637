"""A daemon on a state tree on a disk, before and after a boot."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.probe import boots
from tests.daemon.running import NAMESPACE, Site, enforces, on_disk, running, until
from tests.support.fake_containerd import FakeContainerd

pytestmark = [pytest.mark.kernel, pytest.mark.safety]

LONG_AGO = 1_500_000_000


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in a mount namespace of its own, as a container's is."""
    with subprocess.Popen(["unshare", "-m", "sleep", "600"]) as process:
        yield process.pid
        process.kill()


def outlive_a_boot(site: Site, pid: int) -> Path:
    """Make a bundle as a boot leaves it: nothing in memory, and its pid is somebody else's."""
    bundle = site.make("old")
    (bundle / "init.pid").write_text(str(pid))
    for path in (*bundle.iterdir(), bundle):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    shutil.rmtree(Path(os.fsdecode(site.layout.runc_root)) / NAMESPACE / "old")
    return bundle


@enforces
@on_disk
def test_what_it_saw_before_a_boot_is_removed_after_it_whoever_has_the_pid(
    site: Site, answering: FakeContainerd, stranger: int
) -> None:
    kept = site.base / "kept"
    bundle = outlive_a_boot(site, stranger)
    site.write(mode="enforce", cleanup__grace="0s")
    with running(site, STATE_DIRECTORY=str(kept)) as daemon:
        daemon.wait_for("bundle.judged", id="old", verdict="unknown")
        assert daemon.end()[0] == 0
    (record,) = kept.glob("boots-*.json")
    assert bundle.exists()
    # As after a boot: the kernel has another id.
    record.write_text(record.read_text().replace(boots.boot_id(), "the-boot-before"))
    with running(site, STATE_DIRECTORY=str(kept)) as daemon:
        daemon.wait_for("bundle.cleaned", id="old")
        assert daemon.end()[0] == 0
    os.kill(stranger, 0)
    until(lambda: '"earlier":[]' in record.read_text(), "what has gone is forgotten")


@on_disk
def test_where_a_disk_is_not_allowed_nothing_is_kept(
    site: Site, answering: FakeContainerd, stranger: int
) -> None:
    kept = site.base / "kept"
    outlive_a_boot(site, stranger)
    site.write(containerd__allow_disk=False)
    with running(site, STATE_DIRECTORY=str(kept)) as daemon:
        daemon.wait_for("bundle.judged", id="old", verdict="unknown")
        assert daemon.end()[0] == 0
    assert not kept.exists()
