"""The daemon from its start to its end: codes, one instance, sockets, signals, memory."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.daemon.running import Site, containerd, enforces, on_disk, program, running, until
from tests.support.fake_containerd import FakeContainerd
from tests.support.mountns import private_mounts, tmpfs

pytestmark = pytest.mark.kernel


def test_it_says_when_it_is_ready_and_ends_in_order(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    with running(site) as daemon:
        assert daemon.ask("/readyz") == (200, "ok\n")
        assert daemon.ask("/livez") == (200, "ok\n")
        code, seconds = daemon.end()
    assert code == 0
    assert seconds < 5
    assert [line["event"] for line in daemon.lines[-2:]] == ["stop.requested", "daemon.stopped"]
    assert not site.socket.exists() or not _answers(site.socket)


def test_observing_removes_nothing(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    site.write(cleanup__grace="0s")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="due")
        assert daemon.end()[0] == 0
    assert site.left() == {"a"}


@enforces
def test_enforcing_removes_what_is_due(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    site.write(mode="enforce", cleanup__grace="0s")
    with running(site) as daemon:
        daemon.wait_for("bundle.cleaned", id="a")
        site.make("b")
        daemon.wait_for("bundle.cleaned", id="b")
        assert daemon.end()[0] == 0
    assert site.left() == set()


@pytest.mark.fault("I21", "bad configuration at start")
def test_a_bad_configuration_is_78_with_every_problem(site: Site) -> None:
    site.write(watch__backend="magic", cleanup__grce="1s")
    done = program(site, "daemon", "--config", str(site.config))
    assert done.returncode == 78
    assert "watch.backend" in done.stderr
    assert 'did you mean "grace"?' in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_state_directory_that_is_none_is_refused(site: Site) -> None:
    site.write(containerd__state="/run")
    done = program(site, "daemon", "--config", str(site.config))
    assert done.returncode == 78
    assert "not containerd's alone" in done.stderr


def test_a_state_directory_that_is_not_there_yet_is_waited_for(
    site: Site, answering: FakeContainerd
) -> None:
    os.rename(site.base / "state", site.base / "later")
    with running(site) as daemon:
        os.rename(site.base / "later", site.base / "state")
        site.make("a")
        daemon.wait_for("bundle.judged", id="a", verdict="leftover")
        assert daemon.end()[0] == 0


@enforces
@on_disk
def test_a_guard_that_refuses_is_77_with_the_reason(site: Site) -> None:
    site.write(mode="enforce", containerd__allow_disk=False)
    done = program(site, "daemon", "--config", str(site.config))
    assert done.returncode == 77
    last = done.stderr.splitlines()[-1]
    assert last.startswith("containerd-reconciler: ")
    assert "not on a tmpfs" in last


@pytest.mark.fault("I20", "second instance")
@enforces
def test_a_second_instance_on_the_tree_is_77(site: Site, answering: FakeContainerd) -> None:
    site.write(mode="enforce")
    with running(site) as daemon:
        done = program(site, "daemon", "--config", str(site.config))
        assert done.returncode == 77
        assert "another daemon listens on" in done.stderr
        assert "http.socket and http.listen" in done.stderr, "how to have two"
        site.write(http__socket="", http__listen="")
        done = program(site, "daemon", "--config", str(site.config))
        assert done.returncode == 77
        assert f"pid {daemon.process.pid} already acts on" in done.stderr
        daemon.process.kill()
        daemon.process.wait()
        with running(site) as next_one:
            assert next_one.end()[0] == 0


@pytest.mark.fault("stale unix socket")
def test_a_socket_left_by_a_killed_daemon_is_taken_over(site: Site) -> None:
    with running(site) as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert site.socket.exists()
    with running(site) as daemon:
        assert daemon.ask("/livez", order=True)[0] == 200


def test_what_is_no_socket_is_left_where_it_is_and_is_waited_for(site: Site) -> None:
    site.socket.write_text("precious")
    with running(site) as daemon:
        said = daemon.wait_for("endpoint.failed")
        assert "exists and is no socket" in str(said["problem"])
        assert "exists and is no socket" in daemon.ask("/status")[1], "told where we can be asked"
        assert site.socket.read_text() == "precious"
        site.socket.unlink()
        daemon.wait_for("endpoint.opened", address=str(site.socket))
        assert daemon.reload() == (200, "ok\n")
        assert site.socket.stat().st_mode & 0o777 == 0o600
        assert daemon.end()[0] == 0


@pytest.mark.fault("port in use")
def test_a_port_in_use_is_told_and_taken_once_it_is_free(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.port))
        other.listen()
        with running(site) as daemon:
            said = daemon.wait_for("endpoint.failed")
            assert f"cannot listen on 127.0.0.1:{site.port}" in str(said["problem"])
            assert "set http.listen" in str(said["problem"])
            asked = program(site, "--config", str(site.config), "status")
            assert f"http.listen: cannot listen on 127.0.0.1:{site.port}" in asked.stdout
            site.make("a")
            daemon.wait_for("bundle.judged", id="a")  # it is at work all the same
            other.close()
            daemon.wait_for("endpoint.opened", address=f"127.0.0.1:{site.port}")
            assert daemon.ask("/livez") == (200, "ok\n")
            asked = program(site, "--config", str(site.config), "status")
            assert "cannot listen" not in asked.stdout
            assert daemon.end()[0] == 0


def test_only_root_may_give_orders(site: Site) -> None:
    with running(site) as daemon:
        assert site.socket.stat().st_mode & 0o777 == 0o600
        assert daemon.ask("/-/reload", "POST")[0] == 404
        assert daemon.reload() == (200, "ok\n")


@pytest.mark.fault("SIGTERM mid-removal")
@enforces
def test_an_end_comes_at_an_entry_boundary(site: Site, answering: FakeContainerd) -> None:
    bundle = site.make("large")
    crowd = bundle / "rootfs"
    crowd.rmdir()
    work = site.work / "shop" / "large"
    for number in range(20_000):
        (work / f"{number:06}").touch()
    site.make("small")
    site.write(mode="enforce", cleanup__grace="0s")
    with running(site, ready=False) as daemon:
        until(lambda: len(os.listdir(work)) < 19_900, "the removal has begun")
        code, seconds = daemon.end()
        assert code == 0
        assert seconds < 5
    assert bundle.exists(), "the bundle goes last"
    left = len(os.listdir(work))
    assert left > 0
    with running(site, ready=False) as daemon:
        daemon.wait_for("bundle.cleaned", id="large")
        assert daemon.end()[0] == 0
    assert site.left() == set()


def test_waiting_goes_on_after_a_restart(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        time.sleep(0.5)  # the time that must not be waited for again
        assert daemon.end()[0] == 0
    with running(site) as daemon:
        line = daemon.wait_for("bundle.judged", id="a", phase="waiting")
        assert float(str(line["due_in_seconds"])) < 3600 - 0.5
        assert daemon.end()[0] == 0
    for path in (site.base / "own").glob("checkpoint-*.json"):
        path.write_bytes(b'{"torn":')
    with running(site) as daemon:
        line = daemon.wait_for("bundle.judged", id="a", phase="waiting")
        assert float(str(line["due_in_seconds"])) > 3600 - 0.5


@pytest.mark.fault("log pipe nobody reads")
def test_a_log_nobody_reads_holds_nothing_up(site: Site, answering: FakeContainerd) -> None:
    for number in range(200):
        site.make(f"b{number}")
    readable, writable = os.pipe()
    with running(site, ready=False, stderr=writable) as daemon:
        os.close(writable)
        until(lambda: daemon.bundles() == 200, "all were looked at")
        assert daemon.ask("/readyz")[0] == 200
        assert daemon.end()[0] == 0
    os.close(readable)


@pytest.mark.fault("disk full under the journal")
@private_mounts
def test_a_journal_on_a_full_disk_is_told_and_holds_nothing_up(site: Site) -> None:
    (site.base / "disk").mkdir()
    tmpfs(site.base / "disk", "size=16k")
    for number in range(40):
        site.make(f"b{number}")
    site.write(journal__path=str(site.base / "disk" / "journal.jsonl"), watch__relist="1s")
    with containerd(site), running(site) as daemon:
        line = daemon.wait_for("records.lost")
        journal = daemon.status()["journal"]
        assert isinstance(journal, dict)
        assert journal["lost"] > 0
        assert "No space" in journal["trouble"]
        assert "No space" in str(line["problem"])
        site.make("late")
        daemon.wait_for("bundle.judged", id="late", phase="waiting")
        assert daemon.end()[0] == 0


def test_a_journal_that_is_somebody_elses_file_is_not_touched(site: Site) -> None:
    letter = site.base / "letter"
    letter.write_text("precious")
    site.write(journal__path=str(letter))
    done = program(site, "daemon", "--config", str(site.config))
    assert done.returncode == 78
    assert "journal.path: " in done.stderr
    assert "is there and is no journal" in done.stderr
    assert letter.read_text() == "precious"


def test_a_run_is_recorded_where_the_configuration_says(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    journal = site.base / "journal.jsonl"
    site.write(journal__path=str(journal))
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        daemon.wait_for("readiness.reached")
        assert daemon.end()[0] == 0
    done = program(site, "replay", str(journal), "-o", "json")
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("RLIMIT_NOFILE 32")
def test_it_lives_with_few_handles(site: Site, answering: FakeContainerd) -> None:
    for number in range(40):
        site.make(f"b{number}")
    with running(site, before=("prlimit", "--nofile=32"), ready=False) as daemon:
        clients: list[socket.socket] = []
        until(lambda: daemon.process.poll() is not None or daemon.bundles() == 40, "all looked at")
        assert daemon.process.poll() is None, daemon.tail()
        for _ in range(40):
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", site.port))
        for client in clients:
            client.close()
        until(lambda: daemon.ask("/livez")[0] == 200, "it answers again")
        assert daemon.end()[0] == 0


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_signals_at_any_moment_end_it(site: Site) -> None:
    for pause in (0.0, 0.05, 0.15, 0.3):
        with running(site, ready=False) as daemon:
            if pause:
                daemon.wait_for("daemon.started")
            time.sleep(pause)
            daemon.send(signal.SIGTERM)
            code = daemon.process.wait(10)
        assert code in (0, -signal.SIGTERM)
        if pause:
            assert code == 0, json.dumps(daemon.lines)
