"""The daemon as a process: every thread is confined, and without a fork server it ends."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from reconciler.kernel import confine as giving_up
from reconciler.probe.privileges import PARENT, WORKER, numbers
from tests.daemon.running import Daemon, Site, containerd, running, until
from tests.support import mountns
from tests.support.fake_containerd import FakeContainerd
from tests.support.forked import mask, status_of
from tests.support.mountns import private_mounts

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have capabilities")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fork_server_of(daemon: Daemon) -> int:
    def is_fork_server(pid: int) -> bool:
        return b"reconciler.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()

    (fork_server,) = filter(is_fork_server, children(daemon.process.pid))
    return fork_server


@as_root
@pytest.mark.kernel
def test_every_thread_of_the_daemon_is_confined_and_says_so(
    site: Site, answering: FakeContainerd
) -> None:
    """Also the one that watches a file until it is quiet, and one to ask a name server in."""
    bounding = status_of()["CapBnd"]
    journal = site.base / "journals"
    journal.mkdir()
    site.write(journal__path=str(journal / "run.jsonl"), http__listen=f"localhost:{site.port}")
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a")
        daemon.wait_for("processes.scanned", answered=True)  # a worker has been at work
        line = daemon.wait_for("daemon.confined")
        assert line["places"] == [str(site.base / "own")]
        pid, fork_server = daemon.process.pid, fork_server_of(daemon)
        others = [child for child in children(pid) if child != fork_server]
        assert len(others) == 1, "the journal's writer"
        assert os.listdir(f"/proc/{pid}/task") == [str(pid)], "no thread while nothing changes"
        site.write(http__listen=f"localhost:{site.port}")
        until(lambda: len(os.listdir(f"/proc/{pid}/task")) > 1, "it is watched in a thread")
        threads = [f"{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
        for who in (*threads, str(others[0])):
            found = status_of(who)
            assert found["CapPrm"] == found["CapEff"] == mask(numbers(PARENT)) & bounding
            assert found["NoNewPrivs"] == 1
        assert status_of(fork_server)["CapEff"] == mask(numbers(WORKER)) & bounding
        told = daemon.ask("/readyz?verbose")[1]
        how = "by Landlock" if giving_up.landlock_abi() else r"by capabilities alone \(.*\)"
        assert re.search(rf"^\[\+\]confined {how} ok$", told, re.MULTILINE), told
        assert daemon.end()[0] == 0
    assert (journal / "run.jsonl").stat().st_size > 0


@as_root
@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_with_what_the_unit_grants_it_is_confined_as_well_and_cleans(
    site: Site, answering: FakeContainerd
) -> None:
    """There is no CAP_SETPCAP: the bounding set stays, and cannot be used."""
    grants = {one.name.removeprefix("CAP_").lower() for one in (*WORKER, *PARENT)}
    bounding = "--bounding-set=" + ",".join(["-all", *(f"+{name}" for name in sorted(grants))])
    site.write(mode="enforce", cleanup__grace="0s")
    site.make("a")
    with running(site, before=("setpriv", "--no-new-privs", bounding)) as daemon:
        daemon.wait_for("bundle.cleaned", id="a")
        found, workers = status_of(daemon.process.pid), status_of(fork_server_of(daemon))
        assert found["CapPrm"] == found["CapEff"] == mask(numbers(PARENT))
        assert found["CapBnd"] == mask(numbers((*WORKER, *PARENT)))
        assert workers["CapPrm"] == workers["CapEff"] == mask(numbers(WORKER))
        assert daemon.end()[0] == 0


@as_root
@pytest.mark.kernel
def test_a_fork_server_that_dies_ends_the_daemon_with_70(
    site: Site, answering: FakeContainerd
) -> None:
    site.write(mode="enforce")
    with running(site) as daemon:
        os.kill(fork_server_of(daemon), signal.SIGKILL)
        assert daemon.process.wait(10) == 70
        daemon._reader.join()
        assert len(daemon.strange) == 1
        assert daemon.strange[0].startswith(
            "containerd-reconciler: the process that makes the workers has ended"
        )


@as_root
@private_mounts
def test_a_confined_daemon_unmounts_and_removes_through_its_workers(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rootfs = site.make("a") / "rootfs"
    lower, upper, work = (tmp_path / "layers" / name for name in ("lower", "upper", "work"))
    (tmp_path / "layers").mkdir()
    mountns.tmpfs(tmp_path / "layers")
    for path in (lower, upper, work):
        path.mkdir()
    mountns.overlay(lower, upper, work, rootfs)
    site.write(mode="enforce", cleanup__grace="0s")
    with containerd(site), running(site) as daemon:
        daemon.wait_for("bundle.cleaned", id="a")
        assert daemon.end()[0] == 0
    assert site.left() == set()
    assert not os.path.ismount(rootfs)
