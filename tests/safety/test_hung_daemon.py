"""The daemon beside filesystems that hang: health answers, other bundles go on, it ends in time.

By how much its loop is late is what a health check waits for, without the time that daemon and
test could have run while others had the processor.
"""

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.running import free_port
from tests.safety.frozen import frozen_disk, work_dir_began
from tests.safety.ground import NOW, Ground, environment, ground, wait_for
from tests.safety.watched import LAG
from tests.support.bundles import Bundle
from tests.support.deadfuse import dead_fuse
from tests.support.mountns import in_private_mounts, umount

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

STOP = 5.0
CONFIG = """
mode = "enforce"
[watch]
relist = "1s"
[cleanup]
grace = "0s"
[http]
listen = "127.0.0.1:{port}"
[log]
level = "debug"
"""


@dataclass
class Daemon:
    """One that enforces, and the worst that a health check has seen."""

    child: "subprocess.Popen[bytes]"
    port: int
    log: Path
    late: float = 0.0
    asked: int = 0

    def healthy(self) -> bool:
        """Ask for its health once."""
        waited, begun = self._waited(), time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STOP)
        try:
            connection.request("GET", "/livez")
            fine = connection.getresponse().status == 200
        except ConnectionRefusedError:
            return False  # it does not listen yet
        finally:
            connection.close()
        self.late = max(self.late, time.monotonic() - begun - (self._waited() - waited))
        self.asked += 1
        return fine

    def until(self, condition: Callable[[], bool]) -> None:
        """Ask all the while."""

        def holds() -> bool:
            assert self.healthy()
            return condition()

        try:
            wait_for(holds)
        except AssertionError as error:
            error.add_note(self.log.read_text()[-3000:])
            raise

    def end(self) -> float:
        """Send SIGTERM and give the seconds until its end."""
        begun = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(STOP * 3) == 0
        took = time.monotonic() - begun
        assert "Traceback" not in self.log.read_text()
        return took

    def _waited(self) -> float:
        """Seconds that threads of ours and of the daemon's were ready to run, and did not."""
        files = [*Path(f"/proc/{self.child.pid}/task").glob("*/schedstat"),
                 Path("/proc/thread-self/schedstat")]  # fmt: skip
        return sum(int(one.read_text().split()[1]) for one in files) / 1e9


@contextmanager
def daemon(on: Ground) -> Iterator[Daemon]:
    """Have one that enforces on this node."""
    port, config = free_port(), on.site.base / "config.toml"
    config.write_text(CONFIG.format(port=port))
    log = on.site.base / "log"
    with log.open("wb") as stderr:  # not a pipe: a worker that cannot die would keep it open
        child = subprocess.Popen(
            on.words("daemon", "--config", os.fspath(config)),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    made = Daemon(child, port, log)
    try:
        wait_for(made.healthy)
        yield made
    finally:
        child.kill()
        child.wait()


def gone(bundles: list[Bundle]) -> bool:
    return all((bundle.left(), bundle.mounts()) == ([], []) for bundle in bundles)


def in_time(running: Daemon) -> None:
    """See that it has answered all the while, and ends."""
    assert running.asked > 1
    assert running.late < LAG
    assert running.end() < STOP


@pytest.mark.fault("dead FUSE on rootfs", "I18")
def test_a_dead_filesystem_on_rootfs_delays_nobody(tmp_path: Path) -> None:
    in_private_mounts(lambda: _dead(tmp_path))


def _dead(base: Path) -> None:
    with ground(base) as on:
        stuck, others = on.dead("stuck"), [on.dead(f"other-{number}") for number in range(3)]
        umount(stuck.rootfs)
        server = dead_fuse(stuck.rootfs)
        try:
            with daemon(on) as running:
                running.until(lambda: gone([stuck, *others]))
                in_time(running)
        finally:
            os.close(server)
        assert on.harm() == []


@pytest.mark.fault("frozen filesystem under work", "I18", "SIGTERM with a stuck worker")
def test_a_frozen_filesystem_under_work_delays_nobody(tmp_path: Path) -> None:
    in_private_mounts(lambda: _frozen(tmp_path))


def _frozen(base: Path) -> None:
    """The disk is above all work directories, where a disk would be; one bundle has one on it."""
    with ground(base) as on:
        stuck = on.dead("stuck")
        others, later = ([on.dead(f"{word}-{n}") for n in range(3)] for word in ("other", "later"))
        aside = on.site.run / "aside"
        aside.mkdir()
        for bundle in later:
            bundle.path.rename(aside / bundle.path.name)

        def fill() -> None:
            stuck.work.mkdir(parents=True)
            (stuck.work / "data").write_text("x" * 10_000)

        with frozen_disk(stuck.work.parent.parent, fill) as thaw:
            with daemon(on) as running:
                running.until(lambda: work_dir_began(stuck) and gone(others))
                for bundle in later:
                    (aside / bundle.path.name).rename(bundle.path)
                running.until(lambda: gone(later))
                assert stuck.path.exists(), "the bundle goes last"
                in_time(running)
            thaw()
            ran = on.run("clean", *NOW)
            assert ran.code == 0, ran
            assert not stuck.path.exists()
            assert not stuck.work.exists()
        assert on.harm() == []
