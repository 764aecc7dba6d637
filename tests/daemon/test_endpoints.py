"""The endpoints of a real daemon: abused, scraped, counted against system calls."""

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.daemon.running import NAMESPACE, Site, enforces, needs, running, until
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel

SLOW = 1000


@pytest.mark.fault("1,000 slow connections, a 1 MB header")
@enforces
def test_slow_clients_and_a_huge_header_delay_no_cleanup(
    site: Site, answering: FakeContainerd
) -> None:
    """A thousand connections that never finish a request, and a header of a megabyte."""
    site.write(mode="enforce", cleanup__grace="0s")
    with running(site) as daemon:
        quiet = _seconds_to_clean(site, "before")
        with contextlib.ExitStack() as stack:
            for number in range(SLOW):
                slow = stack.enter_context(_connect(site, 5.0))
                with contextlib.suppress(OSError):
                    slow.send(b"GET /metrics HTTP/1.1\r\nx-%d: " % number)
            huge = stack.enter_context(_connect(site, 5.0))
            with contextlib.suppress(OSError):
                huge.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * (1 << 20))
            abused = _seconds_to_clean(site, "meanwhile")
            assert daemon.ask("/livez")[0] == 200
            assert daemon.ask("/livez", order=True)[0] == 200
        assert abused < quiet + 0.5, f"{quiet} s, then {abused} s"
        assert daemon.end()[0] == 0


def _connect(site: Site, seconds: float) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=seconds)


def is_gone(path: Path) -> bool:
    return not path.exists()


def _seconds_to_clean(site: Site, name: str) -> float:
    """Give the median of a few: others work on this machine, too."""
    took: list[float] = []
    for number in range(5):
        begun = time.monotonic()
        path = site.make(f"{name}{number}")
        until(partial(is_gone, path), f"{path} is removed")
        took.append(time.monotonic() - begun)
    return statistics.median(took)


def test_a_huge_header_is_refused_and_not_kept(site: Site) -> None:
    with running(site) as daemon:
        with _connect(site, 5.0) as client:
            with contextlib.suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * (1 << 20))
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(64).startswith(b"HTTP/1.1 431 ")
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        peak = int(re.findall(r"VmHWM:\s+(\d+)", status)[0])
        now = int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
        assert peak - now < 4096, "kibibytes"


def test_what_is_scraped_is_what_prometheus_wants(site: Site, answering: FakeContainerd) -> None:
    promtool = needs("promtool")
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        text = daemon.ask("/metrics")[1]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PROMISED = {
    "bundles": {"namespace", "verdict", "phase"},
    "debris": {"kind"},
    "leftover_bytes": set(),
    "oldest_leftover_age_seconds": set(),
    "leftover_age_seconds_count": set(),
    "freed_bytes_total": {"namespace"},
    "cleanups_total": {"namespace", "result"},
    "cleanup_duration_seconds_count": set(),
    "abnormal_terminations_total": {"namespace", "cause"},
    "blocked": {"reason"},
    "wedged_shims": set(),
    "over_budget": {"kind"},
    "watch_backend": {"backend"},
    "watch_events_total": set(),
    "watch_overflows_total": set(),
    "relist_duration_seconds_count": set(),
    "last_relist_timestamp_seconds": set(),
    "containerd_up": set(),
    "mode": {"mode"},
    "brake_on": {"brake"},
    "guard_ok": {"guard"},
    "config_last_reload_successful": set(),
    "journal_records_lost_total": set(),
    "internal_errors_total": {"where"},
    "build_info": {"version"},
}
"""Design section 8: names and labels are promises."""


def test_every_promised_metric_is_there_before_anything_happens(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        daemon.wait_for("inventory.counted")  # a kind that nobody has looked for has no series
        found = daemon.metrics()
        own = daemon.ask("/metrics")[1]
    assert float(re.findall(r"^process_resident_memory_bytes (\S+)$", own, re.MULTILINE)[0]) > 1e6
    for name, labels in PROMISED.items():
        series = [one for one in found if re.fullmatch(rf"{name}(\{{.*\}})?", one)]
        assert series, name
        assert {label for one in series for label in re.findall(r'(\w+)="', one)} == labels, name
    assert found[f'cleanups_total{{namespace="{NAMESPACE}",result="cleaned"}}'] == 0
    assert found[f'abnormal_terminations_total{{cause="both",namespace="{NAMESPACE}"}}'] == 0
    assert found["containerd_up"] == 1


@pytest.mark.fault("I22")
@enforces
def test_metrics_are_records_are_system_calls(site: Site, answering: FakeContainerd) -> None:
    strace = needs("strace")
    for number in range(8):
        site.make(f"b{number}")
    blocked = site.make("blocked")
    (blocked / "rootfs" / "data").write_text("precious")
    site.write(mode="enforce", cleanup__grace="0s")
    trace = site.base / "trace"
    calls = "unlink,unlinkat,rmdir,rename,renameat,renameat2,umount2,kill,pidfd_send_signal"
    # A file for each process: in one file calls are torn where processes alternate.
    command = (strace, "-ff", "-y", "-o", str(trace), "-e", f"trace={calls}", "-e", "signal=none")
    with running(site, before=command) as daemon:
        until(lambda: len(daemon.events("bundle.cleaned")) == 8, "all are removed")
        daemon.wait_for("bundle.blocked", id="blocked")
        counted = daemon.metrics()
        own = next(line for line in _children(daemon.process.pid))
        os.kill(own, signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    steps = daemon.events("step.finished")
    recorded = Counter[str]()
    for line in steps:
        recorded[str(line["step"])] += int(str(line["mutations"]))
    metrics = {
        re.findall(r'step="(.+?)"', name)[0]: int(value)
        for name, value in counted.items()
        if name.startswith("mutations_total")
    }
    assert {step: count for step, count in metrics.items() if count} == +recorded
    ended = [*daemon.events("bundle.cleaned"), *daemon.events("bundle.blocked")]
    assert sum(int(str(line["mutations"])) for line in ended) == recorded.total()
    assert counted[f'cleanups_total{{namespace="{NAMESPACE}",result="cleaned"}}'] == 8
    assert counted[f'cleanups_total{{namespace="{NAMESPACE}",result="blocked"}}'] == len(
        daemon.events("bundle.blocked")
    )
    called = [
        line
        for part in site.base.glob("trace.*")
        for line in part.read_text().splitlines()
        if re.search(r"= 0$", line) and _is_in(site, line)
    ]
    assert len(called) == recorded.total(), "\n".join(called)
    assert (blocked / "rootfs" / "data").read_text() == "precious"


def _is_in(site: Site, line: str) -> bool:
    """Return whether a call was about containerd's directories and not about our own."""
    return any(f"{site.base}/{name}" in line for name in ("state", "root", "run"))


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_answers_carry_no_secrets_and_allow_nothing(site: Site) -> None:
    with running(site) as daemon:
        for method, path, code in (
            ("POST", "/metrics", 405),
            ("GET", "/-/reload", 404),
            ("GET", "/../etc/passwd", 404),
            ("DELETE", "/", 405),
        ):
            assert daemon.ask(path, method)[0] == code, path
        daemon.wait_for("guards.checked")
        code, body = daemon.ask("/readyz?verbose")
        assert code == 200
        assert "[+]listing ok" in body
        assert "[+]brake ok" in body
        told = json.loads(daemon.ask("/status")[1])
        assert told["pid"] == daemon.process.pid
