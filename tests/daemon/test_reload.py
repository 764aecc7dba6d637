"""A reload: by signal, by order, by a file that changes; whole or not at all; nothing is lost."""

import fcntl
import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from tests.daemon.running import NAMESPACE, Daemon, Site, enforces, on_disk, running, until
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel

LOADED = "config.loaded"
REFUSED = "config.rejected"


def test_a_signal_loads_anew_and_the_log_says_what_changed(
    site: Site, answering: FakeContainerd
) -> None:
    with running(site) as daemon:
        site.write(cleanup__grace="30m", http__listen="127.0.0.1:1")
        daemon.send(signal.SIGHUP)
        line = daemon.wait_for(LOADED, why="SIGHUP")
        changes = line["changes"]
        assert isinstance(changes, list)
        assert 'cleanup.grace: "1h" -> "30m"' in changes
        later = f'http.listen: "127.0.0.1:{site.port}" -> "127.0.0.1:1"'
        assert line["after_restart"] == [later]
        assert daemon.metrics()["config_last_reload_successful"] == 1


def test_the_level_of_the_log_follows(site: Site, answering: FakeContainerd) -> None:
    with running(site) as daemon:
        site.write(log__level="error")
        assert daemon.reload()[0] == 200
        site.make("a")
        until(lambda: daemon.bundles() == 1, "it was seen")
        site.write(log__level="debug")
        assert daemon.reload()[0] == 200
        assert daemon.wait_for(LOADED)["after_restart"] == []
        assert [line for line in daemon.lines if line.get("id") == "a"] == []
        site.make("b")
        until(lambda: [line for line in daemon.lines if line.get("id") == "b"], "it says more")


@pytest.mark.fault("I21", "bad configuration on reload")
def test_a_bad_file_changes_nothing_and_shows_everywhere(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    with running(site) as daemon:
        before = daemon.wait_for("bundle.judged", id="a", phase="waiting")
        site.config.write_text(site.text(cleanup__grace="0s") + "\nnonsense = 1\n")
        code, text = daemon.reload()
        assert code == 422
        assert "nonsense: unknown key" in text
        assert "nonsense" in str(daemon.wait_for(REFUSED)["problem"])
        assert daemon.metrics()["config_last_reload_successful"] == 0
        config = daemon.status()["config"]
        assert isinstance(config, dict)
        assert config["ok"] is False
        assert "nonsense" in config["error"]
        assert "nonsense" in daemon.ask("/")[1]
        assert daemon.ask("/readyz")[0] == 200
        # The grace is still an hour: nothing has become due.
        assert daemon.events("bundle.judged")[-1] == before
        site.write(cleanup__grace="2h")
        assert daemon.reload() == (200, "ok\n")
        assert daemon.metrics()["config_last_reload_successful"] == 1
        config = daemon.status()["config"]
        assert isinstance(config, dict)
        assert config["ok"] is True


def test_a_file_that_an_editor_replaces_is_read(site: Site, answering: FakeContainerd) -> None:
    with running(site) as daemon:
        site.write(cleanup__grace="31m")  # a new file, renamed over the old one
        daemon.wait_for(LOADED, why=str(site.config))
        after = len(daemon.lines)
        site.config.write_text(site.text(cleanup__grace="32m"))  # in place
        daemon.wait_for(LOADED, why=str(site.config), after=after)


def test_a_swapped_symlink_of_a_config_map_is_followed(
    site: Site, answering: FakeContainerd
) -> None:
    mount = site.base / "map"
    mount.mkdir()
    _publish(site, mount, "..one", cleanup__grace="31m")
    (mount / "config.toml").symlink_to("..data/config.toml")
    site.config.unlink()
    site.config.symlink_to(mount / "config.toml")
    with running(site) as daemon:
        for name, grace in (("..two", "32m"), ("..three", "33m")):
            after = len(daemon.lines)
            _publish(site, mount, name, cleanup__grace=grace)
            line = daemon.wait_for(LOADED, after=after)
            assert f'-> "{grace}"' in str(line["changes"])


def _publish(site: Site, mount: Path, name: str, **options: object) -> None:
    """Swap the contents as the kubelet does: a new directory, and a link renamed over the old."""
    (mount / name).mkdir()
    (mount / name / "config.toml").write_text(site.text(**options))
    (mount / "..data_tmp").symlink_to(name)
    os.rename(mount / "..data_tmp", mount / "..data")


@enforces
def test_a_rule_on_an_annotation_protects_from_the_first_moment(
    site: Site, answering: FakeContainerd
) -> None:
    """No look has kept the annotation yet, and the same reload makes everything due."""
    for number in range(30):
        site.make(f"kept{number}", annotations={"team": "payments"})
        site.make(f"due{number}", annotations={"team": "other"})
    with running(site) as daemon:
        until(lambda: len(_phases(daemon, "waiting")) == 60, "all wait")
        site.tail = (
            '[[rule]]\nname = "payments"\nmatch = { annotation = { team = "payments" } }\n'
            "protect = true\n"
        )
        site.write(mode="enforce", cleanup__grace="0s", brake__mass_deaths=1000)
        assert daemon.reload() == (200, "ok\n")
        until(lambda: len(daemon.events("bundle.cleaned")) == 30, "the others are removed")
        assert {line["cause"] for line in _phases(daemon, "protected").values()} == {"payments"}
        assert daemon.end()[0] == 0
    assert site.left() == {f"kept{number}" for number in range(30)}


@enforces
@pytest.mark.safety
@pytest.mark.parametrize(
    ("tail", "change"),
    [
        ("", {"cleanup__threshold": "168h"}),
        ("", {"mode": "observe"}),
        ('[[rule]]\nname = "keep"\nmatch = { namespace = "*" }\nprotect = true\n', {}),
    ],
    ids=["threshold", "mode", "protect"],
)
def test_a_reload_holds_back_what_is_queued(
    site: Site, answering: FakeContainerd, tail: str, change: dict[str, object]
) -> None:
    """Four are due and the brake lets one go a minute; the next waits for the minute to end."""
    names = [f"b{number}" for number in range(4)]
    for name in names:
        site.make(name)
    site.write(mode="enforce", cleanup__grace="0s", brake__max_per_minute=1)
    with running(site) as daemon:
        daemon.wait_for("bundle.cleaned")
        assert len(site.left()) == 3
        site.tail = tail
        site.write(brake__max_per_minute=1000, **change)
        assert daemon.reload() == (200, "ok\n")
        daemon.wait_for(LOADED)
        # The brake is off now: whatever may still go goes at once.
        wanted = {"protected" if tail else "waiting" if "cleanup__threshold" in change else "due"}
        until(lambda: _phases_of(daemon, site.left()) == wanted, "all are held back")
        daemon.send(signal.SIGHUP)  # a listing and a round of looks later
        daemon.wait_for("config.unchanged")
        assert len(site.left()) == 3
        assert len(daemon.events("bundle.cleaned")) == 1
        assert daemon.end()[0] == 0
    assert len(site.left()) == 3


def _phases_of(daemon: Daemon, names: set[str]) -> set[object]:
    last = {line["id"]: line for line in daemon.events("bundle.judged")}
    return {last[name]["phase"] for name in names if name in last}


def _phases(daemon: Daemon, phase: str) -> dict[object, dict[str, object]]:
    last = {line["id"]: line for line in daemon.events("bundle.judged")}
    return {key: line for key, line in last.items() if line["phase"] == phase}


@enforces
def test_an_observer_that_is_to_act_takes_the_lock_first(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    site.write(cleanup__grace="0s", watch__relist="1s")
    with running(site) as first:
        first.wait_for("bundle.judged", id="a", phase="due")
        # A second observer is welcome, with a door of its own.
        own = {"http__listen": "", "http__socket": str(site.base / "own" / "other.sock")}
        site.write(**own)
        with running(site) as second:
            second.wait_for("bundle.judged", id="a", phase="due")
            site.write(mode="enforce", cleanup__grace="1h")
            first.send(signal.SIGHUP)
            first.wait_for(LOADED, why="SIGHUP")
            second.send(signal.SIGHUP)
            line = second.wait_for(REFUSED, why="SIGHUP")
            assert f"pid {first.process.pid} already acts on" in str(line["problem"])
            second.send(signal.SIGTERM)
            assert second.process.wait(10) == 0
            # Whoever stops to act lets go with the next check of the guards.
            after = len(first.lines)
            site.write(mode="observe")
            first.send(signal.SIGHUP)
            first.wait_for(LOADED, after=after)
            until(lambda: _is_free(site), "the lock is free")
        first.send(signal.SIGSTOP)  # it follows the same file, and might take the lock again
        site.write(mode="enforce", cleanup__grace="0s")
        with running(site) as third:
            third.wait_for("bundle.cleaned", id="a")


def _is_free(site: Site) -> bool:
    (lock,) = (site.base / "own").glob("tree-*.lock")
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@enforces
@on_disk
def test_a_guard_that_refuses_keeps_an_observer_observing(site: Site) -> None:
    site.write(containerd__allow_disk=False)
    with running(site) as daemon:
        site.write(mode="enforce")
        code, text = daemon.reload()
        assert code == 422
        assert "mode: cannot enforce" in text
        assert daemon.status()["mode"] == "observe"


def test_a_reload_under_load_loses_no_event(site: Site, answering: FakeContainerd) -> None:
    """Bundles come and go while the configuration changes; in the end the model is the tree."""
    kept, made, rounds, enough = 120, 400, 0, 3
    over, failed = threading.Event(), threading.Event()

    def churn() -> None:
        for number in itertools.count():
            path = site.make(f"b{number}")
            if number >= kept:
                os.rename(path, site.base / "making" / f"gone{number}")
            if number >= made and (rounds > enough or failed.is_set()):
                break
        over.set()

    with running(site) as daemon:
        worker = threading.Thread(target=churn)
        worker.start()
        try:
            while not over.is_set():
                rounds += 1
                match = f'{{ annotation = {{ a{rounds} = "1" }} }}'
                site.tail = f'[[rule]]\nname = "r{rounds}"\nmatch = {match}\n'
                site.write(cleanup__grace=f"{rounds + 60}m", cleanup__parallel=rounds % 8 + 1)
                if rounds % 2:
                    daemon.send(signal.SIGHUP)
                else:
                    assert daemon.reload() == (200, "ok\n")
        except BaseException:
            failed.set()
            raise
        finally:
            worker.join()
        assert rounds > enough
        until(lambda: daemon.bundles() == kept, "the model is the tree")
        # By events alone: the tree was listed at the start and by the reloads, never by the timer.
        assert not [
            line
            for line in daemon.events("resync.started")
            if line["reason"] in ("timer", "event queue overflow")
        ]
        told = {line["id"] for line in daemon.events("bundle.judged")}
        assert told >= {f"b{number}" for number in range(kept)}
        assert daemon.status()["ready"] is True
        assert daemon.end()[0] == 0
    assert site.left() == {path.name for path in (site.tree / NAMESPACE).iterdir()}


def test_the_interval_of_listings_follows(site: Site, answering: FakeContainerd) -> None:
    with running(site) as daemon:
        site.write(watch__relist="1s")
        assert daemon.reload()[0] == 200
        assert daemon.wait_for("config.loaded")["after_restart"] == []
        daemon.wait_for("resync.started", reason="timer")
