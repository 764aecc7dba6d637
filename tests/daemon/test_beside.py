"""One truth on a node: what the other commands show and do beside a daemon that runs."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.daemon.running import PROGRAM, Daemon, Site, enforces, environment, running, until
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel


def call(site: Site, *words: str, config: str | None = None) -> subprocess.CompletedProcess[str]:
    config = str(site.config) if config is None else config
    return subprocess.run(
        [*PROGRAM, *words, *(["--config", config] if config else [])],
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def waiting(daemon: Daemon, *names: str) -> None:
    for name in names:
        daemon.wait_for("bundle.judged", id=name, phase="waiting")


def test_scan_and_explain_show_what_the_daemon_knows_and_say_so(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    alone = call(site, "scan", "-o", "json")
    assert alone.returncode == 0, alone.stderr
    assert "no daemon: due times start now\n" in alone.stderr
    told = json.loads(alone.stdout)
    assert "daemon" not in told["summary"]
    assert told["bundles"][0]["due_in_seconds"] == pytest.approx(3600, abs=0.5)
    with running(site) as daemon:
        waiting(daemon, "a")
        pid = daemon.process.pid
        until(lambda: "59m" in call(site, "scan").stdout, "the daemon's wait is shown")
        beside = call(site, "scan", "-o", "json")
        assert f"as the daemon (pid {pid}, observe) sees them\n" in beside.stderr
        told = json.loads(beside.stdout)
        assert told["summary"]["daemon"] == {"pid": pid, "mode": "observe"}
        (mine,) = told["bundles"]
        bundles = daemon.status()["bundles"]
        assert isinstance(bundles, list)
        (its,) = bundles
        for field in ("verdict", "phase", "reason", "policy", "attempts"):
            assert mine[field] == its[field], field
        shown = call(site, "explain", "shop/a")
        assert "would be removed in 59m" in shown.stdout
        assert f"as the daemon (pid {pid}, observe) sees them\n" in shown.stderr
        planned = call(site, "clean", "--dry-run")
        assert f"the daemon (pid {pid}, observe)" in planned.stderr
        assert call(site, "status", "-n", "shop", "-o", "name").stdout == "shop/a\n"
        mistyped = call(site, "status", "-n", "shpo")
        assert (mistyped.returncode, mistyped.stdout) == (2, "")
        assert "did you mean shop?" in mistyped.stderr
        assert site.socket.is_socket()
        assert daemon.end()[0] == 0
        assert not os.path.lexists(site.socket), "nobody finds a daemon that has ended"


def test_a_daemon_is_found_by_the_tree_alone(site: Site, answering: FakeContainerd) -> None:
    """Its socket is named by its own configuration only, which whoever asks does not read."""
    site.make("a")
    layout = site.layout
    there = [
        *("--state", os.fsdecode(layout.state), "--root", os.fsdecode(layout.root)),
        *("--address", os.fsdecode(layout.address)),
    ]
    broken = site.base / "broken.toml"
    broken.write_text("mood = 1")
    with running(site) as daemon:
        waiting(daemon, "a")
        who = f"as the daemon (pid {daemon.process.pid}, observe) sees them"
        until(lambda: who in call(site, "scan", *there, config="").stderr, "it is found")
        assert who in call(site, "explain", "a", *there, config="").stderr
        assert who in call(site, "clean", "--dry-run", *there, config="").stderr
        assert call(site, "status", "-o", "name", *there, config="").stdout == "shop/a\n"
        done = call(site, "status", "-o", "name", *there, config=str(broken))
        assert (done.returncode, done.stdout) == (0, "shop/a\n")
        assert f"; the daemon is looked for at {site.socket}\n" in done.stderr
        assert daemon.end()[0] == 0
    assert "no daemon: due times" in call(site, "scan", *there, config="").stderr


def test_a_daemon_of_another_tree_is_none(
    site: Site, answering: FakeContainerd, tmp_path: Path
) -> None:
    site.make("a")
    with running(site):
        other = tmp_path / "elsewhere"
        (other / "io.containerd.runtime.v2.task" / "shop").mkdir(parents=True)
        done = call(site, "scan", "--state", str(other))
        assert "no daemon: due times start now\n" in done.stderr


@enforces
@pytest.mark.safety
def test_the_daemon_cleans_what_it_is_asked_for_and_says_who_asked(
    site: Site, answering: FakeContainerd
) -> None:
    for name in ("a", "b", "c"):
        site.make(name)
    site.write(mode="enforce")
    with running(site) as daemon:
        waiting(daemon, "a", "b", "c")
        pid = daemon.process.pid
        done = call(site, "status", "--clean", "shop/a", "shop/nothing")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"shop/a is due now for the daemon (pid {pid})",
            "containerd-reconciler: shop/nothing is not cleaned: there is no such bundle",
        ]
        until(lambda: site.left() == {"b", "c"}, "a is removed, and nothing else")
        line = daemon.wait_for("cleanup.requested")
        assert line["bundles"] == ["shop/a", "shop/nothing"]
        assert line["uid"] == 0
        assert isinstance(line["pid"], int)
        assert line["pid"] > 0

        handed = call(site, "clean", "--yes", "--grace", "0s", "-o", "json")
        assert handed.returncode == 0, handed.stderr
        assert f"the daemon (pid {pid}) was asked" in handed.stderr
        told = json.loads(handed.stdout)
        assert {(one["id"], one["result"]) for one in told["results"]} == {
            ("b", "cleaned"),
            ("c", "cleaned"),
        }
        assert site.left() == set()
        released = call(site, "status", "--release")
        assert (released.returncode, released.stderr) == (
            0,
            f"nothing holds the daemon (pid {pid}) now\n",
        )
        assert daemon.wait_for("release.requested")["uid"] == 0
        assert daemon.end()[0] == 0


def test_a_daemon_that_observes_removes_nothing_for_anybody(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    with running(site) as daemon:
        waiting(daemon, "a")
        done = call(site, "status", "--clean", "shop/a")
        assert done.returncode == 1
        assert "shop/a is not cleaned: it may only be observed" in done.stderr
        assert site.left() == {"a"}
        assert daemon.ask("/-/clean?key=shop/a", "POST")[0] == 404, "orders come from root alone"
        assert daemon.ask("/bundles")[0] == 404


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--clean",), "--clean is for bundles"),
        (("shop/a",), "--clean is for bundles"),
        (("--clean", "--release", "shop/a"), "--clean and --release do not go together"),
        (("--reload", "--release"), "--reload and --release do not go together"),
        (("--clean", "a/b/c"), "'a/b/c' is neither NAMESPACE/ID nor ID"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anybody_is_asked(
    site: Site, words: tuple[str, ...], said: str
) -> None:
    done = call(site, "status", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
