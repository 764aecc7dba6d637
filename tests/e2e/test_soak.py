"""The daemon as a whole under everything at once: one process from begin to end, and nobody hurt.

`make soak` lasts ten minutes, with a thousand deaths. RECONCILER_SOAK_SECONDS says otherwise, and
RECONCILER_SOAK_ONLY names the kinds of trouble to make (`tests.e2e.troubles`).
"""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from reconciler.testing.journals import replay
from tests.daemon.running import free_port
from tests.e2e import product, soak, troubles
from tests.e2e.node import Node
from tests.e2e.processes import PATIENCE, Process, until
from tests.e2e.snapshot import Snapshot
from tests.safety.watched import LAG
from tests.support.canary import plant
from tests.support.children import children_of
from tests.support.lag import waited_for_a_processor as waited

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

SHORT: Final = 20.0
LONG: Final = float(os.environ.get("RECONCILER_SOAK_SECONDS", "600"))
ONLY: Final = frozenset(os.environ.get("RECONCILER_SOAK_ONLY", "").split(",")) - {""}
STOP: Final = 5.0

MEMORY: Final = 128 << 20
HANDLES: Final = 1000
"""At most 128 connections at a time, a watch and a pidfd or two for each that lives."""


@dataclass
class Watched:
    """The worst that was seen of a daemon.

    Attributes:
        process: Who.
        port: Where it listens.
        asked: How often its health was asked for.
        late: The longest a health check took, without the time that others had the processors.
        memory: The most that one of its processes had, in bytes.
        handles: The most descriptors it had open.
    """

    process: Process
    port: int
    asked: int = 0
    late: float = 0.0
    memory: int = 0
    handles: int = 0

    def look(self) -> None:
        """Look once; it must be the one it was."""
        assert self.process.alive, "the daemon has ended"
        self.handles = max(self.handles, len(os.listdir(f"/proc/{self.process.pid}/fd")))
        family = [self.process.pid, *children_of(self.process.pid)]
        self.memory = max(self.memory, *map(_memory, family))
        waited, begun = self._waited(), time.monotonic()
        assert status_of(self.port, "/livez") == 200
        self.late = max(self.late, time.monotonic() - begun - (self._waited() - waited))
        self.asked += 1

    def _waited(self) -> float:
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(one.read_text().split()[1]) for one in threads) / 1e9 + waited()


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def status_of(port: int, path: str) -> int:
    """Ask, and give the status; 0 if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STOP)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()


@contextmanager
def daemon(node: Node, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one whose log nobody reads."""
    with subprocess.Popen(
        node.apart.command(product.words(node, "--config", config, "daemon", "-v")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=product.environment(),
    ) as process:
        assert process.stderr is not None
        try:
            yield process
        except BaseException as error:
            process.kill()
            error.add_note(process.stderr.read().decode(errors="replace")[-3000:])
            raise
        finally:
            process.kill()


@pytest.mark.fault("I6", "I18", "everything at once", "log pipe nobody reads")
@pytest.mark.parametrize(
    ("seconds", "deaths"),
    [
        pytest.param(SHORT, 100, id="short", marks=pytest.mark.timeout(240)),
        pytest.param(
            LONG, round(LONG / 0.6), id="long", marks=[pytest.mark.slow, pytest.mark.timeout(0)]
        ),
    ],
)
def test_one_process_bears_everything_at_once(
    node: Node, tmp_path: Path, seconds: float, deaths: int
) -> None:
    living = [node.run("web"), node.run("pod", pod="pod"), node.run("member", pod="pod")]
    living += [node.stopped("stopped"), *node.run_all(f"wedged-{number}" for number in range(3))]
    ground = soak.Ground(node, tmp_path, free_port(), seconds, deaths, living[-3:])
    ground.configure()
    behind = tmp_path / "behind"
    canaries = [plant(behind), plant(node.apart.path(node.state) / "precious")]
    (ground.fake("foreign") / "extra").mkdir()
    node.apart.run("mount", "--bind", behind, f"{node.inside('foreign', soak.BULK)}/extra")
    before = Snapshot.take(node, living)
    with daemon(node, ground.config) as process:
        ground.daemon = process.pid
        watched = Watched(Process.at(process.pid), ground.port)
        until(lambda: status_of(ground.port, "/readyz") == 200, "it is ready")
        with troubles.trouble(ground, *names()) as check:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                watched.look()
                check()
                ground.over.wait(0.05)
        wait_for_the_dead(ground)
        watched.look()
        assert before.changes(Snapshot.take(node, living)) == []
        assert [lost for canary in canaries for lost in canary.lost()] == []
        assert watched.late < LAG, watched
        assert watched.memory < MEMORY, watched
        assert watched.handles < HANDLES, watched
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - begun < STOP
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    played = replay(ground.journal)
    assert (played.differences, played.warnings) == ([], [])


def wait_for_the_dead(ground: soak.Ground) -> None:
    """Wait until all that died is gone; say of what is left why it is."""
    try:
        until(lambda: not ground.left(), "all that died is gone", seconds=60)
    except AssertionError as error:
        left = ground.left()
        rows = [row for row in product.scan(ground.node)["bundles"] if row["id"] in left]
        error.add_note("\n".join(f"{row['id']}: {row['verdict']}, {row['reason']}" for row in rows))
        error.add_note(f"status: {json.dumps(product.status(ground.node))[:3000]}")
        raise


def names() -> list[str]:
    """Name the kinds of trouble that are asked for."""
    return [name for name in troubles.INGREDIENTS if not ONLY or name in ONLY]
